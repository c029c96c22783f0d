//go:build unix && !race && !core

package zpipes

import (
	"io"
	"testing"
	"time"
)

// In the steady state a message costs no memory, whatever its size.
func TestNearAllocations(t *testing.T) {
	x, y := twoNears(t)
	for _, size := range []int{20, 1000, largeSegment, 100_000} {
		frame := make([]byte, size)
		if got := testing.AllocsPerRun(1000, func() {
			x.send(frame)
			x.flush()
			nextOf(t, y).body.release()
		}); got > 0.05 {
			t.Errorf("%d bytes: %.2f allocations", size, got)
		}
	}
}

var nearFrames = []struct {
	name string
	size int
}{{"64B", 64}, {"1KiB", 1 << 10}, {"64KiB", 64 << 10}, {"256KiB", 256 << 10}}

// A round trip, and what a bare socket has.
func BenchmarkNearRoundTrip(b *testing.B) {
	b.Run("near", func(b *testing.B) {
		x, y := twoNears(b)
		go func() {
			for y.connected() {
				if p, ok := y.wait(time.Time{}); ok {
					y.send(p.frame)
				}
			}
		}()
		frame := make([]byte, 64)
		for b.Loop() {
			x.send(frame)
			nextOf(b, x)
		}
		x.close()
	})
	b.Run("socket", func(b *testing.B) {
		x, y := unixPair(b)
		go io.Copy(struct{ io.Writer }{y}, struct{ io.Reader }{y})
		frame := make([]byte, 64)
		for b.Loop() {
			x.Write(frame)
			io.ReadFull(x, frame)
		}
		x.Close()
	})
}

// A stream, and what a bare socket has.
func BenchmarkNearStream(b *testing.B) {
	for _, f := range nearFrames {
		b.Run("near/"+f.name, func(b *testing.B) {
			x, y := twoNears(b)
			done := make(chan int)
			go func() {
				n := 0
				for y.connected() {
					if p, ok := y.wait(time.Time{}); ok {
						n += len(p.frame)
						p.body.release()
					}
				}
				done <- n
			}()
			b.SetBytes(int64(f.size))
			frame := make([]byte, f.size)
			n := 0
			for b.Loop() {
				for x.congested.Load() {
					x.wait(time.Time{})
				}
				x.send(frame)
				n += f.size
			}
			x.linger(soon)
			x.close()
			if got := <-done; got != n {
				b.Errorf("%d of %d bytes", got, n)
			}
		})
		b.Run("socket/"+f.name, func(b *testing.B) {
			x, y := unixPair(b)
			done := make(chan bool)
			go func() {
				buf := make([]byte, f.size)
				for {
					if _, err := io.ReadFull(y, buf); err != nil {
						close(done)
						return
					}
				}
			}()
			b.SetBytes(int64(f.size))
			frame := make([]byte, f.size)
			for b.Loop() {
				x.Write(frame)
			}
			x.Close()
			<-done
		})
	}
}
