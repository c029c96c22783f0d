//go:build cgo && !core

package zpipes

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// textsAt is a rig of n brokers, and a text client of each.
func textsAt(t *testing.T, n int, patience time.Duration) (c *clusterRig, x []*texter) {
	c = &clusterRig{T: t, testCluster: newTestCluster()}
	c.patience = patience
	for range n {
		c.brokers = append(c.brokers, c.broker(t, func(cfg *BrokerConfig) { cfg.Private = true }))
	}
	c.awaitLinks(t, c.brokers...)
	for i, b := range c.brokers {
		x = append(x, c.at(i).texter(b))
	}
	return c, x
}

// asks says a command, and returns the frames of the answer.
func (x *texter) asks(frames ...string) (answer []string) {
	x.Helper()
	x.say(frames...)
	got, err := wireReceive(x.socket, dead)
	if err != nil {
		x.Fatal(err)
	}
	for _, f := range got {
		answer = append(answer, string(f))
	}
	return answer
}

// By text, too, a queue is the same at whichever broker it is used.
func TestTextOfAQueueElsewhere(t *testing.T) {
	c, x := textsAt(t, 3, 10*time.Second)
	home, a, b := x[0], x[1], x[2]
	a.say("WRITE", "q", "x")
	a.hears("ERROR") // there is none
	home.does("OPEN", "q")
	a.does("OPEN", "q")
	if at := c.homes("q"); len(at) != 1 || at[0] != 0 {
		t.Fatalf("homes at %v", at)
	}
	a.does("WRITE", "q", "one")
	b.does("WRITE", "q", "")
	home.say("READ", "q")
	home.hears("one")
	a.say("READ", "q")
	a.hears("")

	// Several wait, in turn.
	a.say("READ", "q")
	a.say("READ", "q")
	c.at(0).awaitReceivers(c.brokers[0], "q", 2)
	b.does("WRITE", "q", "1")
	b.does("WRITE", "q", strings.Repeat("2", 300_000))
	a.hears("1")
	a.hears(strings.Repeat("2", 300_000))

	// What has been read is gone.
	eventually(t, "nothing is left", func() bool {
		info, err := c.at(0).client.Stat(t.Context(), "q")
		return err == nil && info.Chunks == 0 && info.Taken == 0
	})

	// Jobs are the client's that has taken them.
	home.does("WRITE", "q", "work")
	job := a.asks("TAKE", "q")
	if len(job) != 3 || job[1] != "1" || job[2] != "work" {
		t.Fatalf("TAKE: %q", job)
	}
	b.say("DONE", "q", job[0])
	b.hears("ERROR")
	a.does("EXTEND", "q", job[0])
	a.does("RETURN", "q", job[0])
	if job = b.asks("TAKE", "q"); job[1] != "2" {
		t.Fatalf("TAKE: %q", job)
	}
	b.does("DONE", "q", job[0])
	b.say("DONE", "q", job[0])
	b.hears("ERROR")

	// A CLOSE has those answered who wait.
	a.say("READ", "q")
	a.say("TAKE", "q")
	c.at(0).awaitReceivers(c.brokers[0], "q", 1)
	a.say("CLOSE", "q")
	a.hears("ERROR")
	a.hears("ERROR")
	a.hears("OK")
	b.say("TAKE", "q")
	c.at(0).awaitReceivers(c.brokers[0], "q", 1)
	home.does("CLOSE", "q") // the last one
	b.hears("ERROR")
	b.say("READ", "q")
	b.hears("ERROR")
}

// Who dies loses nothing: neither the job that it has, nor the chunk that was on its way to it.
func TestTextOfAQueueElsewhereDies(t *testing.T) {
	c, x := textsAt(t, 2, 10*time.Second)
	home, a := x[0], x[1]
	home.does("OPEN", "q")
	home.does("WRITE", "q", "taken")
	if job := a.asks("TAKE", "q"); job[2] != "taken" {
		t.Fatalf("TAKE: %q", job)
	}
	b := c.at(1).texter(c.brokers[1])
	b.say("READ", "q")
	c.at(0).awaitReceivers(c.brokers[0], "q", 1)
	a.socket.Close()
	b.hears("taken")

	b.say("READ", "q")
	c.at(0).awaitReceivers(c.brokers[0], "q", 1)
	b.socket.Close()
	c.at(0).awaitReceivers(c.brokers[0], "q", 0)
	home.does("WRITE", "q", "read by nobody")
	if job := home.asks("TAKE", "q"); job[2] != "read by nobody" {
		t.Fatalf("TAKE: %q", job)
	}
}

// Who waits waits on where the way to the home breaks, and can use the queue as before.
func TestTextOfAQueueWhoseWayBreaks(t *testing.T) {
	c, x := textsAt(t, 2, 10*time.Second)
	home, a := x[0], x[1]
	home.does("OPEN", "q")
	a.say("TAKE", "q")
	c.at(0).awaitReceivers(c.brokers[0], "q", 1)
	c.sever(c.brokers[0], c.brokers[1])
	home.does("WRITE", "q", "work")
	got, err := wireReceive(a.socket, 4*dead)
	if err != nil || len(got) != 3 {
		t.Fatalf("TAKE: %q, %v", got, err)
	}
	a.does("DONE", "q", string(got[0]))
	a.does("WRITE", "q", "more")
	home.say("READ", "q")
	home.hears("more")
}

// A job that was taken by text where the queue has another home by now can be settled by text.
func TestTextSettlesWhereAQueueWasCeded(t *testing.T) {
	t.Parallel()
	c, a, qa := durableAt(t)
	x := a.texter(c.brokers[0])
	x.does("WRITE", "q", "x")
	job := x.asks("TAKE", "q")
	s := c.brokers[0].pipes.queueNamed("q")
	c.heal(c.brokers[0], c.brokers[1])
	eventually(t, "it is ceded", s.isCeded)
	x.does("DONE", "q", job[0])
	if home := c.settled("q"); home != 1 {
		t.Errorf("the home is at %d", home)
	}
	if err := qa.Send(t.Context(), nil); !errors.Is(err, ErrBrokerGone) {
		t.Error(err)
	}
}

// A chunk that is too large for the broker at which it is read is not fetched again and again: who reads is told, and it
// stays for others.
func TestTextOfAQueueElsewhereWithALargeChunk(t *testing.T) {
	t.Parallel()
	c := &clusterRig{T: t, testCluster: newTestCluster()}
	c.patience = 10 * time.Second
	const large = defaultMaxMessage + 1<<20
	for _, most := range []int{2 * large, 0} {
		c.brokers = append(c.brokers, c.broker(t, func(cfg *BrokerConfig) {
			cfg.Private, cfg.MaxMessage, cfg.MaxPending = true, most, most
		}))
	}
	c.awaitLinks(t, c.brokers...)
	home, a := c.at(0).texter(c.brokers[0]), c.at(1).texter(c.brokers[1])
	home.does("OPEN", "q")
	home.does("WRITE", "q", strings.Repeat("x", large))
	for range 2 {
		a.say("READ", "q")
		a.hears("ERROR")
	}
	if job := home.asks("TAKE", "q"); len(job) != 3 || job[1] != "3" || len(job[2]) != large {
		t.Fatalf("TAKE: %d frames, delivery %s", len(job), job[1])
	}
	home.does("WRITE", "q", "small")
	a.say("READ", "q")
	a.hears("small")
}
