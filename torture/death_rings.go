package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"
)

// Streams through rings, whose ends and brokers die or stand still exactly when these are
// moved into, used, or left; whose ends spoil what they share; and who have no descriptor
// for a ring.

// What happens in a cycle is its kind: to whom, and when. Who spoils writes nonsense into
// what it shares; who starves has a few descriptors left, or none, when the stream would
// move.
var ringKinds = []string{
	"writer, moving in", "writer, in a ring", "writer, moving out",
	"reader, moving in", "reader, in a ring", "reader, moving out",
	"broker, moving in", "broker, in a ring", "broker, moving out",
	"writer spoils, moving in", "writer spoils, in a ring", "writer spoils, moving out",
	"reader spoils, moving in", "reader spoils, in a ring", "reader spoils, moving out",
	"writer starves, moving in", "reader starves, moving in", "broker starves, moving in",
}

const (
	movingIn  = "moving in"
	inRing    = "in a ring"
	movingOut = "moving out"
	pausing   = "pausing" // and then it moves out
)

// ringBeat is slower than the default, so that who stands still for a moment, as it is
// meant to, is not taken for dead on a busy machine. Who dies is missed at once.
const ringBeat = time.Second

func ringDeaths(ctx context.Context, b *bench) (outcome, error) {
	f, err := newFeast(ctx, b)
	if err != nil {
		return outcome{}, err
	}
	defer f.end()
	g := newGraveyard(b, ringKinds...)
	err = f.course("streams through rings", 64<<20, func() (t tally, err error) {
		got, err := g.run(ctx, 16, func(ctx context.Context, c *cycle) error { return g.rings(ctx, f, c) })
		return tally{Times: got.times, Found: got.found}, err
	})
	if err != nil {
		return outcome{}, err
	}
	return f.outcome()
}

// rings is a cycle.
func (g *graveyard) rings(ctx context.Context, f *feast, c *cycle) error {
	what, moment, _ := strings.Cut(c.kind, ", ")
	who, how, _ := strings.Cut(what, " ")
	at, broker := f.name, f.broker
	if who == "broker" { // not everybody's
		var err error
		at = fmt.Sprintf("%s-%d", f.name, c.number)
		if broker, err = f.guest(); err != nil {
			return err
		}
		defer f.dismiss(broker)
		if _, err := f.ask(broker, errand{Do: "serve", Pipe: at, Kind: "few descriptors"}); err != nil {
			return err
		}
	}
	s, err := c.newPassage(at, broker.child, fate{Near: true, Heartbeat: ringBeat, Quiet: moment == movingOut, Hostile: how == "spoils"})
	if err != nil {
		return err
	}
	defer s.end()
	switch how {
	case "spoils":
		err = g.spoils(s, who, moment)
	case "starves":
		err = g.starves(f, s, broker, who)
	default:
		err = g.strikes(s, who, moment)
	}
	if err == nil {
		err = s.afterwards(ctx, at)
	}
	if err != nil {
		return fmt.Errorf("%w; %s; %s", err, s.w.states(), s.r.states())
	}
	return nil
}

// strikes kills a process at that moment, stops it for long, or for so short a time that
// nobody must notice. Meanwhile an end may stand still for a moment, so that the stream
// can't go on.
func (g *graveyard) strikes(s *passage, who, moment string) error {
	struck := s.child(who)
	var still *victim
	if v := s.ends()[s.c.rand.IntN(2)]; v.child != struck && s.c.rand.IntN(2) == 0 {
		still = v
	}
	if err := s.begin(); err != nil {
		return err
	}
	if err := s.reach(moment, still); err != nil {
		return err
	}
	blow := []string{"killed", "killed", "killed", "stopped and killed", "stopped and killed", "stopped and killed", "stopped", "stopped briefly"}[s.c.rand.IntN(8)]
	if blow != "killed" {
		struck.signal(syscall.SIGSTOP)
	}
	seen := s.where(moment)
	if strings.HasSuffix(blow, "killed") {
		s.kill(struck)
	}
	died := time.Now()
	if still != nil {
		time.AfterFunc(time.Duration(s.c.rand.IntN(300))*time.Millisecond, func() { still.signal(syscall.SIGCONT) })
	}
	g.died(who+"s", blow+" "+seen, 0)
	if blow == "stopped briefly" {
		time.Sleep(time.Duration(s.c.rand.IntN(1000)) * time.Millisecond) // the limit is 4 s
		struck.signal(syscall.SIGCONT)
		return s.endsWell()
	}
	var stopped *victim
	for _, v := range s.ends() {
		if v.child == struck {
			stopped = v
			continue
		}
		if err := v.says(notice, "an end that lives", (*ledger).over); err != nil {
			return err
		}
		g.took(who+" "+blow, time.Since(died))
	}
	if blow == "stopped" {
		struck.signal(syscall.SIGCONT)
		if stopped != nil {
			if err := g.learns(stopped); err != nil {
				return err
			}
		}
	}
	return s.judge(who)
}

// reach waits until the stream is at that moment. An end that is to stand still does by
// then.
func (s *passage) reach(moment string, still *victim) (err error) {
	has := func(v *victim) bool { return len(v.process().rings()) > 0 }
	until := func(what string, f func() bool) {
		for end := time.Now().Add(patience); err == nil && !f(); time.Sleep(50 * time.Microsecond) {
			if s.over() {
				err = fmt.Errorf("a stream that waits for %s has ended", what)
			} else if time.Now().After(end) {
				err = hangs(what, patience)
			}
		}
	}
	some := func(d time.Duration) { time.Sleep(time.Duration(s.c.rand.Int64N(int64(d)))) }
	stop := func() {
		if still != nil {
			still.signal(syscall.SIGSTOP)
		}
	}
	if moment == "" {
		return nil
	}
	if moment == movingIn && still != nil {
		// The ends are offered a ring one after the other, and one that does not answer has
		// the other wait.
		stop()
		some(200 * time.Millisecond)
		return nil
	}
	until("a ring", func() bool { return has(s.r) })
	switch moment {
	case inRing:
		until("a ring", func() bool { return has(s.w) })
		stop()
		some(100 * time.Millisecond)
	case movingOut, pausing:
		until("a ring", func() bool { return has(s.w) })
		until("a pause", s.allRead)
		if moment == pausing {
			break
		}
		if still == nil {
			until("the end of a ring", func() bool { return !has(s.w) })
			break
		}
		// A ring is asked back that was quiet for 5 to 6 seconds.
		time.Sleep(4500 * time.Millisecond)
		stop()
		await(1500*time.Millisecond, func() bool { return !has(s.w) })
	}
	if s.c.rand.IntN(2) == 0 {
		some(300 * time.Microsecond)
	}
	return err
}

// spoils has one end write nonsense into what it shares, and then kills it.
func (g *graveyard) spoils(s *passage, who, moment string) error {
	hostile, honest := s.w, s.r
	if who == "reader" {
		hostile, honest = s.r, s.w
	}
	if err := s.begin(); err != nil {
		return err
	}
	before := map[string]string{movingIn: "", inRing: inRing, movingOut: pausing}[moment]
	if err := s.reach(before, nil); err != nil {
		return err
	}
	if err := hostile.tell("spoil"); err != nil {
		return err
	}
	// It may never come there now.
	await(time.Second, func() bool { return s.over() || s.where(moment) == inRing })
	if moment == movingOut {
		await(6*time.Second, func() bool { return s.over() || s.where(moment) != inRing })
	}
	time.Sleep(time.Duration(s.c.rand.IntN(300)) * time.Millisecond)
	torn := s.over()
	s.kill(hostile.child)
	if err := honest.says(notice, "an end whose other one spoils", (*ledger).over); err != nil {
		return err
	}
	switch l := honest.ledgers[0]; {
	case l.end >= 0 || l.closed:
		return errors.New("the other end has spoiled the stream and died, but it ended well")
	case classOf(l.failed) != "torn" && classOf(l.failed) != "left":
		return fmt.Errorf("the other end has spoiled the stream and died, but this one has %s", l.failed)
	}
	if torn {
		g.count("streams torn by a "+who+" that spoils", 1)
	}
	g.died(who+"s that spoil", moment, 0)
	return nil
}

// starves has a process have few descriptors, or none, when a ring would be offered. What
// was without any goes on in messages.
func (g *graveyard) starves(f *feast, s *passage, broker *guest, who string) (err error) {
	but := s.c.rand.Int64N(6)
	feed := func() (err error) {
		_, err = f.ask(broker, errand{Do: "feed up"})
		return err
	}
	if who == "broker" {
		_, err = f.ask(broker, errand{Do: "starve", Count: but})
	} else {
		v := s.w
		if who == "reader" {
			v = s.r
		}
		feed = func() error { return v.tell("feed") }
		if err = v.tell(fmt.Sprint("starve ", but)); err == nil {
			err = v.says(patience, "a ringer without descriptors", func(l *ledger) bool { return l.said["starved"] > 0 })
		}
	}
	if err == nil {
		err = s.begin()
	}
	if err != nil {
		return err
	}
	rings := await(time.Duration(s.c.rand.IntN(500))*time.Millisecond, func() bool { return s.where(movingIn) == inRing })
	g.died(who+"s without descriptors", map[bool]string{true: "with a ring", false: "without a ring"}[rings], 0)
	if err := feed(); err != nil {
		return err
	}
	time.Sleep(time.Duration(s.c.rand.IntN(1500)) * time.Millisecond)
	return s.endsWell()
}
