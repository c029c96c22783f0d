package zpipes

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pebbe/zmq4"
)

// The scripts of testdata/conformance (its README.md has their notation), played against the broker by bare DEALER
// sockets. Nothing here uses the package's own codec, so that one misreading of the protocol can't hide another.
func TestConformance(t *testing.T) {
	for _, path := range scriptPaths(t, "v2", "old", "fixes", "text") {
		t.Run(scriptName(path), func(t *testing.T) {
			t.Parallel()
			script := scriptRead(t, path)
			broker, err := scriptConfig(t, script).NewBroker("")
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := broker.Close(); err != nil {
					t.Errorf("closing the broker: %v", err)
				}
			}()
			scriptPlay(t, scriptEndpoint(t, broker), path, script)
		})
	}
}

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

func TestScriptsParse(t *testing.T) {
	for _, path := range scriptPaths(t, "v2", "old", "fixes", "text") {
		if _, err := scriptParse(scriptRead(t, path)); err != nil {
			t.Errorf("%s:%v", path, err)
		}
	}
	for _, bad := range []string{
		"r", "sleep", "sleep long", "r < nothing", "r ? PING", `r > DANCE`, `r > READ 1`, `r > READ 1 2 3`,
		`r > READ "1" 0`, `r > INPUT "open`, `r > INPUT rep:a:256`, `r > RAW aa0`, `r < TEXT * "x"`,
	} {
		if steps, err := scriptParse("# one line before\n" + bad); err == nil {
			t.Errorf("%s: taken for %+v", bad, steps)
		} else if !strings.HasPrefix(err.Error(), "2: ") {
			t.Errorf("%s: %q does not begin with the line", bad, err)
		}
	}
}

// What docs/PROTOCOL.md shows in hexadecimal is what a broker does.
func TestExamplesOfTheProtocol(t *testing.T) {
	const session = "0123456789abcdef" // in the text; each broker chooses its own
	lines := regexp.MustCompile(`(?m)^    (\w) ([<>]) (aaa0 .*?)(  .*|)$`).FindAllStringSubmatch(scriptRead(t, "docs/PROTOCOL.md"), -1)
	endpoint := scriptEndpoint(t, startBroker(t, BrokerConfig{}))
	context := wireContext(t)
	defer wireTerm(context)
	actors := make(map[string]*zmq4.Socket)
	chosen := ""
	expected := make(map[string]int) // what is still to come, in any order
	settle := func() {
		for line := range expected {
			actor, _, _ := strings.Cut(line, " ")
			for range expected[line] {
				frames, err := wireReceive(actors[actor], 5*time.Second)
				if err != nil {
					t.Fatalf("%s: %v", line, err)
				}
				got := actor + " " + hex.EncodeToString(frames[0])
				if strings.HasPrefix(got, actor+" aaa0145a5000000000") && len(got) > 40 {
					chosen = got[len(actor)+21 : len(actor)+37]
				}
				match := ""
				for want := range expected {
					short, cut := strings.CutSuffix(want, "...")
					want := strings.ReplaceAll(short, session, chosen)
					if got == want || cut && strings.HasPrefix(got, want) {
						match = short
						if cut {
							match += "..."
						}
					}
				}
				if match == "" {
					t.Fatalf("%s came, want one of %v", got, expected)
				}
				if expected[match]--; expected[match] == 0 {
					delete(expected, match)
				}
			}
		}
	}
	for _, l := range lines {
		actor, digits := l[1], strings.ReplaceAll(l[3], " ", "")
		if l[2] == "<" {
			expected[actor+" "+digits]++
			continue
		}
		for len(expected) > 0 {
			settle()
		}
		if actors[actor] == nil {
			s, err := context.NewSocket(zmq4.DEALER)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if err := errors.Join(s.SetLinger(0), retryEINTR(func() error { return s.Connect(endpoint) })); err != nil {
				t.Fatal(err)
			}
			actors[actor] = s
		}
		if _, err := actors[actor].SendBytes(unhex(t, strings.ReplaceAll(digits, session, chosen)), 0); err != nil {
			t.Fatal(err)
		}
	}
	for len(expected) > 0 {
		settle()
	}
	if len(lines) < 50 {
		t.Errorf("only %d lines were found", len(lines))
	}
}

// scriptPaths lists the scripts in some folders of testdata/conformance.
func scriptPaths(t testing.TB, folders ...string) []string {
	t.Helper()
	var paths []string
	for _, folder := range folders {
		found, err := filepath.Glob(filepath.Join("testdata", "conformance", folder, "*.txt"))
		if err != nil || len(found) == 0 {
			t.Fatalf("no scripts in %s (%v)", folder, err)
		}
		paths = append(paths, found...)
	}
	return paths
}

// scriptName is what a script's subtest is called: its folder and its name.
func scriptName(path string) string {
	return filepath.Base(filepath.Dir(path)) + "/" + strings.TrimSuffix(filepath.Base(path), ".txt")
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

func scriptRead(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A scriptStep is one line of a script.
type scriptStep struct {
	line      int
	text      string        // the line itself
	actor     string        // who speaks, hears or goes
	verb      string        // ">", "<", "nothing", "gone" or "sleep"
	frames    [][]byte      // ">" and "<": the message
	anyReason bool          // "<": the reason, the message's last part, is not compared
	wait      time.Duration // "nothing" and "sleep"
}

// scriptParse reads a script. Its errors begin with the number of the line.
func scriptParse(script string) ([]scriptStep, error) {
	var steps []scriptStep
	for i, line := range strings.Split(script, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		step, err := scriptParseLine(line)
		if err != nil {
			return nil, fmt.Errorf("%d: %s: %w", i+1, line, err)
		}
		step.line, step.text = i+1, line
		steps = append(steps, step)
	}
	return steps, nil
}

func scriptParseLine(line string) (step scriptStep, err error) {
	words, err := scriptWords(line)
	switch {
	case err != nil:
	case len(words) == 2 && words[0] == "sleep":
		step.verb = "sleep"
		step.wait, err = time.ParseDuration(words[1])
	case len(words) == 2 && words[1] == "gone":
		step.actor, step.verb = words[0], "gone"
	case len(words) == 4 && words[1] == "<" && words[2] == "nothing":
		step.actor, step.verb = words[0], "nothing"
		step.wait, err = time.ParseDuration(words[3])
	case len(words) >= 3 && (words[1] == ">" || words[1] == "<"):
		step.actor, step.verb = words[0], words[1]
		step.frames, step.anyReason, err = scriptMessage(words[2], words[3:])
	default:
		err = errors.New("not a step of a conversation")
	}
	return step, err
}

// scriptWords splits a line at its blanks; what is quoted stays one word, with its quotes.
func scriptWords(line string) (words []string, err error) {
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimSpace(line) {
		word, _, _ := strings.Cut(line, " ")
		if line[0] == '"' {
			if word, err = strconv.QuotedPrefix(line); err != nil {
				return nil, err
			}
		}
		words = append(words, word)
		line = line[len(word):]
	}
	return words, nil
}

// scriptMessage makes the frames of a message from its name and its fields.
func scriptMessage(name string, fields []string) (frames [][]byte, anyReason bool, err error) {
	switch name {
	case "RAW":
		frame, err := hex.DecodeString(strings.Join(fields, ""))
		return [][]byte{frame}, false, err
	case "TEXT":
		if last := len(fields) - 1; last > 0 && fields[last] == "*" {
			fields[last], anyReason = `""`, true
		}
		for _, field := range fields {
			text, err := scriptString(field)
			if err != nil {
				return nil, false, err
			}
			frames = append(frames, []byte(text))
		}
		return frames, anyReason, nil
	}
	if strings.HasSuffix(name, "_FAILED") && len(fields) == 0 {
		fields, anyReason = []string{`""`}, true
	}
	id := wireID(name)
	if id == 0 || len(fields) != len(wireLayout[id].fields) {
		return nil, false, errors.New("no such message, or not its fields")
	}
	m := wireMessage{name: name}
	for i, kind := range wireLayout[id].fields {
		switch kind {
		case wireSize:
			m.size, err = scriptNumber(fields[i])
		case wireTimeout:
			m.timeout, err = scriptNumber(fields[i])
		default:
			m.text, err = scriptString(fields[i])
		}
		if err != nil {
			return nil, false, err
		}
	}
	frame := m.encode()
	if back, rest, ok := wireDecode(frame); !ok || back != m || len(rest) > 0 {
		return nil, false, errors.New("a field is too long for the wire")
	}
	return [][]byte{frame}, anyReason, nil
}

func scriptNumber(word string) (uint32, error) {
	n, err := strconv.ParseUint(word, 10, 32)
	return uint32(n), err
}

// scriptString understands "quoted as in Go" and rep:a:1000.
func scriptString(word string) (string, error) {
	rest, ok := strings.CutPrefix(word, "rep:")
	if !ok {
		return strconv.Unquote(word)
	}
	text, times, _ := strings.Cut(rest, ":")
	n, err := scriptNumber(times)
	return strings.Repeat(text, int(n)), err
}

// accepts tells whether a message is the one that the step waits for.
func (s scriptStep) accepts(frames [][]byte) bool {
	if !s.anyReason {
		return slices.EqualFunc(s.frames, frames, bytes.Equal)
	}
	if len(frames) != len(s.frames) {
		return false
	}
	if len(frames) > 1 {
		return bytes.Equal(frames[0], s.frames[0])
	}
	want, _, _ := wireDecode(s.frames[0])
	got, rest, ok := wireDecode(frames[0])
	return ok && got.name == want.name && len(rest) == 0
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

// scriptNotation writes a message that arrived as a script would, for people to compare.
func scriptNotation(frames [][]byte) string {
	if len(frames) == 1 {
		if m, rest, ok := wireDecode(frames[0]); ok && len(rest) == 0 {
			return m.String()
		}
		if bytes.HasPrefix(frames[0], wireSignature) {
			return fmt.Sprintf("RAW %.200x", frames[0])
		}
	}
	text := "TEXT"
	for _, frame := range frames {
		text += fmt.Sprintf(" %.100q", frame)
	}
	return text
}

// The wire, as docs/PROTOCOL.md has it.

var wireSignature = []byte{0xAA, 0xA0}

// The kinds of field. No message has two of one kind, nor both a string and a chunk.
const (
	wireString  = 's' // a length in one octet, and that many
	wireChunk   = 'c' // a length in four octets, and that many
	wireSize    = 'z' // four octets
	wireTimeout = 't' // four octets, milliseconds
)

// wireLayout has the name and the fields of each message, by its id.
var wireLayout = [...]struct{ name, fields string }{
	1: {"INPUT", "s"}, 2: {"INPUT_OK", ""}, 3: {"INPUT_FAILED", "s"},
	4: {"OUTPUT", "s"}, 5: {"OUTPUT_OK", ""}, 6: {"OUTPUT_FAILED", "s"},
	7: {"READ", "zt"}, 8: {"READ_OK", "c"}, 9: {"READ_END", ""}, 10: {"READ_TIMEOUT", ""}, 11: {"READ_FAILED", "s"},
	12: {"WRITE", "ct"}, 13: {"WRITE_OK", ""}, 14: {"WRITE_TIMEOUT", ""}, 15: {"WRITE_FAILED", "s"},
	16: {"CLOSE", ""}, 17: {"CLOSE_OK", ""}, 18: {"CLOSE_FAILED", "s"},
	19: {"PING", ""}, 20: {"PING_OK", ""}, 21: {"INVALID", ""},
}

// A wireMessage is a message of the binary protocol, for tests.
type wireMessage struct {
	name    string
	text    string // the pipe's name, the reason or the chunk
	size    uint32
	timeout uint32
}

// wireID returns a message's id, or 0.
func wireID(name string) int {
	for id, layout := range wireLayout {
		if id > 0 && layout.name == name {
			return id
		}
	}
	return 0
}

func (m wireMessage) encode() []byte {
	id := wireID(m.name)
	frame := append(bytes.Clone(wireSignature), byte(id))
	for _, kind := range wireLayout[id].fields {
		switch kind {
		case wireString:
			frame = append(append(frame, byte(len(m.text))), m.text...)
		case wireChunk:
			frame = append(binary.BigEndian.AppendUint32(frame, uint32(len(m.text))), m.text...)
		case wireSize:
			frame = binary.BigEndian.AppendUint32(frame, m.size)
		case wireTimeout:
			frame = binary.BigEndian.AppendUint32(frame, m.timeout)
		}
	}
	return frame
}

// wireDecode parses a frame; rest is what follows the last field.
func wireDecode(frame []byte) (m wireMessage, rest []byte, ok bool) {
	rest, ok = bytes.CutPrefix(frame, wireSignature)
	take := func(n int) []byte {
		if ok = ok && n <= len(rest); !ok {
			return make([]byte, 4) // long enough for the number that is not there
		}
		var taken []byte
		taken, rest = rest[:n], rest[n:]
		return taken
	}
	number := func() uint32 { return binary.BigEndian.Uint32(take(4)) }
	id := int(take(1)[0])
	if !ok || id == 0 || id >= len(wireLayout) {
		return wireMessage{}, nil, false
	}
	m.name = wireLayout[id].name
	for _, kind := range wireLayout[id].fields {
		switch kind {
		case wireString:
			m.text = string(take(int(take(1)[0])))
		case wireChunk:
			m.text = string(take(int(number())))
		case wireSize:
			m.size = number()
		case wireTimeout:
			m.timeout = number()
		}
	}
	return m, rest, ok
}

// String writes the message as a script does.
func (m wireMessage) String() string {
	text := m.name
	for _, kind := range wireLayout[wireID(m.name)].fields {
		switch kind {
		case wireSize:
			text += fmt.Sprintf(" %d", m.size)
		case wireTimeout:
			text += fmt.Sprintf(" %d", m.timeout)
		default:
			text += fmt.Sprintf(" %.100q", m.text)
		}
	}
	return text
}

// errWireSilence is what wireReceive returns when no message came.
var errWireSilence = errors.New("no message in time")

// wireContext returns a context whose calls give up at an interrupt: zmq4 would start them again with their full
// timeout, and the signals by which Go preempts its goroutines can make that last for ever.
func wireContext(t testing.TB) *zmq4.Context {
	t.Helper()
	context, err := zmq4.NewContext()
	if err != nil {
		t.Fatal(err)
	}
	context.SetRetryAfterEINTR(false)
	return context
}

// wireTerm ends a context whose sockets are all closed. An interrupted Term can't be called again, so this call
// restarts by itself.
func wireTerm(context *zmq4.Context) {
	context.SetRetryAfterEINTR(true)
	context.Term()
}

// wireSend sends the frames as one message.
func wireSend(socket *zmq4.Socket, frames ...[]byte) error {
	for i := 0; i < len(frames); {
		flags := zmq4.DONTWAIT
		if i < len(frames)-1 {
			flags |= zmq4.SNDMORE
		}
		switch _, err := socket.SendBytes(frames[i], flags); err {
		case nil:
			i++
		case zmq4.Errno(syscall.EINTR):
		default:
			return err
		}
	}
	return nil
}

// wireReceive returns the next message, within a time; errWireSilence when there is none.
func wireReceive(socket *zmq4.Socket, within time.Duration) (frames [][]byte, err error) {
	deadline := time.Now().Add(within)
	poller := zmq4.NewPoller()
	poller.Add(socket, zmq4.POLLIN)
	for {
		frame, err := socket.RecvBytes(zmq4.DONTWAIT)
		switch err {
		case nil:
			frames = append(frames, frame)
			if more, err := socket.GetRcvmore(); err != nil || !more {
				return frames, err
			}
		case zmq4.Errno(syscall.EINTR):
		case zmq4.Errno(syscall.EAGAIN):
			left := time.Until(deadline)
			if left <= 0 {
				return nil, errWireSilence
			}
			// A poll is rounded down to milliseconds; an interrupted one is no matter, since the socket is
			// looked at again in any case.
			poller.Poll(max(left, time.Millisecond))
		default:
			return nil, err
		}
	}
}
