//go:build ringsteps

package ring

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"testing"
	"unsafe"
)

// All orders in which a writer, a reader and a keeper can take their steps are tried. Each
// access to the memory is a step, as is each copy and each bell. An end is a coroutine that
// stops before each of its steps. What comes next depends on the memory, on what was rung
// and told, and on what each coroutine knows (between two calls that is its end's fields,
// within a call also what it has found there): where all that is as it was once before,
// nothing new can follow, and the search turns back.

// A scenario is what the ends do.
type scenario struct {
	name    string
	size    int
	pending uint64
	tuning
	writes []string // "" waits until all is confirmed
	reads  int      // bytes of each Read
	close  func(*world) bool
}

// When the keeper closes the ring.
var (
	anytime  = func(*world) bool { return true }
	written  = func(w *world) bool { return w.allWritten }
	takenAll = func(w *world) bool { return w.taken == len(w.stream) }
)

var scenarios = []scenario{
	{name: "wake", size: 4, tuning: tuning{grain: 4}, writes: []string{"ab", "c"}, reads: 4, close: takenAll},
	{name: "grains", size: 4, tuning: tuning{grain: 2}, writes: []string{"abc"}, reads: 3, close: takenAll},
	{name: "full", size: 2, tuning: tuning{grain: 2}, writes: []string{"abcd"}, reads: 1, close: takenAll},
	{name: "full, large reads", size: 2, tuning: tuning{grain: 2}, writes: []string{"abcd"}, reads: 2, close: takenAll},
	{name: "gathered", size: 4, tuning: tuning{grain: 4, small: 1, gather: 4}, writes: []string{"a", "b"}, reads: 2, close: takenAll},
	{name: "gathered beside large", size: 4, tuning: tuning{grain: 4, small: 1, gather: 3, burst: 1}, writes: []string{"ab", "c", "d"}, reads: 4, close: takenAll},
	{name: "confirmed", size: 2, pending: 1, tuning: tuning{grain: 2}, writes: []string{"ab", ""}, reads: 1, close: written},
	{name: "confirmed, gathered", size: 2, pending: 1, tuning: tuning{grain: 2, small: 1, gather: 2}, writes: []string{"a", "b", ""}, reads: 2, close: written},
	{name: "ended", size: 2, pending: 1, tuning: tuning{grain: 2}, writes: []string{"ab", ""}, reads: 2, close: anytime},
	{name: "ended, confirmed", size: 3, pending: 2, tuning: tuning{grain: 2}, writes: []string{"a", "", "b", ""}, reads: 1, close: anytime},
}

// A world is one run of a scenario.
type world struct {
	*scenario
	mem     []byte
	w       *Writer
	r       *Reader
	k       *Keeper
	ends    [3]*coroutine
	stream  []byte // all that is to be written
	failure string

	rung       [2]bool // the writer is to look, the reader
	told       bool    // both know where the end is
	final      uint64  // namely there
	allWritten bool
	taken      int
	confirmed  uint64
}

type coroutine struct {
	next  func() (struct{}, bool)
	stop  func()
	pause func(at unsafe.Pointer)
	at    unsafe.Pointer     // the next step finds what is there
	waits func() (int, bool) // or what this says, if it may go on
	known uint64             // hash of what it knows
	ended bool
}

var errStopped = errors.New("stopped")

func (s *scenario) start(mem []byte) *world {
	clear(mem[:5*block])
	clear(mem[Header:])
	w := &world{scenario: s, mem: mem}
	for _, b := range s.writes {
		w.stream = append(w.stream, b...)
	}
	ring := func(i int) func() { return func() { step(nil); w.rung[i] = true } }
	w.w, _ = NewWriter(mem, ring(0))
	w.w.bell = ring(1)
	w.r, _ = NewReader(mem, ring(0), func() {})
	w.k, _ = NewKeeper(mem, s.size)
	w.w.tuning, w.r.grain, w.r.pauses = s.tuning, s.grain, 1
	for i, act := range []func(*coroutine) error{w.write, w.read, w.keep} {
		c := new(coroutine)
		w.ends[i] = c
		c.next, c.stop = iter.Pull(func(yield func(struct{}) bool) {
			defer func() {
				if e := recover(); e != nil && e != errStopped {
					panic(e)
				}
			}()
			c.pause = func(at unsafe.Pointer) {
				if c.at = at; !yield(struct{}{}) {
					panic(errStopped)
				}
			}
			if err := act(c); err != nil {
				w.failure = err.Error()
			}
			c.ended = true
		})
		w.step(i) // to its first step
	}
	return w
}

// step has an end take its next step.
func (w *world) step(i int) {
	c := w.ends[i]
	v := uint64(0)
	if c.waits != nil {
		n, _ := c.waits()
		v = uint64(n)
		c.waits = nil
	} else if c.at != nil {
		v = *(*uint64)(c.at)
	}
	c.known = mix(c.known, v)
	step = func(at unsafe.Pointer) { c.pause(at) }
	c.next()
}

// knows is for between two calls.
func (c *coroutine) knows(vs ...uint64) {
	c.known = 0
	for _, v := range vs {
		c.known = mix(c.known, v)
	}
}

func mix(h, v uint64) uint64 {
	h = (h ^ v ^ 0x9e3779b97f4a7c15) * 0xff51afd7ed558ccd
	return h ^ h>>29
}

// enabled are the ends that can take a step.
func (w *world) enabled() (is []int) {
	for i, c := range w.ends {
		if c.ended {
			continue
		}
		if c.waits != nil {
			if _, ok := c.waits(); !ok {
				continue
			}
		}
		is = append(is, i)
	}
	return is
}

func (w *world) key() [2]uint64 {
	bits := uint64(0)
	for i, b := range []bool{w.rung[0], w.rung[1], w.told, w.allWritten} {
		if b {
			bits |= 1 << i
		}
	}
	var k [2]uint64
	for i := range k {
		h := mix(uint64(i), bits)
		for at := 0; at < 5*block; at += block {
			h = mix(h, *(*uint64)(unsafe.Pointer(&w.mem[at])))
			h = mix(h, *(*uint64)(unsafe.Pointer(&w.mem[at+8])))
		}
		for _, b := range w.mem[Header:] {
			h = mix(h, uint64(b))
		}
		for _, c := range w.ends {
			h = mix(h, c.known)
		}
		k[i] = h
	}
	return k
}

// until waits for what ready says, and returns its number.
func (c *coroutine) until(ready func() (int, bool)) {
	c.waits = ready
	c.pause(nil)
}

func (w *world) write(c *coroutine) error {
	hear := func() (int, bool) {
		n := 0
		if w.rung[0] {
			n = 1
		}
		if w.told {
			n += 2
		}
		return n, n > 0
	}
	i, left := 0, 0
	knows := func() {
		c.knows(uint64(i), uint64(left), w.w.count, w.w.seen, uint64(len(w.w.gathered)), uint64(min(w.w.fresh, w.w.burst)), uint64(w.w.need), w.confirmed)
	}
	wait := func() error {
		knows()
		c.until(hear)
		w.rung[0] = false
		err := w.w.Rung()
		knows()
		return err
	}
	var err error
	var b string
	for i, b = range w.writes {
		if b == "" {
			err = w.w.Push()
			all := w.w.Written()
			for err == nil && !w.told {
				var sure uint64
				sure, err = w.w.Confirmed(all, w.pending)
				if w.confirmed = max(w.confirmed, sure); sure >= all {
					break
				} else if err == nil {
					err = wait()
				}
			}
		}
		for err == nil && len(b) > 0 && !w.told {
			var n int
			n, err = w.w.Write([]byte(b))
			b = b[n:]
			if left = len(b); err == nil && len(b) > 0 {
				err = wait()
			}
		}
		if err != nil {
			return fmt.Errorf("the writer: %w", err)
		}
		knows()
		c.until(func() (int, bool) { n, _ := hear(); return n, true })
		if w.rung[0] {
			w.rung[0] = false
			w.w.Rung()
		}
	}
	w.allWritten = true
	for err == nil && !w.told {
		err = wait()
	}
	return err
}

func (w *world) read(c *coroutine) error {
	b := make([]byte, w.reads)
	for ended := false; ; {
		end := uint64(0)
		if ended {
			end = 1
		}
		c.knows(uint64(w.taken), w.r.count, w.r.seen, end)
		n, err := w.r.Read(b)
		if w.taken+n > len(w.stream) || string(b[:n]) != string(w.stream[w.taken:w.taken+n]) {
			return fmt.Errorf("read %q behind %d bytes of %q", b[:n], w.taken, w.stream)
		}
		w.taken += n
		if err == io.EOF {
			if uint64(w.taken) != w.final || w.taken < int(w.confirmed) {
				return fmt.Errorf("read %d bytes, the end is at %d, confirmed are %d", w.taken, w.final, w.confirmed)
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("the reader: %w", err)
		}
		if n > 0 {
			continue
		}
		c.until(func() (int, bool) {
			n := 0
			if w.rung[1] {
				n = 1
			}
			if w.told && !ended {
				n += 2
			}
			return n, n > 0
		})
		w.rung[1] = false
		if w.told && !ended {
			ended = true
			if err := w.r.End(w.final); err != nil {
				return fmt.Errorf("the end at %d: %w", w.final, err)
			}
		}
	}
}

func (w *world) keep(c *coroutine) (err error) {
	c.until(func() (int, bool) { return 0, w.close(w) })
	final, err := w.k.Close()
	step(nil)
	w.final, w.told = final, true
	return err
}

// explore tries all orders, and says in which something goes wrong, and how many
// situations there are.
func (s *scenario) explore() (situations int, err error) {
	mem := make([]byte, Header+s.size)
	seen := map[[2]uint64]bool{}
	paths := [][]byte{nil}
	for len(paths) > 0 {
		path := paths[len(paths)-1]
		paths = paths[:len(paths)-1]
		w := s.start(mem)
		for _, i := range path {
			w.step(int(i))
		}
		for w.failure == "" && !seen[w.key()] {
			seen[w.key()] = true
			next := w.enabled()
			if len(next) == 0 {
				for i, c := range w.ends {
					if !c.ended {
						w.failure = fmt.Sprintf("all wait for ever, %s too", []string{"the writer", "the reader", "the keeper"}[i])
					}
				}
				break
			}
			for _, i := range next[1:] {
				paths = append(paths, append(slices.Clone(path), byte(i)))
			}
			path = append(path, byte(next[0]))
			w.step(next[0])
		}
		for _, c := range w.ends {
			c.stop()
		}
		if w.failure != "" {
			order := ""
			for _, i := range path {
				order += "wrk"[i : i+1]
			}
			return len(seen), fmt.Errorf("%s, after the steps %s", w.failure, order)
		}
	}
	return len(seen), nil
}

func TestSteps(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			n, err := s.explore()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d situations", n)
		})
	}
}
