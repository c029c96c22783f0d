//go:build !core

package zpipes

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// sluices are the pipes through which connections pass on what is much, so that the system moves pages, where to
// read and to write copied all twice. A connection has one from when something comes until all of it has left, and who finds none copies.
type sluices chan *sluice

// A sluice is a pipe; nil: it has yet to be made.
type sluice struct{ out, in int }

const (
	// mostSluices is how many pipes a door may have.
	mostSluices = 8
	// sluiceBytes is how many there is room for in one, if they fill its pages.
	sluiceBytes = 256 << 10
)

func newSluices() sluices {
	all := make(sluices, mostSluices)
	for range mostSluices {
		all <- nil
	}
	return all
}

// take returns one that is empty, or nil.
func (all sluices) take() (s *sluice) {
	select {
	case s = <-all:
	default:
		return nil
	}
	var fds [2]int
	switch {
	case s != nil:
	case unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil:
		all <- nil
	default:
		s = &sluice{fds[0], fds[1]}
		unix.FcntlInt(uintptr(s.in), unix.F_SETPIPE_SZ, sluiceBytes) // else there is room for less
	}
	return s
}

// close is for when nobody has one any more.
func (all sluices) close() {
	for range mostSluices {
		(<-all).close()
		all <- nil
	}
}

func (s *sluice) close() {
	if s != nil {
		unix.Close(s.out)
		unix.Close(s.in)
	}
}

// pour passes on what comes, as long as it is much. The error is errors.ErrUnsupported where that can't be
// done now; then nothing is lost.
func (all sluices) pour(to, from net.Conn, came func()) error {
	source, err := rawConn(from)
	if err != nil {
		return err
	}
	sink, err := rawConn(to)
	if err != nil {
		return err
	}
	patient, _ := to.(*patientWriter)
	var s *sluice
	var n, left int
	var failed error
	fill := func(fd uintptr) bool {
		if s = all.take(); s == nil {
			failed = errors.ErrUnsupported
			return true
		}
		n, failed = splice(int(fd), s.in, sluiceBytes)
		if failed != nil || n == 0 {
			all <- s
		}
		return failed != unix.EAGAIN
	}
	drain := func(fd uintptr) bool {
		n, failed = splice(s.out, int(fd), left)
		return failed != unix.EAGAIN
	}
	empty := func() error {
		for left = n; left > 0; left -= n {
			if patient != nil {
				patient.prolong()
			}
			if err := sink.Write(drain); err != nil {
				return err
			}
			if failed != nil {
				return os.NewSyscallError("splice", failed)
			}
		}
		return nil
	}
	for much := true; much; {
		if err := source.Read(fill); err != nil {
			return err
		}
		switch {
		case failed != nil: // what is wrong with the connection, a Read says
			return errors.ErrUnsupported
		case n == 0:
			return io.EOF
		}
		came()
		much = n >= muchComes
		if err := empty(); err != nil {
			s.close()
			all <- nil
			return err
		}
		all <- s
	}
	return nil
}

func rawConn(c net.Conn) (syscall.RawConn, error) {
	if s, ok := c.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

func splice(from, to, most int) (int, error) {
	for {
		n, err := unix.Splice(from, nil, to, nil, most, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if err != unix.EINTR {
			return int(n), err
		}
	}
}
