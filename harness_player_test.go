//go:build cgo && !core

package zpipes

import (
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pebbe/zmq4"
)

// scriptConfig is what a script's first comment wants of the broker.
func scriptConfig(t *testing.T, script string) (cfg BrokerConfig) {
	if m := regexp.MustCompile(`^# With a ClientTimeout of (\d+) (ms|s)\.`).FindStringSubmatch(script); m != nil {
		var err error
		if cfg.ClientTimeout, err = time.ParseDuration(m[1] + m[2]); err != nil {
			t.Fatal(err)
		}
	}
	return cfg
}

// scriptEndpoint returns the endpoint at which a broker is played scripts; actors are strangers to its process.
func scriptEndpoint(t testing.TB, broker *Broker) string {
	t.Helper()
	for _, endpoint := range broker.Endpoints() {
		if strings.HasPrefix(endpoint, "ipc://") {
			return endpoint
		}
	}
	t.Fatalf("no ipc endpoint among %q", broker.Endpoints())
	return ""
}

// A scriptPlayer lends each actor of a script a socket.
type scriptPlayer struct {
	t        *testing.T
	name     string // of the script, for messages
	endpoint string
	context  *zmq4.Context
	actors   map[string]*zmq4.Socket
	text     map[string]bool // the actors that have spoken the text interface
}

// scriptPlay plays a script against the broker at an endpoint. A deviation fails the test and ends the play.
func scriptPlay(t *testing.T, endpoint, name, script string) {
	t.Helper()
	steps, err := scriptParse(script)
	if err != nil {
		t.Fatalf("%s:%v", name, err)
	}
	p := newScriptPlayer(t, endpoint)
	p.name = name
	defer p.close()
	for _, step := range steps {
		p.play(step)
	}
	p.expectNoMore()
}

func newScriptPlayer(t *testing.T, endpoint string) *scriptPlayer {
	return &scriptPlayer{
		t: t, endpoint: endpoint, context: wireContext(t),
		actors: make(map[string]*zmq4.Socket), text: make(map[string]bool),
	}
}

func (p *scriptPlayer) play(step scriptStep) {
	p.t.Helper()
	if got := p.try(step); got != "" {
		p.t.Fatalf("%s:%d: want %s\ngot %s", p.name, step.line, step.text, got)
	}
}

// try plays a step, and returns what came of it if that is not what it should be.
func (p *scriptPlayer) try(step scriptStep) (got string) {
	p.t.Helper()
	switch step.verb {
	case "sleep":
		time.Sleep(step.wait)
	case "gone":
		p.socket(step).Close()
		delete(p.actors, step.actor)
	case ">":
		if len(step.frames) > 1 {
			p.text[step.actor] = true
		}
		if err := wireSend(p.socket(step), step.frames...); err != nil {
			return "error: " + err.Error()
		}
	case "<":
		if frames, err := wireReceive(p.socket(step), 5*time.Second); err != nil {
			return "none: " + err.Error()
		} else if !step.accepts(frames) {
			return scriptNotation(frames)
		}
	case "nothing":
		if frames, err := wireReceive(p.socket(step), step.wait); err == nil {
			return scriptNotation(frames)
		} else if err != errWireSilence {
			return "error: " + err.Error()
		}
	}
	return ""
}

// expectNoMore finds replies that no line of the script waits for. PING is always answered and answers keep their
// order, so whatever is on its way to an actor arrives before that PING's.
func (p *scriptPlayer) expectNoMore() {
	p.t.Helper()
	for _, actor := range slices.Sorted(maps.Keys(p.actors)) {
		if p.text[actor] {
			p.play(scriptStep{text: actor + " < nothing, at the end", actor: actor, verb: "nothing"})
			continue
		}
		ping, pong := wireMessage{name: "PING"}.encode(), wireMessage{name: "PING_OK"}.encode()
		p.play(scriptStep{actor: actor, verb: ">", frames: [][]byte{ping}})
		p.play(scriptStep{text: actor + " < PING_OK, at the end", actor: actor, verb: "<", frames: [][]byte{pong}})
	}
}

// socket returns the socket of a step's actor, connected at its first appearance.
func (p *scriptPlayer) socket(step scriptStep) *zmq4.Socket {
	p.t.Helper()
	if socket := p.actors[step.actor]; socket != nil {
		return socket
	}
	socket, err := p.context.NewSocket(zmq4.DEALER)
	if err != nil {
		p.t.Fatal(err)
	}
	p.actors[step.actor] = socket
	if err := errors.Join(socket.SetLinger(0), retryEINTR(func() error { return socket.Connect(p.endpoint) })); err != nil {
		p.t.Fatal(err)
	}
	return socket
}

func (p *scriptPlayer) close() {
	for _, socket := range p.actors {
		socket.Close()
	}
	wireTerm(p.context)
}
