package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/zpipes/zpipes"
)

// Broadcasts, whose writer or one of whose readers dies, stands still or leaves, while others
// come and go.

var broadcastKinds = []string{
	"reader killed", "reader stopped", "reader stopped briefly", "reader standing still",
	"writer killed", "writer stopped", "writer giving up", "nobody",
}

const (
	castPending = 128 << 10 // how far the slowest reader may be behind
	castWindow  = 256 << 10 // of a Writer, and what a Reader asks for ahead
	// castHeld is more than whoever stands still can have of a broadcast.
	castHeld = castPending + 2*castWindow + 1<<20
)

func broadcasts(ctx context.Context, b *bench) (outcome, error) {
	g := newGraveyard(b, broadcastKinds...)
	return g.inHousesOf(ctx, 6, zpipes.BrokerConfig{ClientTimeout: promised, MaxPending: castPending}, func(ctx context.Context, h *house, c *cycle) error {
		s := &show{graveyard: g, house: h, c: c, name: c.name("cast"), seed: c.rand.Uint64()}
		defer s.end()
		err := s.run(ctx)
		if err != nil {
			err = fmt.Errorf("%+v, %s: %w", s.cfg, s.states(), err)
		}
		return err
	})
}

// A show is a broadcast of a cycle.
type show struct {
	*graveyard
	*house
	c    *cycle
	name string
	seed uint64
	cfg  zpipes.BroadcastConfig

	writer  *member
	readers []*member
	struck  *member // died, or stood still
	closing bool    // the end is to be a clean one
}

// A member is one end, a victim where it is another process's.
type member struct {
	*victim
	way    string
	caster *caster // of this process; nil: of another one
	done   chan struct{}
	least  int64 // a reader begins no earlier than there
	most   int64 // nor later; -1: that is not known
}

func (m *member) tell(word string) error {
	if m.caster != nil {
		m.caster.obey(word)
		return nil
	}
	return m.victim.tell(word)
}

// ways by which a member is at the broker; only the first is this process's.
var memberWays = []string{"direct", "near", "ipc"}

// enter starts a member and waits until it has opened its end.
func (s *show) enter(role, way string) (m *member, err error) {
	m = &member{way: way, most: -1}
	f := fate{Roles: role, Near: way == "near", Cast: s.cfg}
	if way != "direct" {
		m.victim, err = startVictim("caster", s.at(f), s.name, s.seed, f)
	} else {
		m.done = make(chan struct{})
		m.victim = &victim{pipe: s.name, seed: s.seed, fate: f, ledgers: []*ledger{newLedger()}}
		m.caster = newCaster(s.broker.Client(), task{Pipe: s.name, Seed: s.seed, Fate: f})
		m.caster.say = func(event string, n int64, text string) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.ledgers[0].note(event, n, text)
		}
		go func() {
			defer close(m.done)
			m.caster.play(rune(role[0]))
		}()
	}
	if err != nil {
		return nil, err
	}
	if role == "w" {
		s.writer = m
	} else {
		s.readers = append(s.readers, m)
	}
	return m, m.says(patience, "an end of a broadcast", (*ledger).opened)
}

// comes has a reader come while the broadcast is under way.
func (s *show) comes(way string) error {
	confirmed := s.writer.confirmed()
	m, err := s.enter("r", way)
	if err == nil {
		m.least = confirmed - int64(s.cfg.Keep)
		s.count("readers that came late", 1)
	}
	return err
}

func (m *member) confirmed() (n int64) {
	m.ask(func() bool { n = m.ledgers[0].confirmed; return true })
	return n
}

func (s *show) states() string {
	var all []string
	for _, m := range append(s.readers, s.writer) {
		if m != nil {
			all = append(all, m.way+" "+m.states())
		}
	}
	return strings.Join(all, " | ")
}

func (s *show) end() {
	for _, m := range append(s.readers, s.writer) {
		switch {
		case m == nil:
		case m.caster == nil:
			m.kill()
		default:
			m.caster.still.Store(false)
			m.caster.client.Close()
			<-m.done
		}
	}
}

func (s *show) run(ctx context.Context) error {
	r := s.c.rand
	who, blow, _ := strings.Cut(s.c.kind, " ")
	// Who dies is another process.
	way := func(own bool) string {
		if own {
			return memberWays[r.IntN(3)]
		}
		return memberWays[1+r.IntN(2)]
	}
	mortal := strings.HasPrefix(blow, "killed") || strings.HasPrefix(blow, "stopped")
	n := 2 + r.IntN(3)
	if r.IntN(2) == 0 {
		s.cfg.Keep = 1 + r.IntN(castPending)
	}
	if r.IntN(2) == 0 {
		s.cfg.Readers = n
	}
	if r.IntN(2) == 0 || blow == "standing still" {
		s.cfg.Patience = time.Duration(100+r.IntN(900)) * time.Millisecond
	}
	if _, err := s.enter("w", way(who != "writer" || !mortal)); err != nil {
		return err
	}
	for i := range n {
		m, err := s.enter("r", way(i > 0 || who != "reader" || !mortal))
		if err != nil {
			return err
		}
		if s.cfg.Readers > 0 {
			m.most = 0
		}
	}
	for range r.IntN(3) {
		time.Sleep(time.Duration(r.IntN(50)) * time.Millisecond)
		if err := s.comes(way(true)); err != nil {
			return err
		}
	}
	for _, m := range s.readers {
		if err := m.says(patience, "a reader's first bytes", func(l *ledger) bool { return l.began >= 0 || l.over() }); err != nil {
			return err
		}
	}
	time.Sleep(time.Duration(r.IntN(1<<r.IntN(18))) * time.Microsecond)
	for _, m := range append(s.readers, s.writer) {
		if m.caster == nil && len(m.process().rings()) > 0 {
			s.count("ends with a ring", 1)
		}
	}
	var err error
	switch who {
	case "reader":
		s.struck = s.readers[0]
		err = s.strikeReader(blow)
	case "writer":
		s.struck = s.writer
		err = s.strikeWriter(blow)
	}
	if err == nil && s.struck != s.writer {
		err = s.close()
	}
	if err == nil {
		err = s.judge()
	}
	if err == nil {
		s.died("broadcasts", s.c.kind, s.writer.confirmed())
	}
	return err
}

// strikeReader has a reader die or stand still, and sees that the writer goes on.
func (s *show) strikeReader(blow string) error {
	m := s.struck
	switch blow {
	case "killed":
		m.signal(syscall.SIGKILL)
	case "standing still":
		err := m.tell("still")
		if err == nil {
			err = m.says(patience, "a reader that is to stand still", func(l *ledger) bool { return l.state == "standing" })
		}
		if err != nil {
			return err
		}
	default:
		if err := m.pause(); err != nil {
			return err
		}
	}
	if blow == "stopped briefly" {
		time.Sleep(time.Duration(s.c.rand.IntN(1000)) * time.Millisecond)
		m.signal(syscall.SIGCONT)
		return nil
	}
	// What the writer says may come late.
	in := s.pipe(s.name).BytesIn
	err := eventually(patience, "a writer, one of whose readers is "+blow, func() bool { return s.pipe(s.name).BytesIn > in+castHeld })
	if err == nil && s.c.rand.IntN(2) == 0 {
		err = s.comes(memberWays[s.c.rand.IntN(3)])
	}
	switch {
	case err != nil || blow == "killed":
		return err
	case blow == "stopped":
		m.signal(syscall.SIGCONT)
	default:
		err = m.tell("go on")
	}
	if err != nil {
		return err
	}
	return eventually(notice, "a reader that went on", func() bool { return m.ask(func() bool { return m.ledgers[0].over() }) })
}

// strikeWriter has the writer die, stand still or give up, and sees that all readers know.
func (s *show) strikeWriter(blow string) error {
	w, at := s.writer, time.Now()
	switch blow {
	case "killed":
		w.signal(syscall.SIGKILL)
		<-w.ended
	case "stopped":
		if err := w.pause(); err != nil {
			return err
		}
	default:
		if err := w.tell("give up"); err != nil {
			return err
		}
	}
	if err := s.allOver(); err != nil {
		return err
	}
	s.took("the writer "+blow+", "+w.way, time.Since(at))
	if blow == "killed" {
		return nil
	}
	if blow == "stopped" {
		w.signal(syscall.SIGCONT)
	}
	return w.says(notice, "a writer that went on", (*ledger).over)
}

// close ends the broadcast in order.
func (s *show) close() error {
	s.closing = true
	for _, m := range append(s.readers, s.writer) {
		if err := m.tell("end"); err != nil && m != s.struck {
			return err
		}
	}
	if err := s.writer.says(patience, "a writer that closes", (*ledger).over); err != nil {
		return err
	}
	return s.allOver()
}

// allOver waits until all readers know of the end.
func (s *show) allOver() error {
	for _, m := range s.readers {
		if m == s.struck && strings.HasSuffix(s.c.kind, "killed") {
			continue
		}
		// Who began anew too late waits for another writer.
		over := func(l *ledger) bool { return l.over() || l != m.ledgers[0] && l.began < 0 }
		if err := m.says(notice, "a reader of a broadcast that has ended", over); err != nil {
			return err
		}
	}
	return nil
}

// judge compares what all have said.
func (s *show) judge() error {
	w := s.writer.ledgers[0]
	s.writer.mu.Lock()
	defer s.writer.mu.Unlock()
	held := time.Duration(w.held) * time.Millisecond
	switch {
	case w.failed != "" && !(s.struck == s.writer && classOf(w.failed) == "gone"):
		return errors.New("the writer: " + w.failed)
	case s.closing && !w.closed:
		return errors.New("the writer has not closed")
	case held > notice:
		return fmt.Errorf("the writer was held up for %v", held)
	}
	if s.struck != s.writer {
		s.took("a writer held up, "+s.c.kind+map[bool]string{true: ", with a patience"}[s.cfg.Patience > 0], held)
	}
	for _, m := range s.readers {
		if err := s.judgeReader(m, w); err != nil {
			return fmt.Errorf("a reader (%s): %w", m.way, err)
		}
	}
	return nil
}

func (s *show) judgeReader(m *member, w *ledger) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	least, most := m.least, m.most
	for l := m.ledgers[0]; l != nil; l = l.second {
		switch {
		case l.wrong != "":
			return errors.New(l.wrong)
		case l.began >= 0 && l.began < least:
			return fmt.Errorf("it begins at %d, where nothing before %d is kept", l.began, least)
		case most >= 0 && l.began > most:
			return fmt.Errorf("it was waited for, and begins at %d", l.began)
		}
		if err := s.judgeEnd(m, l, w); err != nil {
			return err
		}
		if l.second != nil {
			s.count("readers left behind", 1)
		}
		least, most = l.read+l.missed-int64(s.cfg.Keep)-castWindow, -1
	}
	return nil
}

// judgeEnd looks at what a reader has met at its end.
func (s *show) judgeEnd(m *member, l, w *ledger) error {
	switch ended := classOf(l.failed); {
	case l.end >= 0 && (!s.closing || l.began >= 0 && l.end != w.closing):
		return fmt.Errorf("a clean end behind %d bytes, of %d", l.end, w.closing)
	case ended == "slow" && s.cfg.Patience == 0:
		return errors.New("it was left behind, where the writer's patience has no end")
	case ended == "slow" && (l.missed <= 0 || s.closing && l.read+l.missed > w.closing):
		return fmt.Errorf("%d bytes read and %d missed, of %d", l.read, l.missed, w.closing)
	case ended == "torn" && s.closing:
		return errors.New("the writer has closed, but it is torn")
	case ended == "torn" && l.began >= 0 && l.began <= w.confirmed && l.read < w.confirmed:
		return fmt.Errorf("LOST: %d bytes were read, and %d confirmed", l.read, w.confirmed)
	case ended == "gone" && m == s.struck && s.c.kind == "reader stopped", ended == "", ended == "slow", ended == "torn":
		return nil
	}
	return errors.New(l.failed)
}
