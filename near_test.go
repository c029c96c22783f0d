//go:build unix && !core

package zpipes

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// nearPair is a connection: one end as it is, the other as a transport.
func nearPair(t testing.TB, largest, most int) (*near, *net.UnixConn) {
	t.Helper()
	a, b := unixPair(t)
	n, err := newNear(fileOf(t, a), largest, most)
	if err != nil {
		t.Fatal(err)
	}
	n.met = true
	t.Cleanup(n.close)
	return n, b
}

func twoNears(t testing.TB) (x, y *near) {
	a, b := unixPair(t)
	x, err := newNear(fileOf(t, a), 1<<20, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.close)
	if y, err = newNear(fileOf(t, b), 1<<20, 1<<30); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(y.close)
	x.met, y.met = true, true
	return x, y
}

func unixPair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	conn := func(fd int) *net.UnixConn {
		f := os.NewFile(uintptr(fd), "pair")
		defer f.Close()
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c.(*net.UnixConn)
	}
	return conn(fds[0]), conn(fds[1])
}

// fileOf is the connection, as a near takes it.
func fileOf(t testing.TB, c *net.UnixConn) *os.File {
	t.Helper()
	f, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	return f
}

// framed is a message behind its length.
func framed(frame []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)
}

// readFramed reads one message.
func readFramed(r io.Reader) ([]byte, error) {
	var length [lengthBytes]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	frame := make([]byte, binary.BigEndian.Uint32(length[:]))
	_, err := io.ReadFull(r, frame)
	return frame, err
}

// nextOf waits for a message.
func nextOf(t testing.TB, n *near) packet {
	t.Helper()
	var p packet
	eventually(t, "a message", func() (ok bool) {
		if p, ok = n.wait(time.Now().Add(soon / 10)); !ok && !n.connected() {
			t.Fatalf("no message: %v", n.over)
		}
		return ok
	})
	return p
}

// nearSizes are those at which something changes.
var nearSizes = []int{
	0, 1, 3, 100, copyUpTo - 1, copyUpTo, copyUpTo + 1, inSize - lengthBytes, inSize, inSize + 1,
	copyToSend, copyToSend + 1, outSize, largeSegment, largeSegment + chunkOffset + tailBytes,
	largeSegment + chunkOffset + tailBytes + 1, frameSegment + chunkOffset + tailBytes,
	frameSegment + chunkOffset + tailBytes + 1, 1 << 20, 3<<20 + 7,
}

// Messages arrive whole and in order, however the bytes are cut.
func TestNearReceive(t *testing.T) {
	src := rand.New(rand.NewPCG(1, 2))
	n, peer := nearPair(t, 4<<20, 1)
	var sent [][]byte
	for i := range 300 {
		size := nearSizes[src.IntN(len(nearSizes))]
		if i%3 > 0 {
			size = src.IntN(300)
		}
		sent = append(sent, noise(uint64(i), size))
	}
	go func() {
		var stream []byte
		for _, frame := range sent {
			stream = append(stream, framed(frame)...)
		}
		for len(stream) > 0 {
			k := min(len(stream), 1+src.IntN(1<<src.IntN(20)))
			peer.Write(stream[:k])
			stream = stream[k:]
		}
	}()
	for i, want := range sent {
		p := nextOf(t, n)
		if !bytes.Equal(p.frame, want) {
			t.Fatalf("message %d of %d bytes arrived as one of %d", i, len(want), len(p.frame))
		}
		if p.lent == (p.body != nil) {
			t.Fatalf("message %d of %d bytes: lent %v, body %v", i, len(want), p.lent, p.body)
		}
		p.body.release()
	}
	if n.wait(time.Now()); n.in != nil || n.body != nil {
		t.Error("an idle connection holds buffers")
	}
}

// A body can be kept by a pipe, and be sent on in place.
func TestNearBody(t *testing.T) {
	n, peer := nearPair(t, 1<<20, 1)
	for _, size := range []int{copyUpTo, largeSegment, largeSegment + 1, frameSegment, frameSegment + 1} {
		chunk := noise(3, size)
		go peer.Write(framed((&message{id: msgWrite, chunk: chunk, block: hasBlock, channel: 7}).append(nil)))
		p := nextOf(t, n)
		m, err := parse(p.frame)
		if err != nil || m.channel != 7 {
			t.Fatalf("%v, %d", err, m.channel)
		}
		p.body.hold(&m)
		if !bytes.Equal(p.body.data(), chunk) {
			t.Errorf("%d bytes are not in the segment", size)
		}
		m, err = parse(p.body.frame(msgReadOK, hasBlock, 9))
		if err != nil || m.channel != 9 || !bytes.Equal(m.chunk, chunk) {
			t.Errorf("%d bytes as READ_OK: %v", size, err)
		}
		p.body.release()
	}
}

// Who announces a large message and does not send it, does not make us take the memory.
func TestNearAnnouncedOnly(t *testing.T) {
	n, peer := nearPair(t, 1<<30, 1)
	peer.Write(binary.BigEndian.AppendUint32(nil, 1<<30))
	peer.Write(make([]byte, 100))
	if p, ok := n.wait(time.Now().Add(50 * time.Millisecond)); ok {
		t.Fatalf("%d bytes", len(p.frame))
	}
	if n.body == nil || len(n.body.buf) > 2*frameSegment {
		t.Errorf("%+v", n.body)
	}
}

func TestNearTooLarge(t *testing.T) {
	for _, size := range []uint32{1001, 1 << 31, 1<<32 - 1} {
		n, peer := nearPair(t, 1000, 1)
		peer.Write(framed([]byte("before")))
		peer.Write(binary.BigEndian.AppendUint32(nil, size))
		if p := nextOf(t, n); string(p.frame) != "before" {
			t.Errorf("%q", p.frame)
		}
		if p := nextOf(t, n); p.fault != errTooLarge {
			t.Errorf("a message of %d bytes: %v", size, p.fault)
		}
		if _, ok := n.wait(time.Now().Add(soon)); ok || n.connected() {
			t.Errorf("after a message of %d bytes: %v", size, n.over)
		}
	}
	n, peer := nearPair(t, 1<<20, 1)
	n.met = false
	peer.Write(framed(make([]byte, messageOverhead+1)))
	if p := nextOf(t, n); p.fault != errTooLarge {
		t.Errorf("a large first message: %v", p.fault)
	}
}

// All that came before the end is received, and nothing of a message that is cut.
func TestNearEnd(t *testing.T) {
	for _, cut := range []int{0, 1, 3, 4, 5, 100, 50_000} {
		n, peer := nearPair(t, 1<<20, 1)
		n.send([]byte("unread")) // makes the end an ECONNRESET
		n.flush()
		peer.Write(framed([]byte("first")))
		peer.Write(framed(noise(1, 10_000)))
		peer.Write(framed(make([]byte, 60_000))[:cut])
		peer.Close()
		if p := nextOf(t, n); string(p.frame) != "first" {
			t.Errorf("%q", p.frame)
		}
		n.send(make([]byte, 100_000)) // to nobody
		if p := nextOf(t, n); len(p.frame) != 10_000 {
			t.Errorf("%d bytes", len(p.frame))
		} else {
			p.body.release()
		}
		if p, ok := n.wait(time.Now().Add(soon)); ok || n.connected() {
			t.Errorf("cut after %d bytes: %q", cut, p.frame)
		}
	}
}

// Messages leave in order, however slowly the peer takes them, with what is gathered at the
// next wait; and beyond what may be kept send says so, until wait says that it may go on.
func TestNearSend(t *testing.T) {
	for _, most := range []int{1, 300_000, 1 << 30} {
		n, peer := nearPair(t, 1000, most)
		src := rand.New(rand.NewPCG(3, 4))
		var frames [][]byte
		for i := range 300 {
			size := src.IntN(300)
			if i%4 == 0 {
				size = nearSizes[src.IntN(len(nearSizes))]
			}
			frames = append(frames, noise(uint64(i), size))
		}
		got := make(chan error, 1)
		go func() {
			for i, want := range frames {
				if i%50 == 0 {
					time.Sleep(10 * time.Millisecond)
				}
				frame, err := readFramed(peer)
				if err == nil && !bytes.Equal(frame, want) {
					err = errors.New("another message")
				}
				if err != nil {
					got <- err
					return
				}
			}
			got <- nil
		}()
		full := 0
		for _, frame := range frames {
			for n.send(frame) == errFull {
				full++
				n.wait(time.Now().Add(soon))
			}
		}
		n.wait(time.Now().Add(time.Millisecond))
		select {
		case err := <-got:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(soon):
			t.Fatal("not all of it arrived")
		}
		if full == 0 && most == 1 || full > 0 && most == 1<<30 {
			t.Errorf("full %d times where %d bytes may wait", full, most)
		}
		if full > len(frames) {
			t.Errorf("tried in vain %d times", full)
		}
		eventually(t, "an idle connection holds no buffers", func() bool {
			n.keptMu.Lock()
			defer n.keptMu.Unlock()
			return n.out == nil && n.kept.head == nil && !n.congested.Load()
		})
	}
}

func TestNearWake(t *testing.T) {
	n, peer := nearPair(t, 1000, 1)
	n.wake()
	n.wake()
	if _, ok := n.wait(time.Time{}); ok {
		t.Error("a message")
	}
	for range 1000 {
		go n.wake()
		n.wait(time.Time{})
	}
	start := time.Now()
	for time.Since(start) < 20*time.Millisecond {
		n.wait(start.Add(20 * time.Millisecond))
	}
	if d := time.Since(start); d > soon {
		t.Errorf("it waited %v", d)
	}
	// Who is woken all the time receives all the same.
	peer.Write(framed([]byte("x")))
	n.wake()
	if p, ok := n.wait(time.Time{}); !ok || string(p.frame) != "x" {
		t.Error("nothing received")
	}
	peer.Write(framed([]byte("y")))
	if p, ok := n.wait(time.Unix(1, 0)); !ok || string(p.frame) != "y" {
		t.Error("nothing received at the deadline")
	}
}

func TestNearSaysWhetherItWaited(t *testing.T) {
	x, y := twoNears(t)
	saysWhetherItWaited(t, x, y)
}

// Close drops what the peer does not take, or waits so long for it.
func TestNearClose(t *testing.T) {
	t.Run("drops", func(t *testing.T) {
		n, _ := nearPair(t, 1000, 1<<30)
		n.send(make([]byte, 10<<20))
		start := time.Now()
		n.linger(10 * time.Millisecond)
		if n.close(); time.Since(start) > soon {
			t.Errorf("it took %v", time.Since(start))
		}
		n.wake()
	})
	t.Run("delivers", func(t *testing.T) {
		n, peer := nearPair(t, 1000, 1<<30)
		peer.Write(framed([]byte("unread")))
		n.send(make([]byte, 10<<20))
		n.linger(soon)
		got := inBackground(func() (int, error) {
			frame, err := readFramed(peer)
			return len(frame), err
		})
		n.close()
		if r := <-got; r.n != 10<<20 || r.err != nil {
			t.Errorf("%d, %v", r.n, r.err)
		}
	})
}

// Who borrows a connection while its owner waits sends what arrives whole and in order,
// whatever the owner receives and sends meanwhile; nobody borrows it while the owner works.
func TestNearBorrow(t *testing.T) {
	x, y := twoNears(t)
	if x.borrow() {
		t.Fatal("the owner works")
	}
	const senders, each = 4, 500
	answers := 0
	done := make(chan bool)
	go func() { // x's owner
		defer close(done)
		for answers < senders*each {
			p, ok := x.wait(time.Now().Add(soon))
			switch {
			case ok && p.frame[0] == 'a':
				answers++
			case ok:
				x.send([]byte{senders, 0, 0})
			default:
				runtime.Gosched()
			}
		}
		x.flush()
	}()
	for i := range senders {
		go func() {
			for k := range each {
				frame := append([]byte{byte(i)}, binary.BigEndian.AppendUint16(nil, uint16(k))...)
				if k%100 == 0 {
					frame = append(frame, make([]byte, 100_000)...)
				}
				// Who wakes the owner again and again keeps him from waiting, and so from lending.
				for woken := false; !x.borrow(); runtime.Gosched() {
					if !woken {
						x.wake()
						woken = true
					}
				}
				x.send(frame)
				x.repay()
			}
		}()
	}
	var got [senders]int
	owners := 0
	for end := time.Now().Add(10 * soon); owners < senders*each/10 || got != [senders]int{each, each, each, each}; {
		if !time.Now().Before(end) {
			t.Fatal("it stands still at", got, owners)
		}
		p, ok := y.wait(time.Now().Add(soon))
		if !ok {
			continue
		}
		i, k := p.frame[0], int(binary.BigEndian.Uint16(p.frame[1:]))
		p.body.release()
		if i == senders {
			owners++
			continue
		}
		if k != got[i] {
			t.Fatalf("%d's frame %d came after %d", i, k, got[i])
		}
		got[i]++
		if y.send([]byte{'a'}); k%10 == 0 {
			y.send([]byte{'b'})
		}
	}
	for {
		select {
		case <-done:
			return
		case <-time.After(time.Millisecond):
			y.wait(time.Unix(1, 0)) // flushes
		}
	}
}

func TestNearTakesOfManyLargeDurableJobs(t *testing.T) {
	limits := takesManyLarge
	limits.Dir = t.TempDir()
	r := &rig{T: t, broker: nearDoorOf(t, startBroker(t, limits))}
	r.client = r.newClient(ClientConfig{Timeout: soon})
	for name, cfg := range map[string]QueueConfig{"uncounted": {Durable: true}, "counted": {Durable: true, MaxDeliveries: 3}} {
		q, err := cfg.OpenQueue(t.Context(), r.client, name)
		check(t, err)
		r.takesManyLarge(q)
	}
}

// How far the broker is does not make a Queue ask for each chunk by itself.
func TestNearReceivesFastFromAfar(t *testing.T) {
	const chunks, late = 1000, 5 * time.Millisecond
	b := startBroker(t, BrokerConfig{})
	var answers atomic.Int32
	r := &rig{T: t, broker: passing(t, nearDoorOf(t, b), func(frame []byte) []byte {
		if m, err := parse(frame); err == nil && m.id == msgReadOK {
			answers.Add(1)
			time.Sleep(late) // which is what is tried
		}
		return frame
	})}
	r.client = r.newClient(patient)
	q := r.queue("q")
	home := &rig{T: t, broker: b.Name()}
	home.client = home.newClient(patient)
	home.numbers(home.queue("q"), chunks)
	r.receivesRange(q, 0, chunks)
	if n := answers.Load(); n > chunks/4 {
		t.Errorf("%d chunks came in %d answers", chunks, n)
	}
}
