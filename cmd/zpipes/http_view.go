package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/zpipes/zpipes"
)

// maxRows is how many pipes the page shows.
const maxRows = 50

// A pageView is what the page shows, as text: the template and the script put it in
// place as it is.
type pageView struct {
	Broker string       `json:"broker"`
	State  string       `json:"state"` // "serving", "closing" or "unreachable"
	Every  int64        `json:"every"` // milliseconds between two of these
	About  string       `json:"about"`
	Facts  []pageFact   `json:"facts"`
	Total  pageGraph    `json:"total"`
	Pipes  []pageRow    `json:"pipes"`
	More   string       `json:"more"` // about those that are not shown
	Events []shownEvent `json:"events"`
}

type pageFact struct {
	What  string `json:"what"`
	Value string `json:"value"`
	Bad   bool   `json:"bad"` // to be looked at
}

type pageRow struct {
	Name   string     `json:"name"`
	Ends   string     `json:"ends"`
	Queued string     `json:"queued"`
	In     string     `json:"in"`
	Out    string     `json:"out"`
	Wait   string     `json:"wait"`
	Stuck  bool       `json:"stuck"` // data does not get on
	Graph  *pageGraph `json:"graph"` // nil: nothing has moved
}

// A pageGraph is the rates of the last minute, the oldest first, in percent of the
// greatest.
type pageGraph struct {
	Peak string           `json:"peak"`
	In   [graphPoints]int `json:"in"`
	Out  [graphPoints]int `json:"out"`
}

type shownEvent struct {
	At   string `json:"at"`
	Kind string `json:"kind"`
	Name string `json:"name"`
	Text string `json:"text"`
}

// show makes a view of the latest sample. mu is held.
func (s *sampler) show() *pageView {
	v := &pageView{Broker: s.about.Name, State: "serving", Every: sampleEvery.Milliseconds(), Total: s.total.graph(), Pipes: []pageRow{}, Events: []shownEvent{}}
	switch {
	case !s.alive:
		v.State = "closing"
	case s.ailment != nil:
		v.State = "unreachable"
	}
	v.About = fmt.Sprintf("zpipes %s, ZeroMQ %s, Go %s; at %s",
		s.about.Version, s.about.ZeroMQ, s.about.Go, strings.Join(s.about.Endpoints, ", "))
	tracks := sortedTracks(s.tracks, s.at)
	sum := sumUp(tracks, s.at)
	count := func(what string, n int64) pageFact { return pageFact{What: what, Value: showCount(n)} }
	trouble := func(what string, n int64) pageFact { return pageFact{what, showCount(n), n > 0} }
	v.Facts = []pageFact{
		{What: "up", Value: showTime(s.at.Sub(s.began))},
		{What: "in", Value: showRate(s.rate(s.rates.BytesIn))},
		{What: "out", Value: showRate(s.rate(s.rates.BytesOut))},
		count("pipes", int64(len(tracks))),
		trouble("stuck", sum.stuck),
		{What: "queued", Value: bytesText(sum.bytes)},
		{What: "on the disk", Value: bytesText(sum.disk)},
		trouble("dead jobs", sum.dead),
		count("writers waiting", sum.writers),
		count("connections", int64(s.stats.Clients)),
		count("of them near", int64(s.stats.Near)),
		count("opens refused", s.stats.Refused),
		trouble("clients refused", s.stats.Denied),
		trouble("clients expired", s.stats.Expired),
		trouble("violations", s.stats.Violations),
	}
	s.showCluster(v)
	for _, t := range tracks[:min(len(tracks), maxRows)] {
		v.Pipes = append(v.Pipes, t.row(s.at))
	}
	if more := len(tracks) - maxRows; more > 0 {
		v.More = "and " + showCount(int64(more)) + " more, which wait for less than these"
	}
	for _, e := range slices.Backward(s.recent) {
		v.Events = append(v.Events, shownEvent{e.At.Format(time.TimeOnly), e.Kind, showName(e.Name), e.Text})
	}
	return v
}

// sortedTracks puts first what an operator has to see: those that can't be used; those where somebody waits with
// data, the longest first, then readers without a writer; then those with the most bytes
// queued, of these the busiest.
func sortedTracks(tracks map[string]*track, now time.Time) []*track {
	sorted := make([]*track, 0, len(tracks))
	for _, t := range tracks {
		sorted = append(sorted, t)
	}
	slices.SortFunc(sorted, func(x, y *track) int {
		return cmp.Or(
			cmp.Compare(min(1, len(y.info.Unusable)), min(1, len(x.info.Unusable))),
			cmp.Compare(y.halt.stuck(now), x.halt.stuck(now)),
			cmp.Compare(y.writer.waits(now), x.writer.waits(now)),
			cmp.Compare(y.lonely(now), x.lonely(now)),
			cmp.Compare(y.info.Queued, x.info.Queued),
			cmp.Compare(y.in+y.out, x.in+x.out),
			cmp.Compare(y.reader.waits(now), x.reader.waits(now)),
			strings.Compare(x.info.Name, y.info.Name))
	})
	return sorted
}

// lonely is how long a reader has waited for a writer.
func (t *track) lonely(now time.Time) time.Duration {
	if t.info.Writer || t.info.Mode == zpipes.ModeQueue {
		return 0
	}
	return t.reader.waits(now)
}

// totals are of all pipes.
type totals struct {
	stuck, writers, readers int64 // how many pipes are stuck, and have somebody that waits
	bytes, chunks, dead     int64
	disk, unusable          int64
	longest                 time.Duration // that a pipe has been stuck
}

func sumUp(tracks []*track, now time.Time) (sum totals) {
	for _, t := range tracks {
		if d := t.halt.stuck(now); d > 0 {
			sum.stuck++
			sum.longest = max(sum.longest, d)
		}
		if t.writer.waits(now) > 0 {
			sum.writers++
		}
		if t.reader.waits(now) > 0 {
			sum.readers++
		}
		sum.bytes += int64(t.info.Queued)
		sum.chunks += int64(t.info.Chunks)
		sum.dead += int64(t.info.Dead)
		sum.disk += t.info.Disk
		if t.info.Unusable != "" {
			sum.unusable++
		}
	}
	return sum
}

func (t *track) row(now time.Time) pageRow {
	r := pageRow{
		Name: showName(t.info.Name), Ends: showEnds(t.info),
		Queued: bytesText(int64(t.info.Queued)),
		In:     showRate(t.in), Out: showRate(t.out),
		Stuck: t.halt.stuck(now) > 0 || t.info.Unusable != "",
	}
	if d := max(t.sync, t.syncing); d > 0 {
		r.Ends += fmt.Sprintf(", a sync takes %.1f ms", float64(d.Microseconds())/1000)
	}
	if t.graph != nil {
		g := t.graph.graph()
		r.Graph = &g
	}
	var waits []string
	if t.info.Unusable != "" {
		waits = append(waits, showName(t.info.Unusable))
	}
	for _, w := range []sideWait{t.writer, t.reader} {
		if d := w.waits(now); d > 0 {
			waits = append(waits, fmt.Sprintf(w.reason, showTime(d)))
		}
	}
	if r.Stuck && len(waits) == 0 {
		waits = append(waits, "nothing was read for "+showTime(t.halt.stuck(now)))
	}
	r.Wait = strings.Join(waits, ", ")
	return r
}

func showEnds(i zpipes.PipeInfo) string {
	switch {
	case i.Mode == zpipes.ModeListener:
		return "listened at, " + showMany(i.Listeners, "listener") + ", " + showMany(i.Connections, "connection")
	case i.Mode == zpipes.ModeQueue:
		return showQueue(i)
	case i.Mode == zpipes.ModeBroadcast:
		return "broadcast, " + broadcastEnds(i)
	case i.Reader && i.Writer:
		return "stream, both ends"
	case i.Reader:
		return "stream, no writer"
	case i.Writer:
		return "stream, no reader"
	}
	return "stream, no end"
}

func (h *history) graph() pageGraph {
	peak := max(slices.Max(h.in[:]), slices.Max(h.out[:]))
	g := pageGraph{Peak: showRate(float64(peak))}
	if peak == 0 {
		return g
	}
	for i := range graphPoints {
		at := (h.next + i) % graphPoints
		g.In[i] = int(math.Round(float64(h.in[at] / peak * 100)))
		g.Out[i] = int(math.Round(float64(h.out[at] / peak * 100)))
	}
	return g
}

// showName shows any bytes so that they can't be taken for others, nor do anything
// to the text around them: what is not printable, such as a change of direction, is
// escaped as in Go, and so is the backslash.
func showName(name string) string {
	var b strings.Builder
	for i := 0; i < len(name); {
		r, n := utf8.DecodeRuneInString(name[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, name[i])
		case r == '\\':
			b.WriteString(`\\`)
		case strconv.IsPrint(r) && (r == ' ' || !unicode.IsSpace(r)):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		i += n
	}
	return b.String()
}

func showRate(perSecond float64) string { return bytesText(int64(math.Round(perSecond))) + "/s" }

func showTime(d time.Duration) string {
	s := int64(d.Round(time.Second) / time.Second)
	switch {
	case s < 120:
		return fmt.Sprintf("%d s", s)
	case s < 120*60:
		return fmt.Sprintf("%d min %02d s", s/60, s%60)
	case s < 48*3600:
		return fmt.Sprintf("%d h %02d min", s/3600, s/60%60)
	}
	return fmt.Sprintf("%d days %d h", s/86400, s/3600%24)
}

// showCount groups the digits of a number that is not negative.
func showCount(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func showMany(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return showCount(int64(n)) + " " + what
}

// showCluster adds the brokers that act as one with this one, if there are any.
func (s *sampler) showCluster(v *pageView) {
	var others []string
	missing := int64(0)
	for _, m := range s.members {
		switch m.State {
		case zpipes.MemberLinked:
			state := m.RTT.Round(10 * time.Microsecond).String()
			if m.Why != "" {
				state += ", " + showName(m.Why)
			}
			others = append(others, fmt.Sprintf("%s linked (%s)", showName(m.Name), state))
		case zpipes.MemberMissing:
			missing++
			others = append(others, fmt.Sprintf("%s missing (%s)", showName(m.Name), showName(m.Why)))
		default:
			others = append(others, showName(m.Name))
		}
	}
	if len(others) == 0 {
		return
	}
	v.About += "; cluster of " + strings.Join(others, ", ")
	v.Facts = append(v.Facts, pageFact{What: "members", Value: showCount(int64(len(others)) - missing)},
		pageFact{"members missing", showCount(missing), missing > 0})
}
