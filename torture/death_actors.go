package main

import (
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"github.com/zpipes/zpipes"
)

// A victim is a process with ends of pipes that dies or stops while it uses them. This
// is what it does itself; the rest is in death_victims.go.

func init() { parts["victim"] = playVictim }

// What a victim is told, beside the broker, the names and the seed.
type fate struct {
	Roles     string        // of its ends: w and r write and read streams, s and g send to and get from a queue
	Near      bool          // it comes by the broker's name, else over ipc
	Heartbeat time.Duration // 0: the default
	Finite    bool          // streams end by themselves before long
	KeyFile   string        // it shows the broker the key in it
	Timeout   time.Duration // of its client; 0: the default

	Cast zpipes.BroadcastConfig // a caster's

	Listens bool // a caller listens, and does not dial
	Far     bool // a caller's or caster's other end is another one, at another host, of which its broker may have to hear yet
	Echo    bool // the other side sends back what comes

	Quiet   bool // a ringer's Writer pauses now and then until its ring has been given back
	Hostile bool // the bytes of a ringer's stream may be spoiled

	Rest time.Duration // of a hand's, between what it sends
}

// An actor is one end in a victim.
type actor struct {
	client *zpipes.Client
	index  int
	pipe   string
	queue  string
	seed   uint64
	finite bool
	rand   *rand.Rand
}

func playVictim(t task) error {
	cfg := zpipes.ClientConfig{Heartbeat: t.Fate.Heartbeat, Timeout: t.Fate.Timeout}
	if t.Fate.KeyFile != "" {
		key, err := zpipes.ReadKey(t.Fate.KeyFile)
		if err != nil {
			return err
		}
		cfg.Key = key
	}
	client, err := cfg.NewClient(t.Broker)
	if err != nil {
		return err
	}
	told := make(chan struct{})
	for i, role := range t.Fate.Roles {
		a := &actor{
			client: client, index: i, pipe: endName(t.Pipe, i), queue: t.Pipe, seed: t.Seed + uint64(i), finite: t.Fate.Finite,
			rand: rand.New(rand.NewPCG(t.Seed, uint64(i))),
		}
		go func() {
			a.play(role)
			<-told
			a.again(role)
		}()
	}
	return obey(told)
}

// obey closes told when this process is told to do it again, and returns at the end.
func obey(told chan<- struct{}) error {
	if _, err := os.Stdin.Read(make([]byte, 1)); err == nil {
		close(told)
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// roles are the names of what an end can be.
var roles = map[rune]string{'w': "writers", 'r': "readers", 's': "senders", 'g': "receivers"}

// endName is the pipe of a victim's end.
func endName(prefix string, i int) string { return prefix + "." + strconv.Itoa(i) }

// say tells what is about to happen, or has happened, and a number that belongs to it.
func (a *actor) say(event string, n int64, text string) { say("%d %s %d %s", a.index, event, n, text) }

func (a *actor) play(role rune) {
	var act func() error
	switch role {
	case 'w':
		act = a.write
	case 'r':
		act = a.read
	case 's':
		act = a.send
	case 'g':
		act = a.receive
	}
	a.say("opening", 0, "")
	a.report(act())
}

func (a *actor) report(err error) {
	if err != nil {
		a.say("failed", 0, class(err)+" "+err.Error())
	}
}

// pause is some time in which the end is idle.
func (a *actor) pause() {
	if a.rand.IntN(16) == 0 {
		time.Sleep(time.Duration(a.rand.IntN(20)) * time.Millisecond)
	}
}

// target is how much to write or read before closing.
func (a *actor) target() int64 {
	if a.finite {
		return 1 + a.rand.Int64N(4<<20)
	}
	return 1 + a.rand.Int64N(1<<(10+a.rand.IntN(25)))
}

func (a *actor) write() error {
	w, err := a.client.OpenWriter(background, a.pipe)
	if err != nil {
		return err
	}
	a.say("opened", 0, "")
	return a.pour(w)
}

// A sink is a Writer, or what a connection has of one.
type sink interface {
	io.WriteCloser
	Flush() error
}

// confirms says that what was flushed is confirmed.
func confirms(w sink) bool {
	_, ok := w.(*zpipes.Writer)
	return ok
}

func (a *actor) pour(w sink) error {
	b := make([]byte, 512<<10)
	var off int64
	for target := a.target(); off < target; a.pause() {
		n := someSize(a.rand)
		fill(b[:n], a.seed, off)
		if _, err := w.Write(b[:n]); err != nil {
			return err
		}
		if off += int64(n); a.rand.IntN(6) == 0 {
			a.say("flushing", off, "")
			if err := w.Flush(); err != nil {
				return err
			}
			if confirms(w) {
				a.say("confirmed", off, "")
			}
		}
	}
	a.say("closing", off, "")
	if err := w.Close(); err != nil {
		return err
	}
	a.say("closed", off, "")
	return nil
}

func (a *actor) read() error {
	r, err := a.client.OpenReader(background, a.pipe)
	if err != nil {
		return err
	}
	a.say("opened", 0, "")
	return a.drink(r)
}

func (a *actor) drink(r io.ReadCloser) error {
	defer r.Close()
	o := oracle{seed: a.seed}
	b := make([]byte, 512<<10)
	target := a.target()
	for a.finite || o.off < target {
		n, err := r.Read(b[:someSize(a.rand)])
		if wrong := o.check(b[:n]); wrong != nil {
			a.say("wrong", o.off, wrong.Error())
			return nil
		}
		if err == io.EOF {
			a.say("end", o.off, "")
			return nil
		}
		if err != nil || a.rand.IntN(6) == 0 {
			a.say("read", o.off, "")
		}
		if err != nil {
			return err
		}
		a.pause()
	}
	a.say("leaving", o.off, "")
	if err := r.Close(); err != nil {
		return err
	}
	a.say("left", o.off, "")
	return nil
}

// again uses another pipe in the same way, on the same client.
func (a *actor) again(role rune) {
	next := a.next()
	next.play(role)
}

func (a *actor) next() actor {
	next := *a
	next.pipe, next.queue, next.seed, next.finite = againName(a.pipe), againName(a.queue), ^a.seed, true
	a.say("again", 0, "")
	return next
}

func againName(pipe string) string { return pipe + ".again" }
