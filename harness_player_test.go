//go:build !core

package zpipes

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// scriptConfig is what a script's first comment wants of the broker.
func scriptConfig(t *testing.T, script string) (cfg BrokerConfig) {
	if m := regexp.MustCompile(`^# With a ClientTimeout of (\d+) (ms|s)\.`).FindStringSubmatch(script); m != nil {
		var err error
		if cfg.ClientTimeout, err = time.ParseDuration(m[1] + m[2]); err != nil {
			t.Fatal(err)
		}
	}
	if m := regexp.MustCompile(`^# With a MaxPending of (\d+) bytes\.`).FindStringSubmatch(script); m != nil {
		var err error
		if cfg.MaxPending, err = strconv.Atoi(m[1]); err != nil {
			t.Fatal(err)
		}
	}
	return cfg
}

// A scriptPlayer gives each actor of a script a connection.
type scriptPlayer struct {
	t       *testing.T
	name    string // of the script, for messages
	connect func() (scriptConn, error)
	actors  map[string]scriptConn
	text    map[string]bool // the actors that have spoken the text interface
	job     string          // the id of the last one that somebody was given
	wait    time.Duration   // how long an answer may take
	slow    time.Duration   // by how much longer the script's sleeps take
	slept   time.Duration
}

// A scriptConn is a connection of a client that knows nothing of this library.
type scriptConn interface {
	say(frames [][]byte) error
	hear(within time.Duration) ([][]byte, error) // errWireSilence: nothing
	hangUp()
}

var errWireSilence = errors.New("no message in time")

// scriptPlay plays a script to a broker. A deviation fails the test and ends the play.
func scriptPlay(t *testing.T, connect func() (scriptConn, error), name, script string) {
	t.Helper()
	p := newScriptPlayer(t, connect)
	p.name = name
	if wrong := p.perform(script); wrong != "" {
		t.Fatal(wrong)
	}
}

// scriptPlayTo plays the script of a file to a broker that start starts, and says how to connect to. Where a busy
// machine had it sleep for much longer than it should, a deviation shows nothing: it is played again, to a broker with
// as much more patience as the sleeps are longer.
func scriptPlayTo(t *testing.T, path string, start func(BrokerConfig) (connect func() (scriptConn, error))) {
	t.Helper()
	script := scriptRead(t, path)
	for slow := time.Duration(1); ; slow *= 3 {
		cfg := scriptConfig(t, script)
		cfg.ClientTimeout *= slow
		p := newScriptPlayer(t, start(cfg))
		p.name, p.slow = path, slow
		began := time.Now()
		wrong := p.perform(script)
		if wrong == "" {
			return
		}
		if late := p.slept > 0 && time.Since(began) > p.slept*5/4; !late || slow > 10 {
			t.Fatal(wrong)
		}
	}
}

func newScriptPlayer(t *testing.T, connect func() (scriptConn, error)) *scriptPlayer {
	return &scriptPlayer{t: t, connect: connect, actors: make(map[string]scriptConn), text: make(map[string]bool), wait: 4 * soon, slow: 1}
}

// perform plays a script to its end, and returns what was wrong.
func (p *scriptPlayer) perform(script string) (wrong string) {
	p.t.Helper()
	steps, err := scriptParse(script)
	if err != nil {
		p.t.Fatalf("%s:%v", p.name, err)
	}
	defer p.close()
	for _, step := range steps {
		if wrong := p.deviation(step); wrong != "" {
			return wrong
		}
	}
	return p.more()
}

// deviation plays a step, and returns what was wrong.
func (p *scriptPlayer) deviation(step scriptStep) (wrong string) {
	p.t.Helper()
	if got := p.try(step); got != "" {
		return fmt.Sprintf("%s:%d: want %s\ngot %s", p.name, step.line, step.text, got)
	}
	return ""
}

// try plays a step, and returns what came of it if that is not what it should be.
func (p *scriptPlayer) try(step scriptStep) (got string) {
	p.t.Helper()
	switch step.verb {
	case "sleep":
		time.Sleep(p.slow * step.wait)
		p.slept += p.slow * step.wait
	case "gone":
		p.actor(step).hangUp()
		delete(p.actors, step.actor)
	case ">":
		if len(step.frames) > 1 {
			p.text[step.actor] = true
		}
		if step.id > 0 {
			id := &step.frames[step.id-1]
			*id = []byte(strings.Replace(string(*id), scriptID, p.job, 1))
		}
		if err := p.actor(step).say(step.frames); err != nil {
			return "error: " + err.Error()
		}
	case "<":
		if frames, err := p.actor(step).hear(p.wait); err != nil {
			return "none: " + err.Error()
		} else {
			if step.id > 0 && len(frames) == len(step.frames) {
				p.job, frames[step.id-1] = string(frames[step.id-1]), step.frames[step.id-1]
			}
			if !step.accepts(frames) {
				return scriptNotation(frames)
			}
		}
	case "nothing":
		if frames, err := p.actor(step).hear(step.wait); err == nil {
			return scriptNotation(frames)
		} else if err != errWireSilence {
			return "error: " + err.Error()
		}
	}
	return ""
}

// more finds replies that no line of the script waits for. PING is always answered and answers keep their
// order, so whatever is on its way to an actor arrives before that PING's.
func (p *scriptPlayer) more() (wrong string) {
	p.t.Helper()
	for _, actor := range slices.Sorted(maps.Keys(p.actors)) {
		if p.text[actor] {
			wrong = p.deviation(scriptStep{text: actor + " < nothing, at the end", actor: actor, verb: "nothing"})
		} else {
			ping, pong := wireMessage{name: "PING"}.encode(), wireMessage{name: "PING_OK"}.encode()
			if wrong = p.deviation(scriptStep{actor: actor, verb: ">", frames: [][]byte{ping}}); wrong == "" {
				wrong = p.deviation(scriptStep{text: actor + " < PING_OK, at the end", actor: actor, verb: "<", frames: [][]byte{pong}})
			}
		}
		if wrong != "" {
			return wrong
		}
	}
	return ""
}

// actor returns the connection of a step's actor, made at its first appearance.
func (p *scriptPlayer) actor(step scriptStep) scriptConn {
	p.t.Helper()
	if c := p.actors[step.actor]; c != nil {
		return c
	}
	c, err := p.connect()
	if err != nil {
		p.t.Fatal(err)
	}
	p.actors[step.actor] = c
	return c
}

func (p *scriptPlayer) close() {
	for _, c := range p.actors {
		c.hangUp()
	}
}

// A scriptTransport is a connection over one of our own transports.
type scriptTransport struct {
	transport
	heard [][]byte // that nobody has asked for yet
}

func (c *scriptTransport) say(frames [][]byte) error {
	err := c.send(frames...)
	c.look(time.Unix(1, 0)) // by then it leaves
	return err
}

func (c *scriptTransport) look(until time.Time) {
	if p, ok := c.wait(until); ok {
		c.heard = append(c.heard, bytes.Clone(p.frame))
	}
}

func (c *scriptTransport) hear(within time.Duration) ([][]byte, error) {
	for end := time.Now().Add(within); ; c.look(end) {
		switch {
		case len(c.heard) > 0:
			frame := c.heard[0]
			c.heard = c.heard[1:]
			return [][]byte{frame}, nil
		case !c.connected():
			return nil, errGone
		case !time.Now().Before(end):
			return nil, errWireSilence
		}
	}
}

func (c *scriptTransport) hangUp() { c.close() }
