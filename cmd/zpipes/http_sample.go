package main

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/zpipes/zpipes"
)

const (
	sampleEvery = time.Second
	// graphPoints is how many samples a graph shows: one minute.
	graphPoints = 60
	// maxEvents is how many recent events are kept; maxNamed is how many pipes that
	// came, and that went, in one sample are named.
	maxEvents = 60
	maxNamed  = 5
)

// A sampler looks at the broker once a second, whoever looks on: what has come
// and gone, and who waits since when, can be seen only by comparing.
type sampler struct {
	broker *zpipes.Broker
	client *zpipes.Client
	health *health
	about  zpipes.Status // what does not change

	mu      sync.Mutex // guards what follows
	began   time.Time  // when the broker did
	at      time.Time  // of the latest sample
	alive   bool
	ailment error // what is wrong with the way to the broker
	stats   zpipes.BrokerStats
	rates   zpipes.BrokerStats // the difference of the latest two samples
	took    time.Duration      // between these two
	total   history
	syncs   int64         // of durable queues, also of those that are gone
	syncing time.Duration // how long these took
	tracks  map[string]*track
	round   uint64
	members []zpipes.Member
	recent  []pageEvent // the latest last
	viewers map[chan []byte]bool
	shown   *pageView // of the latest sample, made when the first one asks
	encoded []byte    // the same in JSON
}

// A track is what is known of a pipe.
type track struct {
	info    zpipes.PipeInfo
	in, out float64  // bytes a second
	graph   *history // nil: nothing has moved of late
	moved   uint64   // the round in which something did
	seen    uint64   // the latest round in which it was there
	writer  sideWait
	reader  sideWait
	halt    standstill
	sync    time.Duration // how long one took of late
	syncing time.Duration // for how long they have taken since
}

// A sideWait says for what one side waits without having got anywhere, and since when.
type sideWait struct {
	since  time.Time
	reason string // with a %s for how long; empty: it does not wait
}

// note is told what a side waits for now, and whether it has got on since the last
// sample.
func (w *sideWait) note(now time.Time, reason string, progress bool) {
	if w.reason != reason || progress {
		*w = sideWait{now, reason}
	}
}

// waits is for how long the side has been waiting. One that waits at the moment of
// looking only is one that works: 0.
func (w *sideWait) waits(now time.Time) time.Duration {
	if d := now.Sub(w.since); w.reason != "" && d >= sampleEvery/2 {
		return d
	}
	return 0
}

// history holds the rates of the latest samples, in a ring.
type history struct {
	in, out [graphPoints]float32
	next    int
}

func (h *history) add(in, out float64) {
	h.in[h.next], h.out[h.next] = float32(in), float32(out)
	h.next = (h.next + 1) % graphPoints
}

// A pageEvent is something that happened between two samples.
type pageEvent struct {
	At   time.Time
	Kind string // "came", "went", "trouble" or "note"
	Name string // of the pipe, or empty
	Text string
}

func newSampler(b *zpipes.Broker, h *health) *sampler {
	s := &sampler{
		broker: b, client: b.Client(), health: h, about: b.Status(),
		tracks: make(map[string]*track), viewers: make(map[chan []byte]bool),
	}
	s.about.Pipes = nil
	s.began = time.Now().Add(-s.about.Uptime)
	s.sample(context.Background())
	return s
}

func (s *sampler) run(ctx context.Context) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.sample(ctx)
			s.publish()
		case <-ctx.Done():
			s.client.Close()
			return
		}
	}
}

func (s *sampler) sample(ctx context.Context) {
	_, err := s.client.Ping(ctx) // within the process: asks without waiting
	if ctx.Err() != nil {
		return
	}
	s.ails(time.Now(), s.health.ailment())
	now := time.Now()
	s.take(now, err == nil, s.broker.Stats(), s.broker.Pipes(), s.broker.Members())
}

// ails takes the latest verdict on the broker.
func (s *sampler) ails(now time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch was := s.ailment; {
	case err != nil && was == nil:
		s.note(pageEvent{now, "trouble", "", "the broker can't be reached: " + err.Error()})
	case err == nil && was != nil:
		s.note(pageEvent{now, "note", "", "the broker can be reached again"})
	}
	s.ailment = err
}

// take compares a new sample with the one before.
func (s *sampler) take(now time.Time, alive bool, stats zpipes.BrokerStats, pipes iter.Seq[zpipes.PipeInfo], members iter.Seq[zpipes.Member]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.at.IsZero()
	s.took = max(now.Sub(s.at), time.Millisecond)
	if first {
		s.stats, s.took = stats, sampleEvery
	}
	s.rates = stats.Sub(s.stats)
	s.total.add(s.rate(s.rates.BytesIn), s.rate(s.rates.BytesOut))
	s.round++
	s.members = slices.Collect(members)
	var came, went []pageEvent
	for info := range pipes {
		t := s.tracks[info.Name]
		if t != nil && replaced(t.info, info) {
			went = append(went, t.gone(now))
			t = nil
		}
		if t == nil {
			t = &track{info: info}
			t.info.BytesIn, t.info.BytesOut = 0, 0
			if first {
				t.info = info // when it moved what it has is not known
			}
			t.info.Syncs, t.info.Syncing = 0, 0
			s.tracks[info.Name] = t
			came = append(came, pageEvent{now, "came", info.Name, info.Mode.String()})
		}
		s.follow(t, info, now)
	}
	for name, t := range s.tracks {
		if t.seen != s.round {
			went = append(went, t.gone(now))
			delete(s.tracks, name)
		}
	}
	if !first {
		s.record(now, went, "went")
		s.record(now, came, "came")
		s.trouble(now, s.rates.Expired, "a client expired", "clients expired")
		s.trouble(now, s.rates.Violations, "a message broke the protocol", "messages broke the protocol")
		s.trouble(now, s.rates.Denied, "a client was refused", "clients were refused")
		s.trouble(now, s.rates.Refused, "an open was refused", "opens were refused")
		if s.alive != alive {
			s.note(pageEvent{now, "note", "", "the broker is shutting down"})
		}
	}
	s.at, s.alive, s.stats = now, alive, stats
	s.shown, s.encoded = nil, nil
}

// replaced says that a pipe is not the one that had its name before.
func replaced(old, now zpipes.PipeInfo) bool {
	return now.Age < old.Age || now.Mode != old.Mode || now.BytesIn < old.BytesIn || now.BytesOut < old.BytesOut
}

func (s *sampler) rate(n int64) float64 { return float64(n) / s.took.Seconds() }

// follow enters what a pipe has done since the sample before.
func (s *sampler) follow(t *track, info zpipes.PipeInfo, now time.Time) {
	in, out := info.BytesIn-t.info.BytesIn, info.BytesOut-t.info.BytesOut
	s.followSyncs(t, info)
	t.info, t.seen = info, s.round
	t.in, t.out = s.rate(in), s.rate(out)
	if in > 0 || out > 0 {
		t.moved = s.round
		if t.graph == nil {
			t.graph = new(history)
		}
	} else if s.round-t.moved >= graphPoints {
		t.graph = nil
	}
	if t.graph != nil {
		t.graph.add(t.in, t.out)
	}
	// Who waits for a reader has waited even if its window took some more.
	t.writer.note(now, whyWrites(info), (in > 0 || out > 0) && (info.Reader || info.Mode == zpipes.ModeQueue))
	t.reader.note(now, whyReads(info), in > 0 || out > 0)
	t.halt.note(now, info, out > 0)
}

// followSyncs enters how long syncs have taken. One that is under way counts for as long as it has
// been, since a disk that stands still completes none.
func (s *sampler) followSyncs(t *track, info zpipes.PipeInfo) {
	n, took := info.Syncs-t.info.Syncs, info.Syncing-t.info.Syncing
	if n < 0 || took < 0 { // it was read from the disk again
		n, took = info.Syncs, info.Syncing
	}
	s.syncs += n
	s.syncing += took
	t.syncing += took
	if n > 0 {
		t.sync, t.syncing = t.syncing/time.Duration(n), 0
	}
}

// whyWrites says what the writing side waits for, or nothing.
func whyWrites(i zpipes.PipeInfo) string {
	switch {
	case !i.Writes:
		return ""
	case i.Mode == zpipes.ModeListener:
		return "a connection has waited %s for Accept"
	case i.Mode == zpipes.ModeQueue:
		return "a sender has waited %s for room"
	case i.Reader:
		return "writer has waited %s for room"
	}
	return "writer has waited %s for a reader"
}

// whyReads does so for the reading side. A reader elsewhere asks ahead, so where there
// is a writer too, nothing can be said of what its program does.
func whyReads(i zpipes.PipeInfo) string {
	switch {
	case !i.Reads, i.Mode == zpipes.ModeListener:
		return ""
	case i.Mode == zpipes.ModeQueue:
		return "a receiver has waited %s for a chunk"
	case i.Writer:
		return "no new bytes for %s"
	}
	return "reader has waited %s for a writer"
}

func (t *track) gone(now time.Time) pageEvent {
	return pageEvent{now, "went", t.info.Name, fmt.Sprintf("%s, after %s and %s",
		t.info.Mode, showTime(t.info.Age), bytesText(t.info.BytesIn))}
}

// record names the first of many events and counts the others.
func (s *sampler) record(now time.Time, events []pageEvent, what string) {
	for _, e := range events[:min(len(events), maxNamed)] {
		s.note(e)
	}
	if more := len(events) - maxNamed; more > 0 {
		s.note(pageEvent{now, what, "", showMany(more, "more pipe")})
	}
}

func (s *sampler) trouble(now time.Time, n int64, one, many string) {
	if n == 1 {
		s.note(pageEvent{now, "trouble", "", one})
	} else if n > 1 {
		s.note(pageEvent{now, "trouble", "", fmt.Sprintf("%s %s", showCount(n), many)})
	}
}

func (s *sampler) note(e pageEvent) {
	if len(s.recent) == maxEvents {
		s.recent = s.recent[:copy(s.recent, s.recent[1:])]
	}
	s.recent = append(s.recent, e)
}

// look returns what the page shows of the latest sample. It is not to be changed.
func (s *sampler) look() *pageView {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view()
}

// view makes it, once for a sample. mu is held.
func (s *sampler) view() *pageView {
	if s.shown == nil {
		s.shown = s.show()
	}
	return s.shown
}

// frame is the view in JSON. mu is held.
func (s *sampler) frame() []byte {
	if s.encoded == nil {
		var err error
		if s.encoded, err = json.Marshal(s.view()); err != nil {
			panic(err) // strings and numbers only
		}
	}
	return s.encoded
}
