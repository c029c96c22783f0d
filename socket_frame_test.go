//go:build cgo && unix && !core

package zpipes

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// What is received is the same without zmq4 and with it: frames of all sizes, the others
// of their messages, and what is known of their connection.
func TestSocketFrames(t *testing.T) {
	t.Parallel()
	for _, direct := range []bool{true, false} {
		t.Run(fmt.Sprintf("direct=%v", direct), func(t *testing.T) {
			ctx := wireContext(t)
			defer wireTerm(ctx)
			of := &zmqContext{zmq: ctx}
			zap, err := newZapHandler(of, func(q zapRequest) (string, error) { return q.address, nil })
			if err != nil {
				t.Fatal(err)
			}
			defer zap.close()
			s, err := newRouter(of, 4<<20)
			if err != nil {
				t.Fatal(err)
			}
			defer s.close()
			if err := s.useZap("test"); err != nil {
				t.Fatal(err)
			}
			if direct && s.inlet == nil {
				t.Fatal("zmq4 has its socket somewhere else now")
			}
			if !direct {
				s.inlet = nil
			}
			var known string
			asked := []string{userID, descriptor}
			s.asks = func([]byte) (string, []string) { return known, asked }
			if err := s.bind("tcp://127.0.0.1:*"); err != nil {
				t.Fatal(err)
			}
			at, err := s.bound()
			if err != nil {
				t.Fatal(err)
			}
			c, err := newDealer(of, at, 4<<20, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer c.close()
			exchange := func(frames ...[]byte) packet {
				t.Helper()
				if err := c.send(frames...); err != nil {
					t.Fatal(err)
				}
				p := s.receives(t)
				kept := frames[1:min(len(frames), 1+maxFrames)]
				if !bytes.Equal(p.frame, frames[0]) || !slices.EqualFunc(p.more, kept, bytes.Equal) {
					t.Fatalf("%d frames, the first of %d bytes, became %d, the first of %d", len(frames), len(frames[0]), 1+len(p.more), len(p.frame))
				}
				return p
			}

			p := exchange([]byte("hello"))
			user := p.about[userID]
			if user == "" || p.about[descriptor] == "" || len(p.about) != 2 {
				t.Errorf("of the connection is known %v", p.about)
			}
			known = "somebody else"
			if p := exchange([]byte("hello")); p.about[userID] != user {
				t.Errorf("of a connection that is not the one is known %v", p.about)
			}
			known = user
			random := rand.NewChaCha8([32]byte{})
			bytesOf := func(n int) []byte {
				b := make([]byte, n)
				random.Read(b)
				return b
			}
			var sizes []int
			for _, n := range []int{0, copyUpTo, largeSegment, frameSegment, 1 << 20} {
				for beside := range 2 * (chunkOffset + tailBytes) {
					sizes = append(sizes, n+beside)
				}
			}
			for _, n := range sizes {
				frame := bytesOf(n)
				p := exchange(frame)
				if p.about != nil {
					t.Errorf("of a connection that is known is told %v", p.about)
				}
				if direct && p.lent == (p.body != nil) {
					t.Fatalf("a frame of %d bytes: lent %v, and in a segment of its own %v", n, p.lent, p.body != nil)
				}
				if p.body != nil && n > chunkOffset+tailBytes { // a pipe may keep it, and send it on in place
					m := message{chunk: frame[chunkOffset : n-tailBytes]}
					p.body.hold(&m)
					p.body.frame(msgReadOK, hasBlock, 1)
					if !bytes.Equal(p.body.data(), m.chunk) {
						t.Fatalf("the chunk of a frame of %d bytes is another one", n)
					}
				}
				p.body.release()
			}
			for _, n := range []int{0, 5, copyUpTo, 100 << 10} {
				p := exchange(bytesOf(n), nil, bytesOf(1), bytesOf(n), bytesOf(3*n), bytesOf(n), bytesOf(3*n))
				if p.lent || p.body != nil {
					t.Error("a message of several frames is not its receiver's")
				}
			}
		})
	}
}
