package main

import (
	"bytes"
	"encoding/binary"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A nearWire is a Unix socket, on which each message follows its length.
type nearWire struct {
	fd   int
	rest []byte // of what was put: it has not left
	in   []byte // has come, and was not taken
	gone bool
}

const nearScheme = "unix://"

func isNear(endpoint string) bool { return strings.HasPrefix(endpoint, nearScheme) }

func dialNear(endpoint string) (*nearWire, error) {
	address := strings.TrimPrefix(endpoint, nearScheme)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: address})
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &nearWire{fd: fd}, nil
}

// framed is a message as it travels there.
func framed(m []byte) []byte { return append(number(uint32(len(m))), m...) }

func (w *nearWire) put(m [][]byte) (bool, error) {
	if err := w.flush(); err != nil || len(w.rest) > 0 {
		return false, err
	}
	w.rest = append(append(w.rest[:0], number(uint32(len(m[0])))...), m[0]...)
	return true, w.flush()
}

// flush sends what the system takes.
func (w *nearWire) flush() error {
	for len(w.rest) > 0 {
		k, err := unix.SendmsgN(w.fd, w.rest, nil, nil, unix.MSG_NOSIGNAL)
		switch err {
		case nil:
			w.rest = w.rest[k:]
		case unix.EAGAIN:
			return nil
		case unix.EINTR:
		default:
			w.gone = true
			return errGone
		}
	}
	return nil
}

func (w *nearWire) get() (answer, error) {
	w.flush() // its failure is met when all is taken
	for {
		if len(w.in) >= 4 {
			if end := 4 + int(binary.BigEndian.Uint32(w.in)); len(w.in) >= end {
				frame := bytes.Clone(w.in[4:end])
				w.in = w.in[end:]
				return answer{frame}, nil
			}
		}
		var more [64 << 10]byte
		k, err := unix.Read(w.fd, more[:])
		switch {
		case err == unix.EAGAIN:
			return nil, nil
		case err == unix.EINTR:
		case err != nil || k == 0:
			w.gone = true
			return nil, errGone
		default:
			w.in = append(w.in, more[:k]...)
		}
	}
}

func (w *nearWire) idle(most time.Duration, sends, listens bool) {
	p := []unix.PollFd{{Fd: int32(w.fd)}}
	if sends || len(w.rest) > 0 {
		p[0].Events |= unix.POLLOUT
	}
	if listens {
		p[0].Events |= unix.POLLIN
	}
	unix.Poll(p, int(most.Milliseconds()))
}

func (w *nearWire) lost() bool { return w.gone }

func (w *nearWire) hangUp(linger time.Duration) {
	for end := time.Now().Add(linger); w.flush() == nil && len(w.rest) > 0 && time.Now().Before(end); {
		w.idle(tick, true, false)
	}
	unix.Close(w.fd)
}
