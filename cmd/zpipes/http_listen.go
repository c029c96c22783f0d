package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// maxPageConns is how many connections the page has at a time, so that it leaves
// descriptors to the broker.
const maxPageConns = 128

// pageAddress takes an address apart: a path, a port, or HOST:PORT, where no host means
// loopback.
func pageAddress(addr string) (network, address, host string, err error) {
	if path, unix := strings.CutPrefix(addr, "unix:"); unix || strings.Contains(addr, "/") {
		if !strings.Contains(path, "/") {
			return "", "", "", fmt.Errorf("the page for browsers: %q is no path of a socket, such as /run/zpipes/page.sock", addr)
		}
		if err := checkPath(path); err != nil {
			return "", "", "", fmt.Errorf("the page for browsers: %w", err)
		}
		return "unix", path, "localhost", nil
	}
	if !strings.Contains(addr, ":") {
		addr = ":" + addr // a mere port
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", "", "", fmt.Errorf("the page for browsers: %w", err)
	}
	if port == "" {
		return "", "", "", fmt.Errorf("the page for browsers: %q has no port; say 8080, or HOST:8080", addr)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return "tcp", net.JoinHostPort(host, port), host, nil
}

// checkPath refuses a path that the address of a socket has no room for.
func checkPath(path string) error {
	if most := len(syscall.RawSockaddrUnix{}.Path) - 1; len(path) > most {
		return usageError{fmt.Sprintf("a socket's path has at most %d bytes, and this one %d: %s", most, len(path), visible(path))}
	}
	return nil
}

// listenUnix serves at a path. Who may connect is looked at for each connection, so the
// socket is open to all where some other user may.
func listenUnix(path string, users []int) (net.Listener, error) {
	if !tellsPeers {
		return nil, errors.New("this system does not tell who connects to a socket; give HOST:PORT")
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
		if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
			c.Close()
		} else if errors.Is(err, syscall.ECONNREFUSED) {
			os.Remove(path) // one that was killed has left it
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // it may be another one's by then
	s := &pathListener{Listener: l, path: path}
	mode := fs.FileMode(0o600)
	if len(users) > 0 {
		mode = 0o666
	}
	if err = os.Chmod(path, mode); err == nil {
		s.file, err = os.Lstat(path)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return s, nil
}

// A pathListener takes its socket's file away when it ends, if it is still its own.
type pathListener struct {
	net.Listener
	path string
	file fs.FileInfo
}

func (l *pathListener) Close() error {
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.file) {
		os.Remove(l.path)
	}
	return l.Listener.Close()
}

// mayLook says whether the broker would let a user in who is overflow if he has no place
// in this user namespace.
func mayLook(uid, overflow int, users []int) bool {
	return uid == 0 && overflow != 0 || uid == os.Geteuid() && uid != overflow || slices.Contains(users, uid)
}

// A pageListener lets in, of those who come by a Unix socket, the users who may see the
// page; and no more connections than there is room for. Where there are so many, the oldest
// of those that have not shown yet that they may be there make room.
type pageListener struct {
	net.Listener
	users []int
	log   *slog.Logger
	extra int // connections beyond maxPageConns

	mu     sync.Mutex // guards what follows, and gone of each pageConn
	conns  int
	doubts []*pageConn // the oldest first: those that have shown nothing
}

func (l *pageListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if _, unix := c.(*net.UnixConn); unix {
			if uid, _, ok := unixPeer(c); !ok || !mayLook(uid, overflowUID(), l.users) {
				l.log.Warn("somebody may not see the page", "user", uid)
				turnAway(c)
				continue
			}
		}
		if held := l.hold(c); held != nil {
			return held, nil
		}
		c.Close()
	}
}

// turnAway says so, as far as that goes without waiting.
func turnAway(c net.Conn) {
	const text = "you may not see this; zpipes broker --allow-user can allow it\n"
	c.SetDeadline(time.Now().Add(time.Second))
	fmt.Fprintf(c, "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
	c.Close()
}

// hold counts a connection; nil if there is no room.
func (l *pageListener) hold(c net.Conn) *pageConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns >= maxPageConns+l.extra {
		if len(l.doubts) == 0 {
			return nil
		}
		l.doubts[0].drop()
	}
	held := &pageConn{Conn: c, of: l}
	l.doubts = append(l.doubts, held)
	l.conns++
	return held
}

// A pageConn is a connection that its listener has counted.
type pageConn struct {
	net.Conn
	of   *pageListener
	gone bool
}

// drop is Close with of.mu held.
func (c *pageConn) drop() error {
	if !c.gone {
		c.gone = true
		c.of.conns--
		c.trust()
	}
	return c.Conn.Close()
}

// trust takes it off the list of those that make room; of.mu is held.
func (c *pageConn) trust() {
	c.of.doubts = slices.DeleteFunc(c.of.doubts, func(x *pageConn) bool { return x == c })
}

func (c *pageConn) Close() error {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	return c.drop()
}

type pageConnKey struct{}

func withPageConn(ctx context.Context, c net.Conn) context.Context {
	if secret, ok := c.(*tls.Conn); ok {
		c = secret.NetConn()
	}
	return context.WithValue(ctx, pageConnKey{}, c)
}

// stays marks the request's connection as one that does not have to make room.
func stays(r *http.Request) {
	if c, ok := r.Context().Value(pageConnKey{}).(*pageConn); ok {
		c.of.mu.Lock()
		defer c.of.mu.Unlock()
		c.trust()
	}
}
