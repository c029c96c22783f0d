package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Connections through the near door that say nothing, that come and go, or that are more
// than there may be. Each holds a descriptor of the broker's process.

const (
	// doorDescriptors is how many the broker's process may have here. Of these 7/8 may be
	// connections; one user may have half of those, since as many have to be left for the
	// others as it has.
	doorDescriptors = 4096
	doorUser        = doorDescriptors / 8 * 7 / 2
	// silence is for how long a connection may say nothing, and silenceSlack
	// what a busy machine takes for itself.
	silence, silenceSlack = 5 * time.Second, 5 * time.Second
	// perDoor is what Go and the broker need for a connection that has said nothing yet.
	perDoor = 16 << 10
	// neighbours are who else is there of the broker's user.
	neighbours = 1
)

func doorstep(ctx context.Context, b *bench) (outcome, error) {
	f, err := newFeastOf(ctx, b, errand{Kind: "few descriptors"})
	if err != nil {
		return outcome{}, err
	}
	defer f.end()
	for _, way := range []struct {
		what string
		most int64
		e    errand
	}{
		{"connections that say nothing, or only begin to", 1000*perDoor + slack, errand{Do: "say nothing", Count: 1000}},
		{"connections that come and go", slack, errand{Do: "come and go", Count: b.size(200_000), AtOnce: 4}},
		{"connections of a user who may not", slack, errand{Do: "come in vain", Count: b.size(50_000)}},
	} {
		if way.e.Do == "come in vain" && os.Geteuid() != 0 {
			continue // who can't be another user
		}
		way.e.Endpoint, way.e.Pipe = f.near(), "doorstep"
		if err := f.course(way.what, way.most, func() (tally, error) { return f.send(way.e) }); err != nil {
			return outcome{}, err
		}
	}
	err = f.course("all connections that there may be", 2*doorUser*perDoor+slack, f.crowdTheDoor)
	if err != nil {
		return outcome{}, err
	}
	return f.outcome()
}

// crowdTheDoor has another user, if there may be one, make as many connections as it is let
// have, and then the broker's own.
func (f *feast) crowdTheDoor() (t tally, err error) {
	var crowd []*guest
	defer func() {
		for _, g := range crowd {
			f.dismiss(g)
		}
	}()
	let := func(user int) (n int64, err error) {
		g, err := f.guest()
		if err != nil {
			return 0, err
		}
		crowd = append(crowd, g)
		if user != 0 {
			if _, err := f.ask(g, errand{Do: "become", Count: int64(user)}); err != nil {
				return 0, err
			}
		}
		u, err := f.ask(g, errand{Do: "crowd the door", Endpoint: f.near(), Count: doorDescriptors})
		t.Times += u.Times
		return u.Taken, err
	}
	others := int64(0)
	t.Found = "no other user was tried"
	if os.Geteuid() == 0 {
		if others, err = let(otherUser); err != nil {
			return t, err
		}
		t.Found = fmt.Sprintf("another user was let in %s times", count(others))
		if others < doorUser-1 || others > doorUser+1 {
			return t, fmt.Errorf("%s, and should be %d", t.Found, doorUser)
		}
	}
	own, err := let(0)
	if err != nil {
		return t, err
	}
	t.Found += fmt.Sprintf(", the broker's then %s times, and the broker's process itself could open %d files", count(own), hostDescriptors)
	if least := (2*doorUser - others) / 2; own < least-neighbours-2 || own > least+2 {
		return t, fmt.Errorf("%s; there should be %d", t.Found, least)
	}
	if _, err = f.ask(f.broker, errand{Do: "open files", Count: hostDescriptors}); err != nil {
		return t, err
	}
	return t, nil
}

// hostDescriptors is what the program around the broker can open meanwhile: an eighth of them
// all is its own.
const hostDescriptors = doorDescriptors/8 - 100

// otherUser is nobody in particular.
const otherUser = 61234

func init() {
	errands["say nothing"] = sayNothing
	errands["come and go"] = comeAndGo
	errands["crowd the door"] = crowdDoor
	errands["come in vain"] = comeInVain
	errands["become"] = func(h *host, e errand) (t tally, err error) { return t, become(int(e.Count)) }
	errands["open files"] = func(h *host, e errand) (t tally, err error) {
		for range e.Count {
			file, err := os.Open("/")
			if err != nil {
				return t, err
			}
			defer file.Close()
		}
		return t, nil
	}
}

// beginnings are what connections say here, before they say no more.
func beginnings() [][]byte {
	first := framed(hello(rarely)[0])
	return [][]byte{nil, first[:1], first[:4], first[:len(first)-1], number(1000)}
}

// sayNothing makes connections that say nothing, and waits until each is closed.
func sayNothing(h *host, e errand) (t tally, err error) {
	var all []unix.PollFd
	began := time.Now()
	for i := range e.Count {
		w, err := dialNear(e.Endpoint)
		if err != nil {
			return t, err
		}
		defer w.hangUp(0)
		b := beginnings()
		w.rest = b[int(i)%len(b)]
		w.flush()
		all = append(all, unix.PollFd{Fd: int32(w.fd), Events: unix.POLLIN})
	}
	made := time.Now()
	var first time.Duration
	for end := made.Add(silence + silenceSlack); len(all) > 0; {
		if time.Now().After(end) {
			return t, fmt.Errorf("%d connections that say nothing are still there after %v", len(all), time.Since(made))
		}
		if k, err := unix.Poll(all, 100); k == 0 || err != nil {
			continue
		}
		if first == 0 {
			first = time.Since(began)
		}
		open := all[:0]
		for _, p := range all {
			if p.Revents == 0 {
				open = append(open, p)
			}
		}
		all = open
		time.Sleep(tick)
	}
	if first < silence {
		return t, fmt.Errorf("a connection was closed after %v, and may say nothing for %v", first, silence)
	}
	t.Times = e.Count
	t.Found = fmt.Sprintf("%s closed, the first after %.1f s and the last after %.1f s", count(e.Count), first.Seconds(), time.Since(made).Seconds())
	return t, nil
}

// comeAndGo makes connections and ends them: at once, after a beginning, after the hello, or
// when it has been answered and something is open.
func comeAndGo(h *host, e errand) (t tally, err error) {
	errs := make([]error, e.AtOnce)
	var all sync.WaitGroup
	for k := range errs {
		all.Go(func() {
			for i := int64(k); i < e.Count && errs[k] == nil; i += int64(e.AtOnce) {
				errs[k] = comeOnce(e, i)
			}
		})
	}
	all.Wait()
	t.Times, t.Found = e.Count, count(e.Count)+" connections"
	return t, errors.Join(errs...)
}

func comeOnce(e errand, i int64) error {
	w, err := dialNear(e.Endpoint)
	if err != nil {
		return err
	}
	defer w.hangUp(0)
	c := &rawClient{newDialect, w}
	b := append(beginnings(), framed(hello(rarely)[0]))
	if n := int(i) % (len(b) + 2); n < len(b) {
		w.rest = b[n]
		return w.flush()
	}
	if _, err := c.ask(idPingOK, hello(rarely)); err != nil {
		return err
	}
	open := c.output(1, fmt.Sprint(e.Pipe, i))
	if i%2 == 0 {
		return c.send(open)
	}
	_, err = c.ask(idOutputOK, open)
	return err
}

// become makes this process, of root's, another user's.
func become(user int) error {
	return errors.Join(syscall.Setgroups(nil), syscall.Setgid(user), syscall.Setuid(user))
}

// comeInVain makes connections as a user who is refused, and is told so.
func comeInVain(h *host, e errand) (t tally, err error) {
	if err := become(otherUser + 1); err != nil {
		return t, err
	}
	for ; t.Times < e.Count; t.Times++ {
		w, err := dialNear(e.Endpoint)
		if err != nil {
			return t, err
		}
		c := &rawClient{newDialect, w}
		a, err := c.next()
		if err == nil && !a.ended() {
			err = fmt.Errorf("a stranger was answered with %q", a)
		}
		if c.close(); err != nil {
			return t, err
		}
	}
	t.Found = count(t.Times) + " refused"
	return t, nil
}

// crowdDoor makes connections until it is told that there are too many, and stays with them.
func crowdDoor(h *host, e errand) (t tally, err error) {
	for ; t.Times < e.Count; t.Times++ {
		w, err := dialNear(e.Endpoint)
		if err != nil {
			return t, err
		}
		h.kept = append(h.kept, w)
		c := &rawClient{newDialect, w}
		if _, err := c.put(hello(rarely)); err != nil && err != errGone {
			return t, err
		}
		a, err := c.next()
		if err != nil {
			return t, err
		}
		if a.id() == idPingOK {
			t.Taken++
			continue
		}
		if why := string(a[0]); a.id() != idInvalid || !strings.Contains(why, "connections to this process already") {
			return t, fmt.Errorf("connection %d was answered with %q", t.Times, why)
		}
		return t, nil
	}
	return t, fmt.Errorf("all of %d connections were let in", t.Taken)
}
