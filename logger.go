package zpipes

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"time"
)

// An asyncLog writes the lines of a broker or a client to its Logger. The handler behind
// that is the host program's, and may be slow, hang or panic; so it is called by a
// goroutine that is there only while there are lines, and nobody waits for it. What
// strangers cause is in their hands; so there are only so many lines of a kind in a
// second. What was left out, for either reason, is counted and told.
type asyncLog struct {
	handler slog.Handler // nil: silence

	mu      sync.Mutex // guards what follows; no other lock is taken under it
	lines   fifo[slog.Record]
	kinds   map[string]*lineKind // by message
	written chan struct{}        // closed when the goroutine ends; nil: there is none
	recount *time.Timer          // is to tell what was left out; nil: nothing was
	closed  bool
}

// A lineKind is what there is to know of the lines with one message.
type lineKind struct {
	level slog.Level
	left  int       // out, and not told yet
	fresh time.Time // when all lineBurst may be written at once again
}

const (
	// maxLines is how many lines wait for a handler that is slow.
	maxLines = 256
	// lineEvery is how often there may be a line of a kind, and lineBurst how many
	// without a pause.
	lineEvery = 200 * time.Millisecond
	lineBurst = 20
	// recountEvery is how often it tells what was left out.
	recountEvery = time.Second
	// handlerTime is how long Close waits for what the host program does.
	handlerTime = 300 * time.Millisecond
)

func newAsyncLog(l *slog.Logger, args ...any) *asyncLog {
	if l == nil {
		return new(asyncLog)
	}
	return &asyncLog{handler: l.With(args...).Handler(), kinds: make(map[string]*lineKind)}
}

func (j *asyncLog) info(message string, args ...any) { j.log(slog.LevelInfo, message, args) }
func (j *asyncLog) warn(message string, args ...any) { j.log(slog.LevelWarn, message, args) }

// log may be called by anybody, and waits for nothing.
func (j *asyncLog) log(level slog.Level, message string, args []any) {
	if j.handler == nil {
		return
	}
	now := time.Now()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return
	}
	k := j.kinds[message]
	if k == nil {
		k = &lineKind{level: level}
		j.kinds[message] = k
	}
	if now.After(k.fresh) {
		k.fresh = now
	}
	if k.left > 0 || j.lines.len() >= maxLines || k.fresh.Sub(now) > (lineBurst-1)*lineEvery {
		k.left++
		if j.recount == nil {
			j.recount = time.AfterFunc(recountEvery, j.tell)
		}
		return
	}
	k.fresh = k.fresh.Add(lineEvery)
	var caller [1]uintptr
	runtime.Callers(3, caller[:])
	r := slog.NewRecord(now, level, message, caller[0])
	r.Add(args...)
	j.put(r)
}

// put has a line written. mu is held.
func (j *asyncLog) put(r slog.Record) {
	j.lines.push(r)
	if j.written == nil {
		j.start()
	}
}

func (j *asyncLog) start() {
	j.written = make(chan struct{})
	go j.write(j.written)
}

// tell writes what was left out, as far as there is room.
func (j *asyncLog) tell() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.recount = nil
	j.recounted()
}

func (j *asyncLog) recounted() {
	for message, k := range j.kinds {
		switch {
		case k.left == 0:
		case j.lines.len() < maxLines || j.closed:
			r := slog.NewRecord(time.Now(), k.level, "lines left out", 0)
			r.Add("of", message, "count", k.left)
			k.left = 0
			j.put(r)
		case j.recount == nil:
			j.recount = time.AfterFunc(recountEvery, j.tell)
		}
	}
}

// write is the goroutine.
func (j *asyncLog) write(written chan struct{}) {
	defer func() { // also where the handler ends the goroutine
		j.mu.Lock()
		defer j.mu.Unlock()
		close(written)
		if j.written = nil; j.lines.len() > 0 {
			j.start()
		}
	}()
	for r, ok := j.next(); ok; r, ok = j.next() {
		j.handle(r)
	}
}

func (j *asyncLog) next() (r slog.Record, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if ok = j.lines.len() > 0; ok {
		r = j.lines.pop()
	}
	return r, ok
}

// handle gives the handler a line. One that panics is as good as one that fails.
func (j *asyncLog) handle(r slog.Record) {
	defer func() { recover() }()
	ctx := context.Background()
	if j.handler.Enabled(ctx, r.Level) {
		j.handler.Handle(ctx, r)
	}
}

// close waits until all is written, but not for long. Nothing is logged after that.
func (j *asyncLog) close() {
	j.mu.Lock()
	j.closed = true
	if j.recount != nil {
		j.recount.Stop()
	}
	j.recounted()
	written := j.written
	j.mu.Unlock()
	if written == nil {
		return
	}
	patience := time.NewTimer(handlerTime)
	defer patience.Stop()
	select {
	case <-written:
	case <-patience.C:
	}
}
