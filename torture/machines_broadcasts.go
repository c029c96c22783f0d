package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/zpipes/zpipes"
)

var airKinds = []string{
	"calm", "loss", "short cut", "short cut one way", "short cut of a pair", "brief stop of a broker",
	"long cut", "long cut one way", "broker killed", "broker stopped", "end killed", "end stopped",
}

// machineBroadcasts tries broadcasts between hosts whose brokers are one.
func machineBroadcasts(ctx context.Context, b *bench) (outcome, error) {
	return onHosts(ctx, b, airKinds, []string{"short cut", "end killed"}, (*graveyard).air)
}

// An airing is a broadcast of a cycle, with readers at several hosts.
type airing struct {
	*region
	c    *cycle
	name string
	seed uint64
	cfg  zpipes.BroadcastConfig

	storm   storm
	writer  *aerial
	readers []*aerial
	struck  *aerial // died, or stood still
	late    *aerial // of readers; it has come when all was over
}

// An aerial is an end of it.
type aerial struct {
	*victim
	host int
}

func (a *airing) enter(role string, host int) (*aerial, error) {
	f := fate{Roles: role, Far: true, Timeout: patience, Cast: a.cfg}
	v, err := startVictimAt(a.net.Host(host), "caster", a.broker(host), a.name, a.seed, f)
	if err != nil {
		return nil, err
	}
	x := &aerial{v, host}
	if role == "w" {
		a.writer = x
	} else {
		a.readers = append(a.readers, x)
	}
	return x, x.says(patience, "an end of a broadcast", (*ledger).opened)
}

func (a *airing) all() []*aerial {
	if a.writer == nil {
		return nil
	}
	return append([]*aerial{a.writer}, a.readers...)
}

func (a *airing) states() string {
	var all []string
	for _, x := range a.all() {
		all = append(all, fmt.Sprintf("host %d: %s", x.host, x.states()))
	}
	return strings.Join(all, " | ")
}

// air is a cycle.
func (g *graveyard) air(s *region, c *cycle) error {
	a := &airing{region: s, c: c, name: c.name("cast"), seed: c.rand.Uint64()}
	defer func() {
		for _, x := range a.all() {
			x.kill()
		}
	}()
	err := a.run(g)
	if err != nil {
		return fmt.Errorf("%+v, %s: %w", a.cfg, a.states(), err)
	}
	return nil
}

func (a *airing) run(g *graveyard) error {
	r := a.c.rand
	fair := weather(r)
	a.net.All(fair)
	n := 3 + r.IntN(3)
	if r.IntN(2) == 0 {
		a.cfg.Keep = 1 + r.IntN(castPending)
	}
	if r.IntN(2) == 0 {
		a.cfg.Readers = n
	}
	if r.IntN(2) == 0 {
		a.cfg.Patience = time.Duration(100+r.IntN(900)) * time.Millisecond
	}
	if _, err := a.enter("w", r.IntN(regionHosts)); err != nil {
		return err
	}
	for i := range n {
		if _, err := a.enter("r", (a.writer.host+i)%regionHosts); err != nil {
			return err
		}
	}
	for _, x := range a.readers {
		if err := x.says(patience, "a reader's first bytes", func(l *ledger) bool { return l.began >= 0 || l.over() }); err != nil {
			return err
		}
	}
	time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
	a.struck = a.all()[r.IntN(1+n)]
	a.storm = a.region.storm(a.c, fair, a.struck.child)
	if !strings.HasPrefix(a.c.kind, "end ") {
		a.struck = nil
	}
	if err := a.storm.begin(); err != nil {
		return err
	}
	began := time.Now()
	time.Sleep(a.storm.lasts)
	if err := a.storm.end(); err != nil {
		return err
	}
	if err := a.meet(); err != nil {
		return err
	}
	switch {
	case a.unhurt(a.writer):
		err := a.goesOn()
		if err == nil {
			err = a.close()
		}
		if err != nil {
			return err
		}
	case a.writer == a.struck && a.c.kind == "end killed":
		if err := a.over(); err != nil {
			return err
		}
		g.took("a writer killed", time.Since(began))
	default: // it may go on at its host
		if err := a.close(); err != nil {
			return err
		}
	}
	if err := a.judge(); err != nil {
		return err
	}
	g.died("broadcasts in "+a.c.kind, map[bool]string{true: "with a patience", false: "without"}[a.cfg.Patience > 0], a.writer.ledgers[0].confirmed)
	for _, x := range a.readers {
		for l := x.ledgers[0]; l.second != nil; l = l.second {
			g.count("readers left behind, and told", 1)
		}
	}
	return nil
}

// unhurt says that an end has no reason to fail.
func (a *airing) unhurt(x *aerial) bool {
	return x != a.struck && (a.storm.survived || a.storm.hits == nil || !a.storm.hits(x.host))
}

// goesOn has one more reader come, and sees that the writer goes on.
func (a *airing) goesOn() error {
	late, err := a.enter("r", a.c.rand.IntN(regionHosts))
	if err != nil {
		return err
	}
	a.late = late
	confirmed := func() (n int64) {
		a.writer.ask(func() bool { n = a.writer.ledgers[0].confirmed; return true })
		return n
	}
	before := confirmed()
	if err := eventually(notice+regionPatience, "a writer that should go on", func() bool { return confirmed() > before }); err != nil {
		return err
	}
	return late.says(patience, "a late reader's first bytes", func(l *ledger) bool { return l.began >= 0 || l.over() })
}

// close ends the broadcast in order, unless it is over.
func (a *airing) close() error {
	for _, x := range a.all() {
		if err := x.tell("end"); err != nil && x != a.struck {
			return err
		}
	}
	if err := a.writer.says(patience, "a writer that closes", (*ledger).over); err != nil {
		return err
	}
	return a.over()
}

// over waits until all readers know of the end.
func (a *airing) over() error {
	for _, x := range a.readers {
		// Who began anew too late waits for another writer.
		over := func(l *ledger) bool { return closed(x.ended) || l.over() || l != x.ledgers[0] && l.began < 0 }
		if err := x.says(notice+regionPatience, "a reader of a broadcast that has ended", over); err != nil {
			return err
		}
	}
	return nil
}

// judge compares what all have said.
func (a *airing) judge() error {
	w := a.writer.ledgers[0]
	a.writer.mu.Lock()
	defer a.writer.mu.Unlock()
	held, most := time.Duration(w.held)*time.Millisecond, notice+2*regionPatience
	switch {
	case w.wrong != "":
		return errors.New(w.wrong)
	case a.unhurt(a.writer) && (w.failed != "" || !w.closed):
		return fmt.Errorf("the writer has not closed: %s", w.failed)
	case a.unhurt(a.writer) && held > most:
		return fmt.Errorf("the writer was held up for %v", held)
	}
	for _, x := range a.readers {
		if err := a.judgeReader(x, w); err != nil {
			return fmt.Errorf("a reader at host %d: %w", x.host, err)
		}
	}
	return nil
}

func (a *airing) judgeReader(x *aerial, w *ledger) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	whole := a.unhurt(x) && a.unhurt(a.writer)
	least, most := int64(0), int64(-1)
	if a.cfg.Readers > 0 && x != a.late {
		most = 0
	}
	for l := x.ledgers[0]; l != nil; l = l.second {
		ended := classOf(l.failed)
		switch {
		case l.wrong != "":
			return errors.New(l.wrong)
		case l.began >= 0 && l.began < least:
			return fmt.Errorf("it begins at %d, where nothing before %d is kept", l.began, least)
		case most >= 0 && l.began > most:
			return fmt.Errorf("it was waited for, and begins at %d", l.began)
		case l.end >= 0 && l.began >= 0 && l.end != w.closing:
			return fmt.Errorf("SILENT: a clean end behind %d bytes, of %d", l.end, w.closing)
		case ended == "slow" && a.cfg.Patience == 0 && whole:
			return errors.New("it was left behind, where the writer's patience has no end")
		case ended == "slow" && (l.missed <= 0 || w.closing >= 0 && l.read+l.missed > w.closing):
			return fmt.Errorf("%d bytes read and %d missed, of %d", l.read, l.missed, w.closing)
		case ended == "slow":
		case whole && l.began >= 0 && l.end < 0:
			return fmt.Errorf("it should have come to the end, and has %d bytes of %d: %s", l.read, w.closing, l.failed)
		case ended != "" && ended != "torn" && ended != "gone":
			return errors.New(l.failed)
		}
		least, most = l.read+l.missed-int64(a.cfg.Keep)-castWindow, -1
	}
	return nil
}
