//go:build unix

package zpipes

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"
)

// claimTime is how long a start waits for a name that is taken though nobody answers
// there.
const claimTime = 2 * time.Second

// errTaken: an endpoint is locked, or bound.
var errTaken = errors.New("taken")

// claim binds an endpoint with bind, which returns errTaken where somebody else has
// bound it. Where somebody answers, the error is ErrBrokerExists. Where nobody does, the
// name may still be free in a moment: a process that starts a program leaves its
// listeners and locks to the child until that executes it.
//
// A path is locked, since a second bind would silently take it over from the first;
// release, if there is one, is called after the end. hello is what has a broker answer;
// nil: libzmq greets whoever connects.
func claim(network, address string, hello []byte, bind func() error) (release func(), err error) {
	if isPath(network, address) {
		if info, err := os.Lstat(address); err == nil && info.Mode().Type() != fs.ModeSocket {
			return nil, fmt.Errorf("%s: %w: the path is a file that is no socket", address, fs.ErrExist)
		}
	}
	end := time.Now().Add(claimTime)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		release, err = tryToClaim(network, address, bind)
		if !errors.Is(err, errTaken) {
			return release, err
		}
		if network == "" || time.Now().After(end) || serves(network, address, hello, end) {
			return nil, ErrBrokerExists
		}
		time.Sleep(pause)
	}
}

func tryToClaim(network, address string, bind func() error) (release func(), err error) {
	if !isPath(network, address) {
		return nil, bind()
	}
	unlock, err := lockPath(address)
	if err != nil {
		return nil, err
	}
	if answers(network, address) {
		unlock()
		return nil, errTaken
	}
	if err := bind(); err != nil {
		unlock()
		return nil, err
	}
	bound, err := os.Lstat(address)
	return func() {
		if there, err2 := os.Lstat(address); err == nil && err2 == nil && os.SameFile(bound, there) {
			os.Remove(address)
		}
		unlock()
	}, nil
}

// lockPath locks a socket's path, with a file beside it that is there only meanwhile.
func lockPath(path string) (unlock func(), err error) {
	path += ".lock"
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if errors.Is(err, syscall.ELOOP) {
		// No lock is a link: whatever it leads to is not ours to make.
		if err := os.Remove(path); err != nil {
			return nil, err
		}
		return nil, errTaken
	}
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err == nil && (!info.Mode().IsRegular() || info.Size() > 0) {
		f.Close()
		return nil, fmt.Errorf("%s: %w: a broker's lock, which is to be there, is an empty file", path, fs.ErrExist)
	}
	ours := func() bool { // not where somebody has removed it since it was opened
		there, err1 := os.Lstat(path)
		open, err2 := f.Stat()
		return err1 == nil && err2 == nil && os.SameFile(there, open)
	}
	if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil && !ours() {
		err = syscall.EWOULDBLOCK
	}
	if err != nil {
		f.Close()
		if err == syscall.EWOULDBLOCK {
			return nil, errTaken
		}
		return nil, &fs.PathError{Op: "flock", Path: path, Err: err}
	}
	return func() {
		if ours() {
			os.Remove(path)
		}
		// A child that is being started may have the file still, and with it the lock.
		syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
		f.Close()
	}, nil
}

// serves says that somebody answers at an address.
func serves(network, address string, hello []byte, end time.Time) bool {
	c, err := net.DialTimeout(network, address, time.Until(end))
	if err != nil {
		return errors.Is(err, os.ErrDeadlineExceeded)
	}
	defer c.Close()
	return greets(c, hello, end)
}

// servesOwn says that a process of this user does, who says hello; nil: as ZeroMQ does.
func servesOwn(endpoint string, hello []byte) bool {
	network, address, err := dialAddress(endpoint, true)
	if err != nil {
		return false
	}
	end := time.Now().Add(claimTime)
	c, err := net.DialTimeout(network, address, claimTime)
	if err != nil {
		return false
	}
	defer c.Close()
	who, told := peerCredentials(c.(syscall.Conn))
	return (!told || ownUser(who.UID)) && greets(c, hello, end)
}

// greets says that there is a broker at the other end, or that somebody still listens at
// that time and says nothing. A listener that its process has closed, and that only a
// child has still, ends before.
func greets(c net.Conn, hello []byte, end time.Time) bool {
	c.SetDeadline(end)
	if _, err := c.Write(hello); err != nil {
		return errors.Is(err, os.ErrDeadlineExceeded)
	}
	n, err := c.Read(make([]byte, 1))
	return n > 0 || errors.Is(err, os.ErrDeadlineExceeded)
}

// awaitUnbound returns when nobody serves the endpoint any more, or after a
// second.
func awaitUnbound(endpoint string) {
	network, address, err := dialAddress(endpoint, true)
	if err != nil || network == "" {
		return
	}
	for end := time.Now().Add(time.Second); answers(network, address) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

// answers says that somebody listens at an address, who may be too busy to answer.
func answers(network, address string) bool {
	c, err := net.Dial(network, address)
	if err != nil {
		return errors.Is(err, syscall.EAGAIN)
	}
	c.Close()
	return true
}
