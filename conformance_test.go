//go:build cgo && !core

package zpipes

import (
	"encoding/hex"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pebbe/zmq4"
)

// The scripts of testdata/conformance (its README.md has their notation), played against the broker by bare DEALER
// sockets. Nothing here uses the package's own codec, so that one misreading of the protocol can't hide another.
func TestConformance(t *testing.T) {
	t.Parallel()
	for _, path := range scriptPaths(t, "v2", "old", "hello", "fixes", "broadcast", "text") {
		t.Run(scriptName(path), func(t *testing.T) {
			t.Parallel()
			scriptPlayTo(t, path, func(cfg BrokerConfig) func() (scriptConn, error) {
				broker, err := cfg.NewBroker("")
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := broker.Close(); err != nil {
						t.Errorf("closing the broker: %v", err)
					}
				})
				return scriptSockets(t, scriptEndpoint(t, broker))
			})
		})
	}
}

// What docs/PROTOCOL.md shows in hexadecimal is what a broker does.
func TestConformanceExamplesOfTheProtocol(t *testing.T) {
	// In the text; each broker chooses its own.
	const session, incarnation = "0123456789abcdef", "fedcba9876543210"
	const job = " aaa02100000003616263" + "5a5000000001"
	lines := regexp.MustCompile(`(?m)^    (\w) ([<>]) (aaa0 .*?)(  .*|)$`).FindAllStringSubmatch(scriptRead(t, "docs/PROTOCOL.md"), -1)
	endpoint := scriptEndpoint(t, startBroker(t, BrokerConfig{}))
	context := wireContext(t)
	defer wireTerm(context)
	actors := make(map[string]*zmq4.Socket)
	chosen, queue := "", ""
	mine := func(text string) string {
		return strings.ReplaceAll(strings.ReplaceAll(text, session, chosen), incarnation, queue)
	}
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
				if _, id, ok := strings.Cut(got, job); ok {
					queue = id[:len(incarnation)]
				}
				match := ""
				for want := range expected {
					short, cut := strings.CutSuffix(want, "...")
					want := mine(short)
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
		if _, err := actors[actor].SendBytes(unhex(t, mine(digits)), 0); err != nil {
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
