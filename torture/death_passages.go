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

// A passage is a stream between two ringers.
type passage struct {
	c      *cycle
	broker *child
	w, r   *victim
	dead   *child            // who was killed
	began  map[*victim]usage // what the ends had before they opened anything
}

// newPassage starts both ends' processes.
func (c *cycle) newPassage(at string, broker *child, f fate) (s *passage, err error) {
	s = &passage{c: c, broker: broker, began: make(map[*victim]usage)}
	name, seed := c.name("ring"), c.rand.Uint64()
	f.Roles = "w"
	if s.w, err = startVictim("ringer", at, name, seed, f); err == nil {
		f.Roles = "r"
		s.r, err = startVictim("ringer", at, name, seed, f)
	}
	for _, v := range s.ends() {
		if err == nil {
			err = v.says(patience, "a ringer that starts", func(l *ledger) bool { return l.said["ready"] > 0 })
		}
		if err == nil {
			s.began[v], err = v.use()
		}
	}
	if err != nil {
		s.end()
		return nil, err
	}
	return s, nil
}

// begin has both open the stream.
func (s *passage) begin() (err error) {
	for _, v := range s.ends() {
		err = errors.Join(err, v.tell("go"))
	}
	for _, v := range s.ends() {
		if err == nil {
			err = v.says(patience, "a ringer that opens its end", (*ledger).opened)
		}
	}
	return err
}

func (s *passage) ends() []*victim {
	var all []*victim
	for _, v := range []*victim{s.w, s.r} {
		if v != nil {
			all = append(all, v)
		}
	}
	return all
}

// child is who has a part in it.
func (s *passage) child(who string) *child {
	for _, v := range s.ends() {
		if v.what() == who {
			return v.child
		}
	}
	return s.broker
}

func (s *passage) kill(c *child) {
	c.signal(syscall.SIGKILL)
	s.dead = c
	for _, v := range s.ends() {
		if v.child == c {
			<-v.ended
		}
	}
}

func (s *passage) end() {
	for _, v := range s.ends() {
		v.child.kill()
	}
}

// where says where the stream is, as far as that can be seen: a Writer has let go of its
// ring before its Reader is told to.
func (s *passage) where(moment string) string {
	w, r := len(s.w.process().rings()) > 0, len(s.r.process().rings()) > 0
	switch {
	case w && r:
		return inRing
	case r && moment == movingOut:
		return movingOut
	case r:
		return movingIn
	case moment == movingOut:
		return "behind a move"
	}
	return "before a move"
}

// over says that an end has ended.
func (s *passage) over() bool { return s.w.all((*ledger).over) || s.r.all((*ledger).over) }

// allRead says that the Writer pauses, and all is read.
func (s *passage) allRead() bool {
	n := int64(-1)
	s.w.ask(func() bool {
		if l := s.w.ledgers[0]; l.state == "quiet" {
			n = l.quiet
		}
		return true
	})
	return s.r.ask(func() bool { return s.r.ledgers[0].read == n })
}

// endsWell ends a stream of which nobody should have noticed anything.
func (s *passage) endsWell() error {
	if err := s.w.tell("end"); err != nil {
		return err
	}
	for _, v := range s.ends() {
		if err := v.says(patience, "a stream that nobody has torn", (*ledger).over); err != nil {
			return err
		}
	}
	w, r := s.w.ledgers[0], s.r.ledgers[0]
	switch {
	case w.failed != "" || r.failed != "" || r.wrong != "":
		return errors.New("a stream that nobody has torn did not end well")
	case r.end != w.closing:
		return fmt.Errorf("%d bytes arrived of %d", r.end, w.closing)
	}
	return nil
}

// judge compares what both ends of a stream have said that was torn by that one's end.
func (s *passage) judge(who string) error {
	w, r := s.w.ledgers[0], s.r.ledgers[0]
	switch {
	case w.wrong != "" || r.wrong != "":
		return errors.New("wrong bytes")
	case r.end >= 0:
		return errors.New("the reader has a clean end")
	case w.closed:
		return errors.New("the writer has closed")
	case who == "writer" && r.read < w.confirmed:
		return fmt.Errorf("LOST: %d bytes were read and %d confirmed", r.read, w.confirmed)
	case who != "writer" && r.read > w.wrote:
		return fmt.Errorf("%d bytes were read of %d", r.read, w.wrote)
	}
	for _, v := range s.ends() {
		want := "gone"
		switch {
		case who == v.what():
			continue
		case who == "writer":
			want = "torn"
		case who == "reader":
			want = "left"
		}
		if l := v.ledgers[0]; l.failed != "" && classOf(l.failed) != want {
			return fmt.Errorf("the %s has another error than %q", v.what(), want)
		}
	}
	return nil
}

// afterwards sees whether all who live can go on, and have nothing of the stream left.
func (s *passage) afterwards(ctx context.Context, at string) error {
	if s.dead == s.broker {
		return s.clean()
	}
	client, err := zpipes.NewClient(at)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := s.c.fresh(ctx, client, client, s.w.pipe, nil); err != nil {
		return err
	}
	for _, v := range s.ends() {
		if v.child != s.dead {
			if err := v.goesOn(ctx, s.c, client); err != nil {
				return fmt.Errorf("another stream of the %s's process: %w", v.what(), err)
			}
		}
	}
	return s.clean()
}

// goesOn has an end's process use another stream, whose other end is here.
func (v *victim) goesOn(ctx context.Context, c *cycle, client *zpipes.Client) error {
	if err := v.tell("again"); err != nil {
		return err
	}
	role := rune(v.fate.Roles[0])
	p := startPeer(ctx, peer{
		client: client, pipe: againName(v.pipe) + string(role), role: role, seed: ^v.seed, rand: c.fork(), mood: closer,
	}, 0)
	second := func() *ledger { return v.ledgers[0].second }
	if role == 'w' {
		if err := v.says(patience, "another stream", (*ledger).opened); err != nil {
			return err
		}
		time.Sleep(time.Duration(c.rand.IntN(50)) * time.Millisecond)
		if err := v.tell("end"); err != nil {
			return err
		}
	}
	return v.whole([]*peer{p}, func(int) *ledger { return second() })
}

// clean waits until nothing is left of any stream in the processes of ends that live: no
// memory, descriptor or goroutine.
func (s *passage) clean() error {
	for _, v := range s.ends() {
		if v.child == s.dead {
			continue
		}
		var left string
		var failed error
		ok := await(notice, func() bool {
			var now usage
			if now, failed = v.use(); failed != nil {
				return true
			}
			before, rings := s.began[v], len(v.process().rings())
			left = fmt.Sprintf("%d rings, %d descriptors, where there were %d, and %d goroutines, where there were %d",
				rings, now.Descriptors, before.Descriptors, now.Goroutines, before.Goroutines)
			return rings == 0 && now.Descriptors <= before.Descriptors && now.Goroutines <= before.Goroutines
		})
		if failed == nil && !ok {
			failed = fmt.Errorf("the %s's process, whose streams are over, has %s", v.what(), left)
		}
		if failed != nil {
			return failed
		}
	}
	return nil
}

// What follows is of a victim that is a ringer.

func (v *victim) what() string { return strings.TrimSuffix(roles[rune(v.fate.Roles[0])], "s") }

func (v *victim) tell(word string) error {
	_, err := fmt.Fprintln(v.stdin, word)
	return err
}

// says waits until something is so of its last stream.
func (v *victim) says(d time.Duration, what string, f func(*ledger) bool) error {
	err := eventually(d, what, func() bool { return v.ask(func() bool { return f(v.ledgers[0].last()) }) })
	if err != nil {
		err = fmt.Errorf("%w: %s", err, v.states())
	}
	return err
}

// use is what its process has.
func (v *victim) use() (u usage, err error) {
	before := int64(0)
	v.ask(func() bool { before = v.ledgers[0].looks; return true })
	if err = v.tell("look"); err == nil {
		err = v.says(patience, "a ringer that looks", func(*ledger) bool { return v.ledgers[0].looks > before })
	}
	if err == nil {
		u, err = v.process().usage()
	}
	v.ask(func() bool { u.Goroutines = v.ledgers[0].goroutines; return true })
	return u, err
}
