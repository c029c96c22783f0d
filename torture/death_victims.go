package main

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/zpipes/zpipes/torture/netrig"
)

// A ledger is what one end of a victim has said.
type ledger struct {
	state     string         // the last that it said, but for numbers
	said      map[string]int // how often it said what
	confirmed int64          // bytes, or chunks, of which it said so
	closing   int64          // how many bytes they were when it began to close, or -1
	closed    bool
	read      int64 // bytes that it had read
	end       int64 // how many they were when it met the end, or -1
	failed    string
	wrong     string
	broken    string    // why the last of its short connections broke
	got       []chunkID // chunks that it has received
	second    *ledger   // what was said behind "again"

	// Of a ringer:
	wrote             int64 // bytes that its Writer has accepted
	quiet             int64 // how many they were when it last paused
	looks, goroutines int64 // how often it has said how many these are

	// Of a caster:
	held   int64 // for how many milliseconds its Writer was held up at most
	began  int64 // with which byte its Reader has, or -1
	missed int64 // how many bytes that was told it has missed
}

func newLedger() *ledger { return &ledger{said: make(map[string]int), closing: -1, end: -1, began: -1} }

// last is of the last stream.
func (l *ledger) last() *ledger {
	for l.second != nil {
		l = l.second
	}
	return l
}

// opened says that its open has been answered.
func (l *ledger) opened() bool { return l.said["opened"] > 0 || l.failed != "" }

// over says that it will say no more.
func (l *ledger) over() bool {
	return l.closed || l.end >= 0 || l.failed != "" || l.wrong != "" || l.said["left"] > 0
}

// moment is what it was doing last.
func (l *ledger) moment() string {
	switch l.state {
	case "":
		return "starting"
	case "opened", "confirmed":
		return "working"
	case "read", "got":
		return "reading"
	}
	return l.state
}

func (l *ledger) note(event string, n int64, text string) {
	if event == "look" {
		l.looks, l.goroutines = l.looks+1, n
		return
	}
	if l.second != nil {
		l.second.note(event, n, text)
		return
	}
	if event == "again" {
		l.second = newLedger()
		return
	}
	if event != "failed" {
		l.state = event
	}
	l.said[event]++
	switch event {
	case "confirmed":
		l.confirmed = n
	case "closing":
		l.closing = n
	case "closed":
		l.confirmed, l.closed = n, true
	case "read", "leaving":
		l.read = n
	case "wrote":
		l.wrote = n
	case "quiet":
		l.quiet = n
	case "held":
		l.held = n
	case "began":
		l.began = n
	case "missed":
		l.missed = n
	case "end":
		l.read, l.end = n, n
	case "got":
		l.got = append(l.got, chunkID{text, n})
	case "failed":
		l.failed = text
	case "wrong":
		l.wrong = text
	case "broken":
		l.broken = text
	}
}

type victim struct {
	*child
	pipe  string // its names begin with it
	seed  uint64
	fate  fate
	ended chan struct{} // closed when it says no more

	mu      sync.Mutex // guards all below
	ledgers []*ledger
	lines   int
}

func startVictim(part, broker, pipe string, seed uint64, f fate) (*victim, error) {
	return startVictimAt(nil, part, broker, pipe, seed, f)
}

func startVictimAt(h *netrig.Host, part, broker, pipe string, seed uint64, f fate) (*victim, error) {
	c, err := startChildAt(h, task{Part: part, Broker: broker, Pipe: pipe, Seed: seed, Fate: f})
	if err != nil {
		return nil, err
	}
	v := &victim{child: c, pipe: pipe, seed: seed, fate: f, ended: make(chan struct{})}
	for range f.Roles {
		v.ledgers = append(v.ledgers, newLedger())
	}
	go v.listen()
	return v, nil
}

func (v *victim) listen() {
	defer close(v.ended)
	for {
		line, err := v.line()
		if err != nil { // perhaps in the middle of a line
			return
		}
		f := strings.SplitN(line, " ", 4)
		i, err1 := strconv.Atoi(f[0])
		if err1 != nil || len(f) < 4 || i >= len(v.ledgers) {
			v.mu.Lock()
			v.ledgers[0].wrong = fmt.Sprintf("the victim said %q", line)
			v.mu.Unlock()
			continue
		}
		n, _ := strconv.ParseInt(f[2], 10, 64)
		v.mu.Lock()
		v.lines++
		v.ledgers[i].note(f[1], n, f[3])
		v.mu.Unlock()
	}
}

// ask says something of all ledgers, or of the number of lines.
func (v *victim) ask(f func() bool) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return f()
}

// all says whether something is so of each end.
func (v *victim) all(f func(*ledger) bool) bool {
	return v.ask(func() bool {
		for _, l := range v.ledgers {
			if !f(l) {
				return false
			}
		}
		return true
	})
}

// A witness is an end of a victim that says no more.
type witness struct {
	role rune
	seed uint64
	*ledger
}

func (v *victim) witnesses() (all []witness) {
	for i, role := range v.fate.Roles {
		all = append(all, witness{role, v.seed + uint64(i), v.ledgers[i]})
	}
	return all
}

// states is what its ends have said last, for an error.
func (v *victim) states() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var all []string
	for i, l := range v.ledgers {
		for ; l != nil; l = l.second {
			all = append(all, fmt.Sprintf("%c %s %s%s", v.fate.Roles[i], l.state, l.failed, l.wrong))
		}
	}
	return strings.Join(all, "; ")
}

// strike sends the signal at some moment, and returns when that was. A process that is
// killed may be so before it has done anything.
func (v *victim) strike(s syscall.Signal, r *rand.Rand) (time.Time, error) {
	if s != syscall.SIGKILL || r.IntN(4) > 0 {
		if err := eventually(patience, "a victim that opens", func() bool { return v.all((*ledger).opened) }); err != nil {
			return time.Time{}, fmt.Errorf("%w: %s", err, v.states())
		}
	}
	lines := r.IntN(1 << r.IntN(8))
	if await(time.Duration(r.IntN(300))*time.Millisecond, func() bool { return v.ask(func() bool { return v.lines >= lines }) }) {
		time.Sleep(time.Duration(r.IntN(4000)) * time.Microsecond)
	}
	v.signal(s)
	at := time.Now()
	if s == syscall.SIGKILL {
		return at, eventually(patience, "the last line of a dead process", func() bool { return closed(v.ended) })
	}
	return at, nil
}
