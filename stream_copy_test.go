//go:build !core

package zpipes

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"testing"
	"testing/iotest"
)

// Copies that wait for their source hold little memory, also after it has delivered much.
func TestStreamCopiesThatWaitAreSmall(t *testing.T) {
	const copies, most = 200, 16 << 10 // as many as make what else is left count for little
	overWaysInTurn(t, BrokerConfig{}, ClientConfig{}, func(r *rig) {
		if r.base {
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

func TestStreamCopyThroughReadFromAndWriteTo(t *testing.T) {
	t.Parallel()
	overAllWays(t, func(r *rig) {
		r.busy()
		rd, w := r.pipe("p")
		data := noise(3, r.bulk(2<<20))
		go func() {
			n, err := io.Copy(w, iotest.HalfReader(bytes.NewReader(data)))
			if n != int64(len(data)) || err != nil {
				t.Errorf("copied in %d, %v", n, err)
			}
			w.Close()
		}()
		var got bytes.Buffer
		if n, err := io.Copy(&got, rd); n != int64(len(data)) || err != nil {
			r.Errorf("copied out %d, %v", n, err)
		}
		if !bytes.Equal(got.Bytes(), data) {
			r.Error("the bytes differ")
		}
	})
}

type funcReader func(b []byte) (int, error)

func (f funcReader) Read(b []byte) (int, error) { return f(b) }

func TestStreamWriteToKeepsWhatWasNotTaken(t *testing.T) {
	overAllWays(t, func(r *rig) {
		rd, w := r.pipe("p")
		go func() { w.WriteString("hello, world"); w.Close() }()
		full := errors.New("full")
		n, err := io.Copy(&limitedWriter{left: 5, err: full}, rd)
		if n != 5 || !errors.Is(err, full) {
			r.Errorf("Copy: %d, %v", n, err)
		}
		rest, err := io.ReadAll(rd)
		if string(rest) != ", world" || err != nil {
			r.Errorf("the rest is %q, %v", rest, err)
		}
	})
}

type limitedWriter struct {
	left int
	err  error
}

func (w *limitedWriter) Write(b []byte) (int, error) {
	n := min(len(b), w.left)
	w.left -= n
	if n < len(b) {
		return n, w.err
	}
	return n, nil
}

type panicker struct{}

func (panicker) Write([]byte) (int, error) { panic("out of paper") }

func TestStreamWriteToSurvivesAPanic(t *testing.T) {
	overAllWays(t, func(r *rig) {
		rd, w := r.pipe("p")
		go w.WriteString("x")
		func() {
			defer func() { recover() }()
			rd.WriteTo(panicker{})
		}()
		if n, err := rd.Read(make([]byte, 1)); n != 1 || err != nil {
			r.Errorf("Read: %d, %v", n, err)
		}
	})
}
