package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"time"

	"github.com/zpipes/zpipes"
)

// A caster is an end of a broadcast, in a process that dies or stands still, or in this one.
// This is what it does itself; the rest is in death_broadcasts.go.
type caster struct {
	client *zpipes.Client
	name   string
	seed   uint64
	cast   zpipes.BroadcastConfig
	far    bool
	rand   *rand.Rand
	say    func(event string, n int64, text string)

	still   atomic.Bool   // it stands still, a reader
	ending  chan struct{} // closed when it is to end in order
	givesUp chan struct{} // likewise, or else
}

func newCaster(client *zpipes.Client, t task) *caster {
	return &caster{
		client: client, name: t.Pipe, seed: t.Seed, cast: t.Fate.Cast, far: t.Fate.Far,
		rand:   rand.New(rand.NewPCG(t.Seed, rand.Uint64())),
		ending: make(chan struct{}), givesUp: make(chan struct{}),
	}
}

func init() { parts["caster"] = playCaster }

// playCaster does what it is told to by lines.
func playCaster(t task) error {
	client, err := zpipes.ClientConfig{Timeout: t.Fate.Timeout}.NewClient(t.Broker)
	if err != nil {
		return err
	}
	a := newCaster(client, t)
	a.say = func(event string, n int64, text string) { say("0 %s %d %s", event, n, text) }
	go a.play(rune(t.Fate.Roles[0]))
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		a.obey(in.Text())
	}
	return nil
}

func (a *caster) obey(word string) {
	switch word {
	case "still":
		a.still.Store(true)
	case "go on":
		a.still.Store(false)
	case "end":
		close(a.ending)
	case "give up":
		close(a.givesUp)
	}
}

func (a *caster) play(role rune) {
	act := a.write
	if role == 'r' {
		act = a.read
	}
	if err := act(); err != nil {
		a.say("failed", 0, class(err)+" "+err.Error())
	}
}

func (a *caster) write() error {
	w, err := a.cast.OpenBroadcast(background, a.client, a.name)
	if err != nil {
		return err
	}
	defer w.Close()
	a.say("opened", 0, "")
	b := make([]byte, 512<<10+recordHead)
	var off int64
	var longest time.Duration
	timed := func(f func() error) error {
		began := time.Now()
		err := f()
		if took := time.Since(began); off > 0 && took > longest { // the first readers are waited for
			longest = took
			a.say("held", took.Milliseconds(), "")
		}
		return err
	}
	for !closed(a.ending) && !closed(a.givesUp) {
		record := b[:recordHead+someSize(a.rand)]
		makeRecord(record, a.seed, off)
		err := timed(func() error { _, err := w.Write(record); return err })
		if err != nil {
			return err
		}
		if off == 0 || a.rand.IntN(6) == 0 {
			all := off + int64(len(record))
			if err := timed(w.Flush); err != nil {
				return err
			}
			a.say("confirmed", all, "")
		}
		if off += int64(len(record)); a.rand.IntN(4) == 0 {
			time.Sleep(time.Duration(a.rand.IntN(4000)) * time.Microsecond)
		}
	}
	if closed(a.givesUp) {
		w.CloseWithError(errors.New("it gives up"))
		a.say("left", off, "")
		return nil
	}
	a.say("closing", off, "")
	if err := w.Close(); err != nil {
		return err
	}
	a.say("closed", off, "")
	return nil
}

// read reads, and begins anew where it was left behind.
func (a *caster) read() error {
	for {
		r, err := a.client.OpenReader(background, a.name)
		if a.far && errors.Is(err, zpipes.ErrPipeBusy) && !closed(a.ending) {
			time.Sleep(tick) // who comes before the writer is known has to be alone
			continue
		}
		if err != nil {
			return err
		}
		a.say("opened", 0, "")
		err = a.listen(r)
		r.Close()
		var missed *zpipes.MissedError
		if errors.As(err, &missed) {
			a.say("missed", missed.Bytes, "")
		}
		if missed == nil || closed(a.ending) {
			return err
		}
		a.say("failed", 0, class(err)+" "+err.Error())
		a.say("again", 0, "")
	}
}

// listen reads to the end, by Read or by WriteTo.
func (a *caster) listen(r *zpipes.Reader) (err error) {
	f := &follower{oracle: oracle{seed: a.seed}, began: -1}
	hear := func(b []byte) (int, error) {
		if a.still.Load() {
			a.say("standing", f.at(), "")
		}
		for a.still.Load() {
			time.Sleep(tick)
		}
		first := f.began < 0
		if err := f.check(b); err != nil {
			return 0, wrongBytes{err}
		}
		if first && f.began >= 0 {
			a.say("began", f.began, "")
		}
		if a.rand.IntN(16) == 0 {
			a.say("read", f.at(), "")
		}
		return len(b), nil
	}
	if a.rand.IntN(2) == 0 {
		if _, err = r.WriteTo(writerFunc(hear)); err == nil {
			err = io.EOF
		}
	} else {
		b := make([]byte, 512<<10)
		for err == nil {
			var n int
			n, err = r.Read(b[:someSize(a.rand)])
			if _, wrong := hear(b[:n]); wrong != nil {
				err = wrong
			}
		}
	}
	var wrong wrongBytes
	switch {
	case errors.As(err, &wrong):
		a.say("wrong", f.at(), wrong.Error())
		return nil
	case err == io.EOF:
		a.say("end", f.at(), "")
		return nil
	}
	a.say("read", f.at(), "")
	return err
}

type writerFunc func(b []byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// What one Write writes to a broadcast says where in it that begins, and how long it is, so
// that a reader knows where it has begun, and that it was there where a Write does.
const recordHead = 16

func makeRecord(b []byte, seed uint64, off int64) {
	binary.LittleEndian.PutUint64(b, uint64(off))
	binary.LittleEndian.PutUint32(b[8:], uint32(len(b)))
	binary.LittleEndian.PutUint32(b[12:], recordSum(b, seed))
	fill(b[recordHead:], seed, off+recordHead)
}

func recordSum(head []byte, seed uint64) uint32 {
	return uint32(mix(mix(seed^binary.LittleEndian.Uint64(head)) ^ uint64(binary.LittleEndian.Uint32(head[8:]))))
}

// A follower knows which bytes of a broadcast come next, wherever it begins.
type follower struct {
	oracle
	began int64  // -1: nothing has come
	head  []byte // of the next record, as far as it is there
	left  int    // of this one
}

// at is behind the last byte that has come.
func (f *follower) at() int64 { return f.off + int64(len(f.head)) }

func (f *follower) check(b []byte) error {
	for len(b) > 0 {
		if f.left > 0 {
			n := min(len(b), f.left)
			if err := f.oracle.check(b[:n]); err != nil {
				return err
			}
			b, f.left = b[n:], f.left-n
			continue
		}
		n := min(len(b), recordHead-len(f.head))
		f.head, b = append(f.head, b[:n]...), b[n:]
		if len(f.head) < recordHead {
			return nil
		}
		off, size := int64(binary.LittleEndian.Uint64(f.head)), int(binary.LittleEndian.Uint32(f.head[8:]))
		switch {
		case binary.LittleEndian.Uint32(f.head[12:]) != recordSum(f.head, f.seed):
			return fmt.Errorf("no Write begins where the reader does, or behind byte %d", f.off)
		case f.began < 0:
			f.began = off
		case off != f.off:
			return fmt.Errorf("the Write at %d comes behind byte %d", off, f.off)
		}
		f.off, f.left, f.head = off+recordHead, size-recordHead, f.head[:0]
	}
	return nil
}
