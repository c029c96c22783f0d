package seglog

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A writtenFS counts the bytes that are written.
type writtenFS struct {
	FS
	n atomic.Int64
}

func (w *writtenFS) Open(name string) (File, error)   { return w.file(w.FS.Open(name)) }
func (w *writtenFS) Create(name string) (File, error) { return w.file(w.FS.Create(name)) }

func (w *writtenFS) file(f File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return writtenFile{f, w}, nil
}

type writtenFile struct {
	File
	fs *writtenFS
}

func (f writtenFile) WriteAt(b []byte, at int64) (int, error) {
	f.fs.n.Add(int64(len(b)))
	return f.File.WriteAt(b, at)
}

// Keys of jobs that are gone are written again when their segment goes. However many they are, what is new has as much room.
func TestManyKeysLeaveRoom(t *testing.T) {
	const jobs, some = 3000, 10
	fs := &writtenFS{FS: newMemFS()}
	s := must[*Store](t)(Open("/d", Options{FS: fs, SegmentBytes: 1 << 20, KeyFor: time.Hour}))
	defer s.Close()
	c := newCounter()
	l := must[*Log](t)(s.Create("q", nil, c, noAccount{}))
	data := int64(0)
	for id := 0; id < jobs; {
		for range some {
			id++
			o := Op{Kind: Put, ID: uint64(id), Sent: time.Now().UnixNano(), Text: fmt.Sprintf("%0100d", id), Body: []byte(strings.Repeat("x", 100))}
			data += int64(len(o.Text) + len(o.Body))
			l.Append(o)
		}
		c.await(t, "putting", func() bool { return c.puts == id })
		settle(t, l, c, id-some+1, id, nil)
	}
	n := fs.n.Load()
	if t.Logf("%d bytes were written for %d", n, data); n > 6*data {
		t.Error("that is too much")
	}
}

// On a full disk acknowledgements go on, though segments could go and their keys have no room.
func TestFullDiskWithKeys(t *testing.T) {
	fs := newMemFS()
	fs.size = 2 << 20
	s := must[*Store](t)(Open("/d", Options{FS: fs, SegmentBytes: 1 << 20, KeyFor: time.Hour}))
	defer s.Close()
	c := newCounter()
	l := must[*Log](t)(s.Create("q", nil, c, noAccount{}))
	last := 0
	stalled := false
	for !stalled {
		for range 8 {
			last++
			l.Append(Op{Kind: Put, ID: uint64(last), Sent: time.Now().UnixNano(), Text: fmt.Sprintf("%0200d", last), Body: []byte("x")})
		}
		c.await(t, "filling", func() bool {
			stalled = c.stalled != nil
			return stalled || c.puts == last
		})
	}
	c.mu.Lock()
	confirmed := c.puts
	c.mu.Unlock()
	for id := 1; id <= confirmed; id++ {
		settle(t, l, c, id, id, nil)
	}
}

// An account that several logs share is full of what these hold for what may come. Those in which little lives go on.
func TestAccountOfSeveral(t *testing.T) {
	const each = 96<<10 + 2048
	s := must[*Store](t)(Open("/d", Options{FS: newMemFS(), SegmentBytes: 1 << 20}))
	defer s.Close()
	a := &limited{most: 2*each + each/2}
	type queue struct {
		l    *Log
		c    *counter
		last int
	}
	var queues []*queue
	for i := range 2 {
		c := newCounter()
		queues = append(queues, &queue{must[*Log](t)(s.Create(fmt.Sprint(i), nil, c, a)), c, 0})
	}
	for range 100 {
		for _, q := range queues {
			for range 10 {
				q.last++
				q.l.Append(Op{Kind: Put, ID: uint64(q.last), Body: make([]byte, 1000)})
			}
			q.c.await(t, "putting", func() bool { return q.c.puts == q.last })
			settle(t, q.l, q.c, q.last-9, q.last, func(id int) bool { return id == 1 })
		}
	}
	eventually(t, func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.n > a.most {
			return fmt.Errorf("%d bytes are paid of %d", a.n, a.most)
		}
		return nil
	})
}
