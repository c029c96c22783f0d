//go:build !core

package zpipes

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"
)

// A plumbing makes a stream to be measured.
type plumbing struct {
	name string
	open func(b *testing.B) (io.ReadCloser, io.WriteCloser)
}

var plumbings = []plumbing{
	{"direct", func(b *testing.B) (io.ReadCloser, io.WriteCloser) { return benchPipe(b, ways[0]) }},
	{"near", func(b *testing.B) (io.ReadCloser, io.WriteCloser) { return benchPipe(b, wayOf("near")) }},
	{"ipc", func(b *testing.B) (io.ReadCloser, io.WriteCloser) { return benchPipe(b, wayOf("ipc")) }},
	{"io.Pipe", func(b *testing.B) (io.ReadCloser, io.WriteCloser) { return io.Pipe() }},
	{"os.Pipe", func(b *testing.B) (io.ReadCloser, io.WriteCloser) {
		r, w, err := os.Pipe()
		if err != nil {
			b.Fatal(err)
		}
		return r, w
	}},
}

func wayOf(name string) way {
	return ways[slices.IndexFunc(ways, func(w way) bool { return w.name == name })]
}

func benchPipe(b *testing.B, w way) (*Reader, *Writer) {
	broker, _ := w.start(b, BrokerConfig{})
	// Each end has a client, and so a connection, of its own.
	c, d := benchClient(b, broker), benchClient(b, broker)
	rd, err := c.OpenReader(context.Background(), "p")
	if err != nil {
		b.Fatal(err)
	}
	wr, err := d.OpenWriter(context.Background(), "p")
	if err != nil {
		b.Fatal(err)
	}
	return rd, wr
}

func benchClient(b *testing.B, broker string) *Client {
	c, err := NewClient(broker)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}

// BenchmarkStream writes chunks of one size and reads with a large buffer.
func BenchmarkStream(b *testing.B) {
	for _, size := range []int{64, 1 << 10, 64 << 10, 1 << 20} {
		for _, p := range plumbings {
			b.Run(fmt.Sprintf("size=%d/%s", size, p.name), func(b *testing.B) {
				r, w := p.open(b)
				defer r.Close()
				b.SetBytes(int64(size))
				b.ReportAllocs()
				b.ResetTimer()
				go func() {
					buf := make([]byte, size)
					for range b.N {
						if _, err := w.Write(buf); err != nil {
							b.Error(err)
							break
						}
					}
					w.Close()
				}()
				var total int
				buf := make([]byte, max(size, 64<<10))
				for {
					n, err := r.Read(buf)
					total += n
					if err == io.EOF {
						break
					}
					if err != nil {
						b.Fatal(err)
					}
				}
				if total != b.N*size {
					b.Fatalf("read %d of %d bytes", total, b.N*size)
				}
			})
		}
	}
}

// BenchmarkPingPong sends 64 bytes there and back over two streams.
func BenchmarkPingPong(b *testing.B) {
	for _, p := range plumbings {
		b.Run(p.name, func(b *testing.B) {
			r1, w1 := p.open(b)
			r2, w2 := p.open(b)
			defer r1.Close()
			defer r2.Close()
			go func() {
				io.CopyBuffer(struct{ io.Writer }{w2}, struct{ io.Reader }{r1}, make([]byte, 64))
				w2.Close()
			}()
			var buf [64]byte
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if _, err := w1.Write(buf[:]); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(r2, buf[:]); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			w1.Close()
		})
	}
}

// BenchmarkFlush writes 64 bytes and waits for the confirmation.
func BenchmarkFlush(b *testing.B) {
	for _, w := range []way{ways[0], wayOf("near"), wayOf("ipc")} {
		b.Run(w.name, func(b *testing.B) {
			r, w := benchPipe(b, w)
			go io.Copy(io.Discard, r)
			var buf [64]byte
			b.ResetTimer()
			for range b.N {
				w.Write(buf[:])
				if err := w.Flush(); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			w.Close()
		})
	}
}

// One sender and one receiver, each in a goroutine of its own.
func BenchmarkQueue(b *testing.B) {
	for _, size := range []int{64, 1024} {
		for _, w := range ways {
			if w.base {
				continue
			}
			b.Run(fmt.Sprintf("size=%d/%s", size, w.name), func(b *testing.B) {
				broker, kill := w.start(b, BrokerConfig{})
				defer kill()
				open := func() *Queue {
					c, err := NewClient(broker)
					if err != nil {
						b.Fatal(err)
					}
					b.Cleanup(func() { c.Close() })
					q, err := c.OpenQueue(b.Context(), "q")
					if err != nil {
						b.Fatal(err)
					}
					return q
				}
				sender, receiver := open(), open()
				b.SetBytes(int64(size))
				b.ReportAllocs()
				done := make(chan error, 1)
				b.ResetTimer()
				go func() {
					for range b.N {
						if _, err := receiver.Receive(b.Context()); err != nil {
							done <- err
							return
						}
					}
					done <- nil
				}()
				chunk := make([]byte, size)
				for range b.N {
					if err := sender.Send(b.Context(), chunk); err != nil {
						b.Fatal(err)
					}
				}
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}
