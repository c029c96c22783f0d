package zpipes

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

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
	session   int           // "<": where in the frame a session is, which is not compared; 0: nowhere
	id        int           // the number of the frame that begins with a job's id, which the broker chooses; 0: none does
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
		if digits, rest, ok := strings.Cut(strings.Join(words[3:], ""), "SESSION"); ok && words[2] == "RAW" && words[1] == "<" {
			step.session = len(digits) / 2
			words = append(words[:3], digits+strings.Repeat("00", sessionBytes)+rest)
		}
		for i, word := range words[3:] {
			if words[2] == "TEXT" && strings.HasPrefix(word, scriptID) {
				step.id = i + 1
				words[3+i] = strconv.Quote(word)
			}
		}
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

const sessionBytes = 8

// scriptID stands for the id of the job that an actor got last.
const scriptID = "ID"

// accepts tells whether a message is the one that the step waits for.
func (s scriptStep) accepts(frames [][]byte) bool {
	if end := s.session + sessionBytes; s.session > 0 && len(frames) == 1 && len(frames[0]) >= end {
		frames = [][]byte{slices.Concat(frames[0][:s.session], make([]byte, sessionBytes), frames[0][end:])}
	}
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

func TestConformanceScriptsParse(t *testing.T) {
	for _, path := range scriptPaths(t, "v2", "old", "hello", "fixes", "broadcast", "text") {
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
