//go:build !core

package zpipes

import (
	"cmp"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"testing"
	"time"
)

// Each side of a link says that it lives, whatever comes from the other one; and asks for an answer now and
// then, or each time where the other one knows of nothing else.
func TestMeshLinkBeats(t *testing.T) {
	const seconds, links = 80, fewLinks + 2
	m := &mesh{fellows: make(map[memberID]*fellow)}
	asked, last := make(map[memberID]int), make(map[memberID]time.Time)
	for id := range memberID(links) {
		f := &fellow{mesh: m, id: id, able: linkAbilities}
		if id%2 == 0 {
			f.able &^= ableBeats
		}
		// What is sent stays: it seems that somebody is writing it already.
		f.link = &meshLink{mesh: m, fellow: f, far: &far{life: &f.life, mostOut: 1 << 20, writing: make(chan struct{})}}
		m.fellows[id] = f
	}
	now := time.Now()
	for range seconds * int(time.Second/meshTick) {
		now = now.Add(meshTick)
		for id, f := range m.fellows {
			f.life.note(now)
			f.link.far.heard.note(now)
			last[id] = cmp.Or(last[id], now)
		}
		m.look(now)
		for id, f := range m.fellows {
			for _, said := range f.link.far.take(t) {
				if last[id] = now; said.id == msgPing {
					asked[id]++
				}
			}
			if silent := now.Sub(last[id]); silent > slowBeat {
				t.Fatalf("nothing was said for %v", silent)
			}
		}
	}
	for id, n := range asked {
		if want := map[memberID]int{0: seconds, 1: seconds / askEvery}[id%2]; n != want {
			t.Errorf("%d has been asked %d times in %d s, want %d", id, n, seconds, want)
		}
	}
}

// take takes out what is to be written.
func (f *far) take(t *testing.T) (all []message) {
	b := make([]byte, f.rest.n)
	f.rest.read(b)
	for len(b) > 0 {
		n := lengthBytes + int(binary.BigEndian.Uint32(b))
		m, err := parse(b[lengthBytes:n])
		if err != nil {
			t.Fatal(err)
		}
		all, b = append(all, m), b[n:]
	}
	f.unsent = 0
	return all
}

// An answer that was not asked for says nothing of how far the other side is, and one that was, does.
func TestMeshLinkMeasures(t *testing.T) {
	asked := time.Now().Add(-time.Hour)
	for _, x := range []struct {
		said []byte
		rtt  time.Duration // at least
	}{
		{beatFrame, 0},
		{(&message{id: msgPingOK, block: hasBlock, hello: hello{number: 1}}).append(nil), 0},
		{(&message{id: msgPingOK, block: hasBlock, hello: hello{version: protocolVersion}}).append(nil), time.Hour},
	} {
		here, there := net.Pipe()
		f := &fellow{mesh: &mesh{}, able: linkAbilities}
		l := &meshLink{mesh: f.mesh, fellow: f, far: newFar(here, messageOverhead, mostRecords, &f.life)}
		l.pinged.Store(&asked)
		go func() {
			there.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(x.said))), x.said...))
			there.Close()
		}()
		if err := l.receive(); err != io.EOF {
			t.Error(err)
		}
		if got := time.Duration(f.rtt.Load()); (got > 0) != (x.rtt > 0) || got < x.rtt || (l.pinged.Load() == nil) != (x.rtt > 0) {
			t.Errorf("%x was taken for an answer after %v", x.said, got)
		}
	}
}

// Two brokers with the same names of broker and host, behind one NAT, seem to be one that was started again when both
// are lost and one of them comes back; the other one is let in as well.
func TestMeshTwoThatSeemToBeOne(t *testing.T) {
	t.Parallel()
	m := newTestCluster().broker(t).mesh
	linked := func(ids ...memberID) bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return !slices.ContainsFunc(ids, func(id memberID) bool { return m.fellows[id] == nil || m.fellows[id].link == nil })
	}
	comes := func(id memberID) {
		here, there := net.Pipe()
		t.Cleanup(func() { there.Close() })
		m.mu.Lock()
		defer m.mu.Unlock()
		said := &message{text: []byte("local@host"), fellow: wireFellow{id: id, address: []byte("127.0.0.1:1")}}
		m.adopt(newFar(here, messageOverhead, mostRecords, new(lifeSign)), said, id, "")
	}
	comes(7)
	comes(8)
	if !linked(7, 8) {
		t.Fatal("they are not both linked")
	}
	m.mu.Lock()
	m.unlink(m.fellows[7], "a test")
	m.unlink(m.fellows[8], "a test")
	m.mu.Unlock()
	comes(7)
	comes(8)
	if !linked(7, 8) {
		t.Error("one has taken the other's place")
	}
}
