//go:build unix && !core

package zpipes

import (
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// A nearPeer speaks at a near door without this library's client.
type nearPeer struct{ *net.UnixConn }

// dialNear connects to a near door.
func dialNear(endpoint string) (nearPeer, error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: strings.TrimPrefix(endpoint, nearScheme), Net: "unix"})
	return nearPeer{c}, err
}

func mustDialNear(t testing.TB, endpoint string) nearPeer {
	t.Helper()
	p, err := dialNear(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// nearDoorOf is where processes of this machine come to a broker.
func nearDoorOf(t testing.TB, b *Broker) string {
	t.Helper()
	all := b.Endpoints()
	if last := all[len(all)-1]; isNear(last) {
		return last
	}
	t.Fatalf("no near door among %q", all)
	return ""
}

func (p nearPeer) say(m message) error {
	p.SetWriteDeadline(time.Now().Add(4 * soon))
	_, err := p.Write(framed(m.append(nil)))
	return err
}

// next returns the next message. Its error is io.EOF, or a reset, where the broker has hung up.
func (p nearPeer) next(within time.Duration) (message, error) {
	p.SetReadDeadline(time.Now().Add(within))
	frame, err := readFramed(p)
	if err != nil {
		return message{}, err
	}
	return parse(frame)
}

// joinNear is a client's end of a connection to a broker, whose end is n.
func joinNear(t testing.TB, b *Broker) (p nearPeer, n *near) {
	t.Helper()
	its, mine := unixPair(t)
	n, err := newNear(fileOf(t, its), b.cfg.MaxMessage+messageOverhead, mostKeptNear)
	if err != nil {
		t.Fatal(err)
	}
	who, _ := peerOf("")
	if err := b.join(n, who, localPeer); err != nil {
		t.Fatal(err)
	}
	return nearPeer{mine}, n
}

// agree agrees on the extension, and returns what the broker says of itself.
func (p nearPeer) agree(t testing.TB) hello {
	t.Helper()
	if _, err := p.Write(nearHello()); err != nil {
		t.Fatal(err)
	}
	m, err := p.next(soon)
	if err != nil || m.id != msgPingOK || m.hello.session == 0 {
		t.Fatalf("%+v, %v", m, err)
	}
	return m.hello
}

// A nearActor is a scriptConn at a near door.
type nearActor struct{ nearPeer }

func (a nearActor) say(frames [][]byte) error {
	a.SetWriteDeadline(time.Now().Add(4 * soon))
	_, err := a.Write(framed(slices.Concat(frames...)))
	return err
}

func (a nearActor) hear(within time.Duration) ([][]byte, error) {
	a.SetReadDeadline(time.Now().Add(within))
	frame, err := readFramed(a)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, errWireSilence
	}
	return [][]byte{frame}, err
}

func (a nearActor) hangUp() { a.Close() }
