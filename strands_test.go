//go:build !core

package zpipes

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// connected returns both ends of some connections.
func connected(t *testing.T, n int) (here, there []net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range n {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close(); s.Close() })
		here, there = append(here, c), append(there, s)
	}
	return here, there
}

// What goes over strands comes in order, both ways at once, in calls of any size.
func TestStrands(t *testing.T) {
	for _, n := range []int{1, 2, strandsFar} {
		here, there := connected(t, n)
		a, b := newBraid(here), newBraid(there)
		sent := noise(uint64(n), 3<<20+123)
		carry := func(from, to net.Conn, seed uint64) <-chan error {
			done := make(chan error, 2)
			random := rand.New(rand.NewPCG(seed, 0))
			go func() {
				for rest := sent; len(rest) > 0; {
					k := min(len(rest), 1+random.IntN(3*strandPiece))
					if _, err := from.Write(rest[:k]); err != nil {
						done <- err
						return
					}
					rest = rest[k:]
				}
				done <- nil
			}()
			go func() {
				got := make([]byte, len(sent))
				_, err := io.ReadFull(to, got)
				if err == nil && !bytes.Equal(got, sent) {
					err = errors.New("other bytes came")
				}
				done <- err
			}()
			return done
		}
		one, other := carry(a, b, 1), carry(b, a, 2)
		for range 2 {
			if err := errors.Join(<-one, <-other); err != nil {
				t.Errorf("%d strands: %v", n, err)
			}
		}
		a.SetReadDeadline(time.Now())
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d strands: a Read behind its deadline: %v", n, err)
		}
		a.Close()
		if _, err := b.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%d strands: a Read behind the end: %v", n, err)
		}
	}
}

// fellow is what a broker knows of another one.
func (b *Broker) fellow(other *Broker) *fellow {
	b.mesh.mu.Lock()
	defer b.mesh.mu.Unlock()
	return b.mesh.fellows[other.mesh.id]
}

// A strand whose others do not come, or that says nothing of use, is let go.
func TestStrandsThatDoNotCome(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 2)
	a, b := brokers[0], brokers[1]
	f := a.fellow(b)
	for _, text := range [][]byte{nil, {1, 2, 3}, strandName{1, 4, 4}.text(), strandName{1, 0, 1}.text(), strandName{1, 0, 200}.text(), strandName{2, 1, 3}.text()} {
		_, sound := parseStrand(text)
		conn, err := a.mesh.port.Dial(t.Context(), f.addresses[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err = a.mesh.introduce(t.Context(), conn, linkStrand, text, f.id, &f.life); (err == nil) != sound {
			t.Fatalf("%v: %v", text, err)
		}
		if !sound {
			continue
		}
		conn.SetDeadline(time.Now().Add(meetTime + soon))
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v: %v", text, err)
		}
		conn.Close()
	}
	b.mesh.mu.Lock()
	defer b.mesh.mu.Unlock()
	if len(b.mesh.gatherings) > 0 {
		t.Error("something is kept")
	}
}

// When something was heard does not depend on what the clock is set to.
func TestLifeSignsOutliveTheClock(t *testing.T) {
	var s lifeSign
	now := time.Now()
	s.note(now)
	// A time without a reading of the clock that nobody sets has no "m=".
	if got := s.time(); !got.Equal(now) || !strings.Contains(got.String(), " m=") {
		t.Errorf("%v was noted as %v", now, got)
	}
}
