//go:build !core

package zpipes

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// On a long way the system's buffers bound what one connection carries (some 2 MB a round trip).
// So a connection for data that goes so far is several, its strands: pieces of the same size
// go over one after the other, in turn, and are received in turn. So nothing has to say what
// is where, and what strands have ahead waits in the system's buffers.

const (
	// strandsFar is how many strands a connection has where a round trip takes farAway.
	strandsFar = 4
	farAway    = 20 * time.Millisecond
	// strandPiece is how many bytes go over one strand until it is the next one's turn.
	strandPiece = 64 << 10
	mostStrands = 16
)

// A braid is a net.Conn of several. As with others, one may read while another one writes.
type braid struct {
	net.Conn // the first
	strands  []net.Conn
	in, out  braidTurn
}

// A braidTurn is whose turn it is, and how much has gone over that one since.
type braidTurn struct{ strand, done int }

func (t *braidTurn) left() int { return strandPiece - t.done }

func (t *braidTurn) add(n, strands int) {
	if t.done += n; t.done == strandPiece {
		*t = braidTurn{strand: (t.strand + 1) % strands}
	}
}

func newBraid(strands []net.Conn) net.Conn {
	if len(strands) == 1 {
		return strands[0]
	}
	return &braid{Conn: strands[0], strands: strands}
}

func (b *braid) Read(p []byte) (int, error) {
	n, err := b.strands[b.in.strand].Read(p[:min(len(p), b.in.left())])
	b.in.add(n, len(b.strands))
	return n, err
}

func (b *braid) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = b.strands[b.out.strand].Write(p[n:min(len(p), n+b.out.left())])
		b.out.add(k, len(b.strands))
		n += k
	}
	return n, err
}

func (b *braid) each(f func(net.Conn) error) error {
	var all []error
	for _, c := range b.strands {
		all = append(all, f(c))
	}
	return errors.Join(all...)
}

func (b *braid) Close() error { return b.each(net.Conn.Close) }
func (b *braid) SetDeadline(t time.Time) error {
	return b.each(func(c net.Conn) error { return c.SetDeadline(t) })
}
func (b *braid) SetReadDeadline(t time.Time) error {
	return b.each(func(c net.Conn) error { return c.SetReadDeadline(t) })
}
func (b *braid) SetWriteDeadline(t time.Time) error {
	return b.each(func(c net.Conn) error { return c.SetWriteDeadline(t) })
}

// A strandName is what is said of a strand: whose it is, which one, and how many there are.
type strandName struct {
	braid        uint64
	strand, many byte
}

func (s strandName) text() []byte {
	return append(binary.BigEndian.AppendUint64(nil, s.braid), s.strand, s.many)
}

func parseStrand(text []byte) (s strandName, ok bool) {
	if len(text) != 10 {
		return s, false
	}
	s = strandName{binary.BigEndian.Uint64(text), text[8], text[9]}
	return s, s.many > 1 && s.many <= mostStrands && s.strand < s.many
}

// dialData makes a connection for data to a fellow, at that address, of so many strands.
func (m *mesh) dialData(ctx context.Context, f *fellow, address string, many int) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(m.stop, cancel)()
	failed := make(chan error, many)
	strands := make([]net.Conn, many)
	name := strandName{braid: rand.Uint64(), many: byte(many)}
	var all sync.WaitGroup
	for i := range strands {
		name.strand = byte(i)
		mode, text := byte(linkStrand), name.text()
		if many == 1 {
			mode, text = linkBulk, []byte(m.name)
		}
		all.Go(func() {
			limited, stop := context.WithTimeout(ctx, meetTime/2) // there may be another address
			defer stop()
			c, err := m.port.Dial(limited, address)
			if err == nil {
				_, _, err = m.introduce(ctx, c, mode, text, f.id, &f.life)
			}
			if err != nil {
				failed <- err
				cancel() // the others are of no use
				return
			}
			strands[i] = c
		})
	}
	all.Wait()
	select {
	case err := <-failed:
		for _, c := range strands {
			if c != nil {
				c.Close()
			}
		}
		return nil, err
	default:
		return newBraid(strands), nil
	}
}

// A gathering is a braid of which not all strands have come yet. The mesh's mu guards it.
type gathering struct {
	strands []net.Conn
	missing int
	done    chan struct{} // closed when none is missing
}

type gatheringName struct {
	member memberID
	braid  uint64
}

var errNoStrand = errors.New("it is not clear which other connections it belongs to, or they have not come")

// gather has a strand wait for the others. The last one gets the braid; for the others it is nil.
func (m *mesh) gather(c net.Conn, f *fellow, s strandName) (net.Conn, error) {
	name := gatheringName{f.id, s.braid}
	m.mu.Lock()
	g := m.gatherings[name]
	if g == nil {
		g = &gathering{strands: make([]net.Conn, s.many), missing: int(s.many), done: make(chan struct{})}
		m.gatherings[name] = g
	}
	if int(s.many) != len(g.strands) || g.strands[s.strand] != nil {
		m.mu.Unlock()
		return nil, errNoStrand
	}
	g.strands[s.strand] = c
	if g.missing--; g.missing == 0 {
		delete(m.gatherings, name)
		close(g.done)
	}
	last := g.missing == 0
	m.mu.Unlock()
	if last {
		return newBraid(g.strands), nil
	}
	late := time.NewTimer(meetTime)
	defer late.Stop()
	select {
	case <-g.done:
		return nil, nil
	case <-late.C:
	case <-m.stop.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if g.missing == 0 {
		return nil, nil
	}
	if m.gatherings[name] == g {
		delete(m.gatherings, name)
	}
	return nil, errNoStrand
}
