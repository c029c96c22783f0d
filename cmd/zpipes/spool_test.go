package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

// A gatekeeper takes lines when it is let.
type gatekeeper struct {
	open  chan struct{}
	mu    sync.Mutex
	lines []string
}

func (g *gatekeeper) Write(line []byte) (int, error) {
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lines = append(g.lines, string(line))
	return len(line), nil
}

func TestSpool(t *testing.T) {
	g := &gatekeeper{open: make(chan struct{})}
	s := newSpool(g, func(n int) { fmt.Fprintf(g, "%d left out", n) })
	start := time.Now()
	const all = 10 * maxSpooled
	for i := range all {
		fmt.Fprint(s, i)
	}
	late := newSpool(g, nil)
	io.WriteString(late, "too late")
	late.close()
	if took := time.Since(start); took > spoolTime+5*time.Second {
		t.Error("one who does not read holds up those who write:", took)
	}
	s.mu.Lock()
	left := s.left
	s.mu.Unlock()
	close(g.open)
	eventually(t, "what was left out is told", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return strings.Contains(strings.Join(g.lines, "\n"), fmt.Sprintf("%d left out", left))
	})
	fmt.Fprint(s, "the last")
	s.close()
	s.close()
	fmt.Fprint(s, "behind the end")
	g.mu.Lock()
	defer g.mu.Unlock()
	text := strings.Join(g.lines, "\n")
	if left < all-maxSpooled-1 || !strings.Contains(text, "\n1\n2\n3\n") || !strings.Contains(text, "the last") || strings.Contains(text, "behind") {
		t.Errorf("%d left out, and %q", left, text)
	}
}
