package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

func init() { parts["puppet"] = playPuppet }

// playPuppet is a raw client in a process of its own, whose routing id is t.Pipe: it
// sends the messages that it reads from its standard input, in hexadecimal, and says what
// it receives.
func playPuppet(t task) error {
	lines := make(chan string)
	go func() {
		in := bufio.NewScanner(os.Stdin)
		in.Buffer(nil, 1<<20)
		for in.Scan() {
			lines <- in.Text()
		}
		close(lines)
	}()
	c, err := rawConfig{id: t.Pipe, returns: true}.connect(t.Broker)
	if err != nil {
		return err
	}
	say("connected")
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				c.close()
				return nil
			}
			m, err := decodeFrames(line)
			if err != nil {
				return err
			}
			if err := c.send(m); err != nil {
				return err
			}
		default:
			got, err := c.receive()
			if err != nil {
				return err
			}
			if got != nil {
				say("%s", encodeFrames(got))
			}
		}
	}
}

func encodeFrames(m [][]byte) string {
	var words []string
	for _, f := range m {
		words = append(words, "-"+hex.EncodeToString(f))
	}
	return strings.Join(words, " ")
}

func decodeFrames(line string) (m [][]byte, err error) {
	for word := range strings.FieldsSeq(line) {
		f, err := hex.DecodeString(strings.TrimPrefix(word, "-"))
		if err != nil {
			return nil, err
		}
		m = append(m, f)
	}
	return m, nil
}

// A puppet is such a client, of which one pulls the strings.
type puppet struct {
	*child
	got chan answer
}

func startPuppet(endpoint, id string) (*puppet, error) {
	c, err := startChild(task{Part: "puppet", Broker: endpoint, Pipe: id})
	if err != nil {
		return nil, err
	}
	if line, err := within(patience, "a client that starts", c.line); line != "connected" {
		c.kill()
		return nil, fmt.Errorf("the client said %q, %v", line, err)
	}
	p := &puppet{c, make(chan answer, 1<<12)}
	go func() {
		defer close(p.got)
		for {
			line, err := p.line()
			if err != nil {
				return
			}
			m, err := decodeFrames(line)
			if err != nil {
				m = text(line)
			}
			if a := answer(m); !a.unasked() {
				p.got <- a
			}
		}
	}()
	return p, nil
}

func (p *puppet) send(m [][]byte) { io.WriteString(p.stdin, encodeFrames(m)+"\n") }

// next is what it receives next in that time, or nil.
func (p *puppet) next(within time.Duration) answer {
	select {
	case got := <-p.got:
		return got
	case <-time.After(within):
		return nil
	}
}

// expect receives something that must begin as want does.
func (p *puppet) expect(want []byte) error {
	if got := p.next(patience); got == nil || !bytes.HasPrefix(got[0], want) {
		return fmt.Errorf("a client got %q and expected %q", got, want)
	}
	return nil
}

// quiet says whether it has received nothing more, if there is one.
func (p *puppet) quiet() error {
	if p == nil {
		return nil
	}
	if got := p.next(50 * time.Millisecond); got != nil {
		return fmt.Errorf("STRAY: %q", got)
	}
	return nil
}
