//go:build linux && !core

package zpipes

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"testing"
	"time"
)

// halfGone is size bytes of a mapped file, of which only the first half is there.
func halfGone(t *testing.T, size int) []byte {
	t.Helper()
	page := os.Getpagesize()
	half := (size/2 + page - 1) / page * page
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(int64(half)); err != nil {
		t.Fatal(err)
	}
	mem, err := syscall.Mmap(int(f.Fd()), 0, 2*half, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Munmap(mem) })
	b := mem[half-size/2:][:size]
	copy(b[:size/2], noise(3, size/2))
	return b
}

// faults calls f, and says whether it has met a fault in the caller's memory.
func faults(f func()) (met bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if e := recover(); e != nil {
			if _, met = e.(interface{ Addr() uintptr }); !met {
				panic(e)
			}
		}
	}()
	f()
	return false
}

// overFaults has a test make pipes whose bytes go by each way.
func overFaults(t *testing.T, test func(r *rig, pipe func(name string) (*Reader, *Writer))) {
	overAllWays(t, func(r *rig) {
		r.busy()
		test(r, func(name string) (*Reader, *Writer) {
			rd, w := r.pipe(name)
			if r.moves {
				r.moved(rd, w)
			}
			return rd, w
		})
	})
}

// Memory of the caller's that is not there is his to meet: the pipe goes on, with what was
// copied before, and in order.
func TestFaultInWrite(t *testing.T) {
	overFaults(t, func(r *rig, pipe func(string) (*Reader, *Writer)) {
		for _, size := range []int{100, 3000, 20_000, 100_000, 1 << 20} {
			if r.base && size > 3000 {
				continue // there reading takes its time
			}
			b := halfGone(r.T, size)
			rd, w := pipe(fmt.Sprint("w", size))
			got := inBackgroundBytes(func() ([]byte, error) { return io.ReadAll(rd) })
			if !faults(func() { w.Write(b) }) {
				r.Errorf("%d bytes: no fault", size)
			}
			if _, err := w.WriteString("after"); err != nil {
				r.Error(err)
			}
			if err := w.Close(); err != nil {
				r.Error(err)
			}
			all := <-got
			before, ok := bytes.CutSuffix(all.b, []byte("after"))
			if all.err != nil || !ok || !bytes.HasPrefix(b[:size/2], before) {
				r.Errorf("%d bytes: read %d, %v", size, len(all.b), all.err)
			}
			rd.Close()
		}
	})
}

// A ring that comes while a Write copies is used behind that, whether the Write brought
// anything or met a fault.
func TestFaultAsARingComes(t *testing.T) {
	_, r := ringsHere(t)
	rd, w := r.pipe("p")
	got := inBackgroundBytes(func() ([]byte, error) { return io.ReadAll(rd) })
	copies := func(now bool) {
		w.pipe.mu.Lock()
		defer w.pipe.mu.Unlock()
		w.pipe.fills(now)
	}
	copies(true)
	if _, err := w.WriteString("before, "); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a ring", w.hasRing)
	if _, err := r.client.Ping(t.Context()); err != nil { // the connection has looked at it
		t.Fatal(err)
	}
	copies(false)
	if _, err := w.WriteString("after"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if all := <-got; string(all.b) != "before, after" || all.err != nil {
		t.Errorf("read %q, %v", all.b, all.err)
	}
}

type bytesResult struct {
	b   []byte
	err error
}

func inBackgroundBytes(f func() ([]byte, error)) <-chan bytesResult {
	done := make(chan bytesResult, 1)
	go func() {
		b, err := f()
		done <- bytesResult{b, err}
	}()
	return done
}

// Nothing is lost in a Read whose buffer is not there, whether the bytes are, or come while it
// waits; and its Writer does not notice.
func TestFaultInRead(t *testing.T) {
	overFaults(t, func(r *rig, pipe func(string) (*Reader, *Writer)) {
		for _, size := range []int{100, 3000, 20_000, 100_000, 1 << 20} {
			for _, waits := range []bool{false, true} {
				if r.base && size > 3000 {
					continue
				}
				data := noise(4, size)
				b := halfGone(r.T, size)
				rd, w := pipe(fmt.Sprint("r", size, waits))
				write := func() (int, error) {
					n, err := w.Write(data)
					if err == nil {
						err = w.Close()
					}
					return n, err
				}
				var wrote <-chan result
				if !waits {
					wrote = inBackground(write)
					eventually(r, "something to read", func() bool {
						rd.pipe.mu.Lock()
						defer rd.pipe.mu.Unlock()
						rd.pipe.request(size)
						return rd.pipe.readable() > 0 || rd.pipe.readsRing() && rd.pipe.ready(1) > 0
					})
				}
				var got []byte
				read := inBackground(func() (int, error) {
					for {
						n, err := 0, error(nil)
						if faults(func() { n, err = rd.Read(b) }) {
							return 0, nil
						}
						if got = append(got, b[:n]...); err != nil {
							return n, err
						}
					}
				})
				if waits {
					eventually(r, "a Read that waits", func() bool {
						rd.pipe.mu.Lock()
						defer rd.pipe.mu.Unlock()
						return rd.pipe.waits || rd.pipe.reader.want > 0 || rd.busy
					})
					wrote = inBackground(write)
				}
				if res := r.within(soon, read); res.err != nil && res.err != io.EOF {
					r.Error(res.err)
				}
				rest, err := io.ReadAll(rd)
				if got = append(got, rest...); err != nil || !bytes.Equal(got, data) {
					r.Errorf("%d bytes, waits %v: %d are read, %v", size, waits, len(got), err)
				}
				if res := r.within(soon, wrote); res.n != size || res.err != nil {
					r.Error(res)
				}
				rd.Close()
			}
		}
	})
}

type funcWriter func(b []byte) (int, error)

func (f funcWriter) Write(b []byte) (int, error) { return f(b) }

func panics(f func()) (with any) {
	defer func() { with = recover() }()
	f()
	return nil
}

// What a copy writes to, or reads from, may panic. Then nothing is lost, and the pipe goes on.
func TestCopyThatPanics(t *testing.T) {
	overFaults(t, func(r *rig, pipe func(string) (*Reader, *Writer)) {
		for _, size := range []int{10, 200_000} {
			rd, w := pipe(fmt.Sprint("p", size))
			data := noise(5, size)
			got := inBackgroundBytes(func() ([]byte, error) {
				var to bytes.Buffer
				calls := 0
				for {
					var err error
					if panics(func() {
						_, err = rd.WriteTo(funcWriter(func(b []byte) (int, error) {
							if calls++; calls%2 > 0 {
								panic("no")
							}
							return to.Write(b)
						}))
					}) == nil {
						return to.Bytes(), err
					}
				}
			})
			from, calls := bytes.NewReader(data), 0
			for from.Len() > 0 {
				with := panics(func() {
					_, err := w.ReadFrom(funcReader(func(b []byte) (int, error) {
						if calls++; calls%2 > 0 {
							panic("no")
						}
						return from.Read(b)
					}))
					if err != nil {
						r.Error(err)
					}
				})
				if with != nil && with != "no" {
					r.Error(with)
				}
			}
			if err := w.Close(); err != nil {
				r.Error(err)
			}
			if all := <-got; all.err != nil || !bytes.Equal(all.b, data) {
				r.Errorf("%d of %d bytes, %v", len(all.b), size, all.err)
			}
			rd.Close()
		}
	})
}

// What a copy writes to, or reads from, may use the same end.
func TestCopyThatUsesItsEnd(t *testing.T) {
	overFaults(t, func(r *rig, pipe func(string) (*Reader, *Writer)) {
		rd, w := pipe("use")
		first := true
		n, err := w.ReadFrom(funcReader(func(b []byte) (int, error) {
			if !first {
				return 0, io.EOF
			}
			first = false
			if _, err := w.WriteString("by itself, "); err != nil {
				r.Error(err)
			}
			return copy(b, "behind it"), nil
		}))
		if n != 9 || err != nil {
			r.Error(n, err)
		}
		var got []byte
		_, err = rd.WriteTo(funcWriter(func(b []byte) (int, error) {
			got = append(got, b...)
			if len(got) < 20 {
				return len(b), nil
			}
			if err := rd.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
				r.Error(err)
			}
			// The copy has its turn until it returns.
			if _, err := rd.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				r.Error("Read:", err)
			}
			if err := rd.SetReadDeadline(time.Time{}); err != nil {
				r.Error(err)
			}
			if err := rd.Close(); err != nil {
				r.Error(err)
			}
			return len(b), nil
		}))
		if string(got) != "by itself, behind it" || !errors.Is(err, os.ErrClosed) {
			r.Errorf("%q, %v", got, err)
		}
		w.CloseWithError(errors.New("over"))

		rd, w = pipe("close")
		n, err = w.ReadFrom(funcReader(func(b []byte) (int, error) {
			w.CloseWithError(errors.New("enough"))
			return copy(b, "lost"), nil
		}))
		if n != 0 || !errors.Is(err, os.ErrClosed) {
			r.Error(n, err)
		}
		rd.Close()
	})
}

// A Read of a queue's bytes asks for as many as it has room for, which may be more than fits into a message.
func TestReadOfAQueueIntoVeryMuch(t *testing.T) {
	size := 1
	if size <<= 32; size == 0 {
		t.Skip("a Read has no room for more than 2 GiB")
	}
	overAllWays(t, func(r *rig) {
		if r.base {
			r.Skip("it has no queues")
		}
		q, err := r.client.OpenQueue(r.Context(), "q")
		check(r, err)
		rd := r.reader("q")
		b, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_NORESERVE)
		if err != nil {
			r.Skip(err)
		}
		defer syscall.Munmap(b)
		read := r.begin(func() (int, error) { return rd.Read(b) })
		check(r, q.Send(r.Context(), []byte("hello")))
		if got := <-read; got.err != nil || string(b[:got.n]) != "hello" {
			r.Errorf("%q, %v", b[:got.n], got.err)
		}
	})
}
