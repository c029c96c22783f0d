package zpipes

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"testing"
)

// Copies that wait for their source hold little memory, also after it has delivered much.
func TestCopiesThatWaitAreSmall(t *testing.T) {
	const copies, most = 200, 16 << 10
	overAllWays(t, func(r *rig) {
		if r.old {
			r.Skip("has a connection for each end")
		}
		data := noise(5, 100_001)
		before := held()
		for i := range copies {
			name := fmt.Sprint("p", i)
			rd, w := r.pipe(name)
			src, feed := net.Pipe()
			r.Cleanup(func() { src.Close(); feed.Close() })
			go io.Copy(w, src)
			arrived := make(sizes, 1)
			go io.Copy(arrived, rd)
			if _, err := feed.Write(data); err != nil {
				r.Fatal(err)
			}
			for n := 0; n < len(data); n += <-arrived {
			}
		}
		if n := (held() - before) / copies; n > most {
			r.Errorf("a copy holds %d bytes, want %d at most", n, most)
		} else {
			r.Logf("a copy holds %d bytes", n)
		}
	})
}

// sizes gets how much each Write has.
type sizes chan int

func (c sizes) Write(b []byte) (int, error) {
	c <- len(b)
	return len(b), nil
}

// held is how much memory is in use, pools emptied.
func held() int {
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
