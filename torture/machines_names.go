package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/zpipes/zpipes"
	"golang.org/x/sys/unix"
)

var rivalKinds = []string{
	"calm", "loss", "short cut", "short cut one way", "short cut of a pair", "brief stop of a broker", "pause of all", "stop beside a cut",
	"long cut", "long cut one way", "broker killed", "broker stopped", "end killed",
}

// machineNames tries one name, whose ends many want at the same time, on all hosts of a region. A
// reader has one writer, and a writer one reader. Where all readers are on one host, its broker
// decides who is next, so that what all writers were told must have an order in which only one
// had the name at any time.
func machineNames(ctx context.Context, b *bench) (outcome, error) {
	kinds, n := rivalKinds, worlds
	if b.scale < 0.01 {
		kinds, n = []string{"short cut", "end killed"}, 1
	}
	g := newGraveyard(b, kinds...)
	return g.inRegions(ctx, n, linkedRegion, g.contend)
}

// A deed is what a rival did, between two times by the clock that all processes share.
type deed struct {
	What     string // held: a word of the writer is confirmed; left: the end is closed; refused: an open was
	Role     string
	Writer   uint64 // which it is, or which the reader has heard; 0: nobody
	Reader   uint64
	From, To int64
	Words    int64  // that are confirmed, written or heard by then
	Closing  bool   // the writer had written all that it wanted
	Why      string // class of the error; "": it has closed; "left": a reader did before the end
	Wrong    string
}

func clock() int64 {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano()
}

func init() { parts["rivals"] = playRivals }

// playRivals has rivals open one name, again and again, until the process is killed.
func playRivals(t task) error {
	client, err := zpipes.NewClient(t.Broker)
	if err != nil {
		return err
	}
	var saying sync.Mutex
	for i, role := range t.Fate.Roles {
		v := &rival{
			client: client, name: t.Pipe, next: t.Seed<<32 | uint64(i)<<24, rand: rand.New(rand.NewPCG(t.Seed, uint64(i))),
			say: func(d deed) {
				saying.Lock()
				defer saying.Unlock()
				tell(d)
			},
		}
		go func() {
			for {
				if v.next++; role == 'r' {
					v.read()
				} else {
					v.write()
				}
				time.Sleep(time.Duration(v.rand.IntN(50)) * time.Millisecond)
			}
		}()
	}
	<-untilToldTo()
	return nil
}

// A rival is one of those who want the name.
type rival struct {
	client *zpipes.Client
	name   string
	next   uint64 // number of its present end
	rand   *rand.Rand
	say    func(deed)
}

const wordBytes = 16

func (v *rival) write() {
	d := deed{What: "refused", Role: "writer", Writer: v.next, From: clock()}
	w, err := v.client.OpenWriter(background, v.name)
	if err != nil {
		d.To, d.Why = clock(), class(err)
		v.say(d)
		return
	}
	w.SetWriteDeadline(time.Now().Add(time.Duration(200+v.rand.IntN(3000)) * time.Millisecond))
	for goal := 1 + v.rand.Int64N(30); d.Words < goal && err == nil; {
		var word [wordBytes]byte
		binary.BigEndian.PutUint64(word[:], v.next)
		binary.BigEndian.PutUint64(word[8:], uint64(d.Words))
		from := clock()
		if _, err = w.Write(word[:]); err == nil {
			err = w.Flush()
		}
		if err == nil {
			d.What, d.From, d.To = "held", from, clock()
			d.Words++
			v.say(d)
			time.Sleep(time.Duration(v.rand.IntN(20)) * time.Millisecond)
		}
	}
	d.What = "left"
	if err == nil {
		d.Closing, d.From = true, clock()
		err = w.Close()
	}
	if d.Why = ""; err != nil {
		d.Why = class(err)
		w.CloseWithError(err)
	}
	d.To = clock()
	v.say(d)
}

func (v *rival) read() {
	d := deed{What: "refused", Role: "reader", Reader: v.next, From: clock()}
	r, err := v.client.OpenReader(background, v.name)
	if err != nil {
		d.To, d.Why = clock(), class(err)
		v.say(d)
		return
	}
	defer r.Close()
	d.What = "left"
	b := make([]byte, 0, 4*wordBytes)
	for goal := 1 + v.rand.Int64N(40); d.Words < goal && d.Wrong == ""; {
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		for len(b) >= wordBytes && d.Wrong == "" {
			id, i := binary.BigEndian.Uint64(b), int64(binary.BigEndian.Uint64(b[8:]))
			if i != d.Words || d.Writer != 0 && id != d.Writer {
				d.Wrong = fmt.Sprintf("word %d of writer %x behind %d of %x", i, id, d.Words, d.Writer)
			}
			d.Writer, d.Words = id, d.Words+1
			b = b[:copy(b, b[wordBytes:])]
		}
		if err != nil {
			if d.Why = class(err); len(b) > 0 && err == io.EOF {
				d.Wrong = "a clean end in the middle of a word"
			}
			d.To = clock()
			v.say(d)
			return
		}
	}
	d.Why, d.From = "left", clock()
	r.Close()
	d.To = clock()
	v.say(d)
}

// A chronicle is what all rivals have done.
type chronicle struct {
	mu    sync.Mutex // guards what follows
	deeds []deed
	held  int
	wrong error
}

func (h *chronicle) hear(c *child) {
	for {
		line, err := c.line()
		if err != nil { // perhaps in the middle of a line
			return
		}
		var d deed
		err = json.Unmarshal([]byte(line), &d)
		h.mu.Lock()
		h.deeds = append(h.deeds, d)
		if d.What == "held" {
			h.held++
		}
		switch {
		case err != nil:
			h.wrong = fmt.Errorf("a rival said %q", line)
		case d.Wrong != "":
			h.wrong = errors.New(d.Wrong)
		}
		h.mu.Unlock()
	}
}

func (h *chronicle) holds() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.held
}

// contend is a cycle.
func (g *graveyard) contend(s *region, c *cycle, w *watch) error {
	fair := weather(c.rand)
	s.net.All(fair)
	name, h := c.name("name"), new(chronicle)
	home, alone := c.rand.IntN(regionHosts), c.rand.IntN(3) > 0
	var all []*child
	var heard sync.WaitGroup
	end := func() {
		for _, v := range all {
			v.kill()
		}
		heard.Wait()
	}
	defer end()
	for i := range s.machines {
		roles := strings.Repeat("w", 1+c.rand.IntN(2))
		if i == home || !alone {
			roles += strings.Repeat("r", 1+c.rand.IntN(2))
		}
		v, err := startChildAt(s.net.Host(i), task{Part: "rivals", Broker: s.broker(i), Pipe: name, Seed: uint64(c.number*regionHosts + int64(i)), Fate: fate{Roles: roles}})
		if err != nil {
			return err
		}
		all = append(all, v)
		heard.Go(func() { h.hear(v) })
	}
	served := func(what string) error {
		n := h.holds()
		if err := eventually(patience, what, func() bool { return h.holds() > n }); err != nil {
			return fmt.Errorf("%w: %s", err, s.tells(name))
		}
		return nil
	}
	if err := served("somebody who has the name"); err != nil {
		return err
	}
	time.Sleep(time.Duration(c.rand.IntN(1000)) * time.Millisecond)
	// Not the readers, of whom there may be none besides.
	st := s.storm(c, fair, all[(home+1)%regionHosts], all...)
	if err := st.begin(); err != nil {
		return err
	}
	time.Sleep(st.lasts)
	if err := st.end(); err != nil {
		return err
	}
	if err := s.meet(); err != nil {
		return err
	}
	for range 20 {
		if err := served("somebody who has the name behind it"); err != nil {
			return err
		}
	}
	for _, v := range all {
		v.signal(syscall.SIGKILL)
	}
	end()
	all = nil
	g.count("words confirmed", int64(h.held))
	if err := h.judge(g); err != nil {
		return err
	}
	if !alone {
		g.count("names with readers on all hosts", 1)
		return nil
	}
	g.count("names with readers on one host", 1)
	return h.linearizable()
}

// judge compares what both sides of each stream say.
func (h *chronicle) judge(g *graveyard) error {
	if h.wrong != nil {
		return h.wrong
	}
	type side struct {
		held, left, heard deed
	}
	writers := make(map[uint64]*side)
	of := func(id uint64) *side {
		if writers[id] == nil {
			writers[id] = new(side)
		}
		return writers[id]
	}
	for _, d := range h.deeds {
		switch {
		case d.What == "refused":
			g.count("opens refused: "+d.Why, 1)
		case d.Role == "reader" && d.Writer != 0:
			if x := of(d.Writer); x.heard.Reader != 0 {
				return fmt.Errorf("DOUBLED: writer %x was heard by %+v and %+v", d.Writer, x.heard, d)
			}
			of(d.Writer).heard = d
		case d.What == "held":
			of(d.Writer).held = d
		case d.Role == "writer":
			of(d.Writer).left = d
		}
	}
	for id, x := range writers {
		var err error
		switch closed := x.left.What == "left" && x.left.Why == ""; {
		case x.heard.Reader == 0 || x.heard.Why == "left" || strings.Contains(x.heard.Why, "gone"):
			continue // it has not said what became of it, or did not want to hear all
		case x.heard.Words < x.held.Words:
			err = errors.New("LOST: a reader has not got what was confirmed")
		case x.heard.Why == "end" && x.left.What == "left" && (!x.left.Closing || x.heard.Words != x.left.Words): // its Close may be late all the same
			err = errors.New("SILENT: a clean end, and the writer has not closed there")
		case closed && (x.heard.Words != x.left.Words || x.heard.Why != "end"):
			err = errors.New("LOST: the writer has closed, and the reader has not got all, or no clean end")
		}
		if err != nil {
			return fmt.Errorf("%w: writer %x: %+v", err, id, *x)
		}
		g.count("streams compared", 1)
	}
	return nil
}

// A tenure is when a writer had the name, or that it has it no more.
type tenure struct {
	writer uint64
	over   bool
}

// tenureModel is a name that one writer has at a time.
var tenureModel = porcupine.Model{
	Init: func() any { return uint64(0) },
	Step: func(state, input, _ any) (bool, any) {
		has, t := state.(uint64), input.(tenure)
		switch {
		case t.over && has == t.writer:
			return true, uint64(0)
		case t.over:
			return true, has
		}
		return has == 0 || has == t.writer, t.writer
	},
}

// linearizable says whether there is an order in which only one writer had the name at any time.
func (h *chronicle) linearizable() error {
	var ops []porcupine.Operation
	add := func(t tenure, from, to int64) {
		ops = append(ops, porcupine.Operation{ClientId: len(ops), Input: t, Call: from, Return: to})
	}
	last := make(map[uint64]int64) // when the latest word was written that is known to be confirmed
	for _, d := range h.deeds {
		switch {
		case d.What == "held":
			add(tenure{d.Writer, false}, d.From, d.To)
			last[d.Writer] = d.From
		case d.What == "left" && d.Writer != 0 && (d.Role == "reader" || d.Words > 0):
			add(tenure{d.Writer, true}, d.From, d.To)
		}
	}
	for id, from := range last { // who has not said so may be gone at any time
		add(tenure{id, true}, from, math.MaxInt64)
	}
	switch porcupine.CheckOperationsTimeout(tenureModel, ops, time.Minute) {
	case porcupine.Illegal:
		return fmt.Errorf("two writers had the name at the same time: %+v", h.deeds)
	case porcupine.Unknown:
		return errors.New("the checker of histories did not come to an end within a minute")
	}
	return nil
}
