//go:build linux

package netrig

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newNet(t *testing.T, n int, offload bool) *Net {
	t.Helper()
	w, err := New(n, offload)
	return made(t, w, err)
}

func made(t *testing.T, w *Net, err error) *Net {
	t.Helper()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOENT) {
		t.Skipf("hosts need root and /dev/net/tun: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// connected is a connection from host 0 to host 1.
func connected(t *testing.T, w *Net) (from, to net.Conn) {
	t.Helper()
	var l net.Listener
	must(t, w.Host(1).Do(func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(w.Host(1).Addr.String(), "7900"))
		return err
	}))
	defer l.Close()
	must(t, w.Host(0).Do(func() (err error) {
		from, err = net.DialTimeout("tcp", l.Addr().String(), 10*time.Second)
		return err
	}))
	to, err := l.Accept()
	must(t, err)
	t.Cleanup(func() { from.Close(); to.Close() })
	return from, to
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// roundTrip is the least of some.
func roundTrip(t *testing.T, from, to net.Conn) time.Duration {
	t.Helper()
	go io.Copy(to, io.LimitReader(to, 20))
	least := time.Hour
	for range 20 {
		b := []byte{1}
		begin := time.Now()
		_, err := from.Write(b)
		must(t, err)
		_, err = io.ReadFull(from, b)
		must(t, err)
		least = min(least, time.Since(begin))
	}
	return least
}

func TestDelay(t *testing.T) {
	w := newNet(t, 2, false)
	w.All(Conditions{Delay: 20 * time.Millisecond})
	from, to := connected(t, w)
	took := roundTrip(t, from, to)
	for try := 0; try < 10 && took > 60*time.Millisecond; try++ { // the machine may be busy
		took = roundTrip(t, from, to)
	}
	if took < 40*time.Millisecond || took > 60*time.Millisecond {
		t.Errorf("a round trip takes %v, two delays of 20 ms", took)
	}
}

func TestRate(t *testing.T) {
	w := newNet(t, 2, false)
	from, to := connected(t, w)
	w.Lane(0, 1).Set(Conditions{Rate: 1 << 20, Queue: 64 << 10})
	data := bytes.Repeat([]byte("zpipes!"), 1<<17)
	begin := time.Now()
	go func() { from.Write(data); from.Close() }()
	got, err := io.ReadAll(to)
	must(t, err)
	if !bytes.Equal(got, data) {
		t.Errorf("%d bytes came that are not those %d that were sent", len(got), len(data))
	}
	if took := time.Since(begin); took < 800*time.Millisecond {
		t.Errorf("%d bytes took %v at 1 MiB a second", len(data), took)
	}
}

func TestLossIsMadeUpFor(t *testing.T) {
	w := newNet(t, 2, false)
	w.All(Conditions{Loss: 0.02, Twice: 0.02, Delay: time.Millisecond})
	from, to := connected(t, w)
	data := bytes.Repeat([]byte("zpipes!"), 1<<15)
	go func() { from.Write(data); from.Close() }()
	got, err := io.ReadAll(to)
	must(t, err)
	if !bytes.Equal(got, data) {
		t.Errorf("%d bytes came that are not those %d that were sent", len(got), len(data))
	}
}

func TestCutOneWay(t *testing.T) {
	w := newNet(t, 2, false)
	from, to := connected(t, w)
	roundTrip(t, from, to)
	w.Lane(1, 0).Set(Conditions{Cut: true})
	_, err := from.Write([]byte("x"))
	must(t, err)
	b := make([]byte, 1)
	_, err = io.ReadFull(to, b)
	must(t, err)
	_, err = to.Write(b)
	must(t, err)
	from.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if _, err := from.Read(b); err == nil {
		t.Error("something comes through what is cut")
	}
	w.Lane(1, 0).Set(Conditions{})
	from.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, err = io.ReadFull(from, b)
	must(t, err)
}

func TestGrep(t *testing.T) {
	w := newNet(t, 2, true)
	w.Grep([]byte("needle"))
	from, to := connected(t, w)
	for _, text := range []string{"hay", "needle"} {
		if w.Found() != 0 {
			t.Error("a needle was found in hay")
		}
		_, err := io.WriteString(from, text)
		must(t, err)
		_, err = io.ReadFull(to, make([]byte, len(text)))
		must(t, err)
	}
	if w.Found() == 0 {
		t.Error("the needle was not found")
	}
}

func TestProgramsRunOnTheirHosts(t *testing.T) {
	w := newNet(t, 2, false)
	for i := range 2 {
		var out strings.Builder
		cmd := exec.Command("cat", "/proc/net/fib_trie")
		cmd.Stdout = &out
		must(t, w.Host(i).Start(cmd))
		must(t, cmd.Wait())
		for j := range 2 {
			if has := strings.Contains(out.String(), w.Host(j).Addr.String()+"\n"); has != (i == j) {
				t.Errorf("host %d has the address of host %d: %v", i, j, has)
			}
		}
	}
}

// A host behind a router is reached at one port of that alone, and seems to be there when it connects to others.
func TestHostsBehindRouters(t *testing.T) {
	w, err := NewHidden(3, Forward{Outside: 17900, Inside: 7900})
	made(t, w, err)
	var l net.Listener
	must(t, w.Host(1).Do(func() (err error) {
		l, err = net.Listen("tcp", ":7900")
		return err
	}))
	defer l.Close()
	public := w.Host(1).Addr.String()
	dial := func(from int, port string, within time.Duration) (c net.Conn, err error) {
		must(t, w.Host(from).Do(func() error {
			c, err = net.DialTimeout("tcp", net.JoinHostPort(public, port), within)
			return nil
		}))
		return c, err
	}
	data := bytes.Repeat([]byte("zpipes!"), 1<<17)
	for from := range 3 {
		if c, err := dial(from, "7900", 300*time.Millisecond); err == nil {
			c.Close()
			t.Errorf("host %d has reached a port that is not forwarded", from)
		}
		if from == 1 {
			if c, err := dial(1, "17900", 300*time.Millisecond); err == nil {
				c.Close()
				t.Error("a host has reached itself through its router")
			}
			continue
		}
		c, err := dial(from, "17900", 10*time.Second)
		must(t, err)
		defer c.Close()
		in, err := l.Accept()
		must(t, err)
		defer in.Close()
		if at, _, _ := net.SplitHostPort(in.RemoteAddr().String()); at != w.Host(from).Addr.String() {
			t.Errorf("host %d comes from %s", from, at)
		}
		for _, way := range [][2]net.Conn{{c, in}, {in, c}} {
			go way[0].Write(data)
			got := make([]byte, len(data))
			_, err := io.ReadFull(way[1], got)
			must(t, err)
			if !bytes.Equal(got, data) {
				t.Error("other bytes came than were sent")
			}
		}
	}
}
