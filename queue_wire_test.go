//go:build !core

package zpipes

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestQueueReadersAndWriters(t *testing.T) {
	t.Parallel()
	const ends, chunks, size = 3, 300, 1000
	overQueueWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		r.busy()
		q := r.queue("q")
		var writing, reading sync.WaitGroup
		for i := range ends { // a stream takes one
			w := r.writer("q")
			writing.Go(func() {
				for range chunks {
					w.Write(bytes.Repeat([]byte{byte('a' + i)}, size))
				}
				if err := w.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		counts := make([][256]int, ends)
		var readers []*Reader
		for range ends {
			readers = append(readers, r.reader("q"))
		}
		var total atomic.Int64
		for i, rd := range readers {
			rd.SetReadDeadline(time.Now().Add(20 * time.Second))
			reading.Go(func() {
				b := make([]byte, 700)
				for {
					n, err := rd.Read(b)
					for _, c := range b[:n] {
						counts[i][c]++
					}
					if total.Add(int64(n)) == ends*chunks*size {
						for _, rd := range readers {
							rd.Close()
						}
					}
					if err != nil {
						if !errors.Is(err, os.ErrClosed) {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		writing.Wait()
		reading.Wait()
		r.receivesNothing(q, 20*time.Millisecond)
		for c := range ends {
			n := 0
			for i := range ends {
				n += counts[i]['a'+c]
			}
			if n != chunks*size {
				r.Errorf("%d bytes of writer %d were read, want %d", n, c, chunks*size)
			}
		}
	})
}
