//go:build unix && !core

package zpipes

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// A nearDoor is where processes of this machine come to a broker without ZeroMQ. Who they
// are is known before they have said anything.
type nearDoor struct {
	broker   *Broker
	endpoint string
	listener *os.File
	done     chan struct{} // closed when nobody is let in any more
}

// openDoor binds a near door; serve follows. The path is for unbind to release.
func (b *Broker) openDoor(endpoint string) error {
	network, address, err := parseEndpoint(endpoint)
	if err != nil {
		return err
	}
	if !doorsTell && len(b.cfg.AllowUIDs) > 0 {
		return fmt.Errorf("%s: %w: this system does not say which user comes to a near door, so AllowUIDs can't hold there", endpoint, errors.ErrUnsupported)
	}
	var l *os.File
	release, err := claim(network, address, nearHello(), func() (err error) {
		l, err = listenNear(address)
		return err
	})
	if release != nil {
		b.locks = append(b.locks, release)
	}
	if err == nil && isPath(network, address) {
		switch {
		case !doorsTell: // the path's permissions must do
			err = os.Chmod(address, 0o600)
		case len(b.cfg.AllowUIDs) > 0:
			err = admitAll(address)
		}
	}
	if err != nil {
		if l != nil {
			l.Close()
		}
		return fmt.Errorf("%s: %w", endpoint, err)
	}
	b.doors = append(b.doors, &nearDoor{broker: b, endpoint: endpoint, listener: l, done: make(chan struct{})})
	return nil
}

// listenNear binds an address that nobody serves; a path may have been left behind.
func listenNear(address string) (*os.File, error) {
	if isPath("unix", address) {
		os.Remove(address)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: address, Net: "unix"})
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, errTaken
	}
	if err != nil {
		return nil, err
	}
	defer l.Close()
	l.SetUnlinkOnClose(false) // that is for who knows whether the path is still ours
	return l.File()
}

// helloAt is what a broker says first at that endpoint; nil: what ZeroMQ does.
func helloAt(endpoint string) []byte {
	if isNear(endpoint) {
		return nearHello()
	}
	return nil
}

// nearHello is what a broker answers at its near door, whoever asks.
func nearHello() []byte {
	m := message{id: msgPing, block: hasBlock, hello: hello{
		version: protocolVersion, number: uint32(helloTime / time.Millisecond), able: abilities,
	}}
	frame := m.append(make([]byte, lengthBytes))
	frame[lengthBytes-1] = byte(len(frame) - lengthBytes)
	return frame
}

// serve lets clients in, until the listener is closed.
func (d *nearDoor) serve() {
	defer close(d.done)
	acceptAll(d.broker, "near", d.endpoint, d.accept, d.admit)
}

// accept waits for a client. Package net would do so with twice as many calls, as with dialDoor.
func (d *nearDoor) accept() (*os.File, error) {
	raw, err := d.listener.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd, failed := -1, error(nil)
	err = raw.Read(func(listener uintptr) bool {
		for {
			switch fd, failed = acceptSome(int(listener)); failed {
			case syscall.EINTR, syscall.ECONNABORTED:
			case syscall.EAGAIN:
				return false
			default:
				return true
			}
		}
	})
	if err != nil {
		return nil, os.ErrClosed // the poller has a word of its own for that
	}
	if failed != nil {
		return nil, os.NewSyscallError("accept", failed)
	}
	return os.NewFile(uintptr(fd), "near"), nil
}

func (d *nearDoor) close() { d.listener.Close() }

// admit has a client served, or refuses it.
func (d *nearDoor) admit(c *os.File) {
	b := d.broker
	who, told := peerCredentials(c)
	if doorsTell && !told { // it has gone already
		c.Close()
		return
	}
	address := localAddress(who, told)
	who, err := b.admit(address)
	var leave func()
	if err == nil {
		if leave, err = nearVisitors.enter(who.payer(), c); err != nil {
			b.pipes.denied.Add(1)
			b.log.warn("client refused", "why", err, "peer", address, "refusals", b.pipes.denied.Load())
		}
	}
	n, err2 := newNear(c, b.cfg.MaxMessage+messageOverhead, mostKeptNear)
	switch {
	case err2 != nil:
		c.Close()
	case err != nil:
		n.send((&message{id: msgInvalid, block: hasBlock, code: causeDenied, cause: []byte(err.Error())}).append(nil))
		n.close()
	case b.join(visitor{n, leave}, who, address) == nil:
		return
	default:
		n.close()
	}
	if leave != nil {
		leave()
	}
}

// mostKeptNear is how much may wait for a client before its pipes do.
const mostKeptNear = frameSegment

// A visitor is counted until its connection is closed.
type visitor struct {
	*near
	leave func()
}

func (v visitor) close() {
	v.near.close()
	v.leave()
}

// nearVisitors are the clients of this process's brokers that have come through near doors.
var nearVisitors visitorList

// A visitorList counts connections, each of which holds a descriptor of the host process.
type visitorList struct {
	mu  sync.Mutex // guards what follows; no other lock is taken under it
	all int
	of  map[int]int // by Access.payer
}

// enter counts one of that user's, unless the process would have too few descriptors left,
// or the user has as many as are left for the others. leave takes it off.
func (g *visitorList) enter(user int, c syscall.Conn) (leave func(), err error) {
	most, left := descriptorsLeft(c)
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case left <= 0:
		return nil, errors.New("the broker's process has no more file descriptors for connections")
	case g.of[user] >= most-g.all:
		return nil, fmt.Errorf("%s has %d connections to this process already", whose(user), g.of[user])
	}
	if g.of == nil {
		g.of = make(map[int]int)
	}
	g.all++
	g.of[user]++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.all--
		if g.of[user]--; g.of[user] == 0 {
			delete(g.of, user)
		}
	}, nil
}

// mostDescriptors is how many descriptors this process's brokers may have. An eighth is the
// host program's, who can't do without some.
func mostDescriptors() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		limit.Cur = 1024
	}
	return int(min(uint64(limit.Cur), 1<<20)) / 8 * 7
}

// descriptorsLeft says how many descriptors may be connections, and how many of them are
// left: a new one has the least number that is free.
func descriptorsLeft(c syscall.Conn) (most, left int) {
	most = mostDescriptors()
	if raw, err := c.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { left = most - int(fd) })
	}
	return most, left
}
