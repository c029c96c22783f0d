package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"time"

	"github.com/zpipes/zpipes"
)

// A ringer is a process with one end of a stream that is busy enough to go through a ring.
// This is what it does itself; the rest is in death_rings.go.

func init() { parts["ringer"] = playRinger }

type ringer struct {
	actor
	ending chan struct{} // closed when the stream is to end
	quiet  bool          // its Writer pauses now and then until the ring has been given back
	trusts bool          // its Reader looks at the bytes
}

// playRinger does what it is told to by lines.
func playRinger(t task) error {
	if err := limitDescriptors(descriptorLimit); err != nil {
		return err
	}
	client, err := zpipes.ClientConfig{Heartbeat: t.Fate.Heartbeat}.NewClient(t.Broker)
	if err == nil {
		err = ping(client) // so that it is connected
	}
	if err != nil {
		return err
	}
	role := rune(t.Fate.Roles[0])
	stream := func(pipe string, seed uint64, f fate) *ringer {
		return &ringer{
			actor:  actor{client: client, pipe: pipe, seed: seed, rand: rand.New(rand.NewPCG(seed, uint64(role)))},
			ending: make(chan struct{}), quiet: f.Quiet, trusts: !f.Hostile,
		}
	}
	r := stream(t.Pipe, t.Seed, t.Fate)
	var feed func()
	r.say("ready", 0, "")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var word string
		var n int
		fmt.Sscan(in.Text(), &word, &n)
		switch word {
		case "go":
			go r.play(role)
		case "end":
			close(r.ending)
		case "again": // another stream, with the same client
			r.say("again", 0, "")
			r = stream(againName(t.Pipe)+string(role), ^t.Seed, fate{})
			go r.play(role)
		case "look":
			r.say("look", int64(runtime.NumGoroutine()), "")
		case "starve":
			feed = starve(n)
			r.say("starved", 0, "")
		case "feed":
			feed()
		case "spoil":
			go spoil(role, rand.New(rand.NewPCG(t.Seed, 0)))
		}
	}
	return nil
}

func (r *ringer) play(role rune) {
	act := r.write
	if role == 'r' {
		act = r.read
	}
	if err := act(); err != nil {
		r.say("failed", 0, class(err)+" "+err.Error())
	}
}

func (r *ringer) write() error {
	w, err := r.client.OpenWriter(background, r.pipe)
	if err != nil {
		return err
	}
	defer w.Close()
	r.say("opened", 0, "")
	b := make([]byte, 512<<10)
	var off int64
	defer func() { r.say("wrote", off, "") }()
	for ending := r.ending; !closed(ending); {
		for busy := off + 512<<10 + r.rand.Int64N(1<<20); off < busy && !closed(ending); r.pauses() {
			n := someSize(r.rand)
			fill(b[:n], r.seed, off)
			n, err := w.Write(b[:n])
			if off += int64(n); err != nil {
				return err
			}
			if r.rand.IntN(6) == 0 {
				r.say("flushing", off, "")
				if err := w.Flush(); err != nil {
					return err
				}
				r.say("confirmed", off, "")
			}
		}
		if r.quiet {
			r.say("quiet", off, "")
			for len(thisProcess.rings()) > 0 && !closed(ending) {
				time.Sleep(tick)
				if err := w.Flush(); err != nil { // so that it hears of the end
					return err
				}
			}
		}
	}
	r.say("closing", off, "")
	if err := w.Close(); err != nil {
		return err
	}
	r.say("closed", off, "")
	return nil
}

// pauses leave the machine to others, and have the other end sleep.
func (r *ringer) pauses() {
	if r.rand.IntN(4) == 0 {
		time.Sleep(time.Duration(r.rand.IntN(2000)) * time.Microsecond)
	}
}

func (r *ringer) read() error {
	in, err := r.client.OpenReader(background, r.pipe)
	if err != nil {
		return err
	}
	defer in.Close()
	r.say("opened", 0, "")
	o := oracle{seed: r.seed}
	b := make([]byte, 512<<10)
	for {
		n, err := in.Read(b[:someSize(r.rand)])
		if !r.trusts {
			o.off += int64(n)
		} else if wrong := o.check(b[:n]); wrong != nil {
			r.say("wrong", o.off, wrong.Error())
			return nil
		}
		if err == io.EOF {
			r.say("end", o.off, "")
			return nil
		}
		r.say("read", o.off, "")
		if err != nil {
			return err
		}
	}
}

// Where in a ring's memory which number is; see docs/PROTOCOL.md, section 13.
const (
	ringWritten = 0
	ringStaged  = 8
	ringRead    = 128
	ringRsleep  = 256
	ringWsleep  = 384
	ringClosed  = 512
)

// spoil writes nonsense into the headers of this process's rings for as long as it lives:
// into what the other end believes, but not into what would end its own.
func spoil(role rune, r *rand.Rand) {
	count, flags := int64(ringWritten), []int64{ringStaged, ringRsleep, ringWsleep, ringClosed}
	if role == 'r' {
		count, flags = ringRead, []int64{ringRsleep, ringWsleep, ringStaged, ringClosed}
	}
	flags = flags[:r.IntN(len(flags)+1)] // a ring that looks closed hides much
	memory, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
	if err != nil {
		say("0 failed 0 other %v", err)
		return
	}
	number := make([]byte, 8)
	for {
		for _, at := range thisProcess.rings() {
			for range 64 {
				if _, err := memory.ReadAt(number, at+count); err != nil {
					break // it is gone by now
				}
				n := binary.NativeEndian.Uint64(number)
				n = []uint64{n + 1, n - 1, n + uint64(r.IntN(1<<20)), n - uint64(r.IntN(1<<20)), 0, math.MaxUint64, r.Uint64()}[r.IntN(7)]
				binary.NativeEndian.PutUint64(number, n)
				if len(flags) == 0 || r.IntN(2) == 0 {
					memory.WriteAt(number, at+count)
				} else {
					memory.WriteAt(number[:4], at+flags[r.IntN(len(flags))])
				}
			}
		}
		time.Sleep(time.Duration(r.IntN(200)) * time.Microsecond)
	}
}
