package zpipes

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A handler that does with each line what a test wants.
type handlerFunc func(slog.Record)

func (handlerFunc) Enabled(context.Context, slog.Level) bool { return true }
func (f handlerFunc) Handle(_ context.Context, r slog.Record) error {
	f(r)
	return nil
}
func (f handlerFunc) WithAttrs([]slog.Attr) slog.Handler { return f }
func (f handlerFunc) WithGroup(string) slog.Handler      { return f }

func TestLoggerThatIsSlow(t *testing.T) {
	var mu sync.Mutex
	var got []string
	j := newAsyncLog(slog.New(handlerFunc(func(r slog.Record) {
		time.Sleep(time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		got = append(got, r.Message)
	})))
	for range lineBurst {
		j.info("one")
		j.warn("another")
	}
	j.close()
	j.info("too late")
	mu.Lock()
	defer mu.Unlock()
	if len(got) != 2*lineBurst || got[0] != "one" || got[1] != "another" {
		t.Errorf("%d lines: %q", len(got), got)
	}
}

func TestLoggerThatPanics(t *testing.T) {
	for what, end := range map[string]func(){"panics": func() { panic("of the host") }, "ends": runtime.Goexit} {
		var n atomic.Int32
		j := newAsyncLog(slog.New(handlerFunc(func(slog.Record) { n.Add(1); end() })))
		for range 3 {
			j.info("line")
		}
		eventually(t, "a handler that "+what+" gets 3 lines", func() bool { j.close(); return n.Load() == 3 })
	}
}

// What there was no room for is counted and told, once there is.
func TestLoggerLinesWithoutRoom(t *testing.T) {
	hangs := make(chan struct{})
	lines, told := 0, 0
	j := newAsyncLog(slog.New(handlerFunc(func(r slog.Record) {
		<-hangs
		if lines++; r.Message == "lines left out" {
			lines--
			r.Attrs(func(a slog.Attr) bool {
				if a.Key == "count" {
					told += int(a.Value.Int64())
				}
				return true
			})
		}
	})))
	const kinds = maxLines / 2
	for i := range kinds {
		for range 4 {
			j.info(string(rune('a' + i)))
		}
	}
	close(hangs)
	j.close()
	if lines < maxLines || lines > maxLines+1 || lines+told != 4*kinds {
		t.Errorf("%d lines, %d told to be left out, of %d", lines, told, 4*kinds)
	}
}
