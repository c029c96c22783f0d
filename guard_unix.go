//go:build unix

package zpipes

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// maxSocketPath is what fits into a sockaddr_un with its final NUL, on Linux.
const maxSocketPath = 107

// guardEndpoint keeps two brokers from binding one path, since the second would
// silently take it over from the first. It checks other endpoints, too; what
// has to be undone after the broker is what it returns.
func guardEndpoint(endpoint string) (unlock func(), err error) {
	network, path, err := dialAddress(endpoint)
	if err != nil {
		return nil, err
	}
	if network != "unix" || strings.HasPrefix(path, "@") {
		return nil, nil
	}
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("%w: %s: a socket's path has at most %d bytes, this one %d", ErrBadName, endpoint, maxSocketPath, len(path))
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("%s: %w: the path is a file that is no socket", endpoint, fs.ErrExist)
	}
	lock, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if err == syscall.EWOULDBLOCK {
			return nil, fmt.Errorf("%s: %w: its lock is held", endpoint, ErrBrokerExists)
		}
		return nil, &fs.PathError{Op: "flock", Path: path + ".lock", Err: err}
	}
	if answers(network, path) {
		lock.Close()
		return nil, fmt.Errorf("%s: %w: somebody serves it", endpoint, ErrBrokerExists)
	}
	return func() { lock.Close() }, nil
}

// awaitUnbound returns when nobody serves the endpoint any more, or after a
// second.
func awaitUnbound(endpoint string) {
	network, address, err := dialAddress(endpoint)
	if err != nil || network == "" {
		return
	}
	for end := time.Now().Add(time.Second); answers(network, address) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}

func answers(network, address string) bool {
	c, err := net.Dial(network, address)
	if err != nil {
		return false
	}
	c.Close()
	return true
}
