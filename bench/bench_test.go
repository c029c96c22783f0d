package main

import (
	"bytes"
	"encoding/xml"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if os.Getenv(roleVar) != "" {
		for job, peer := range spoiled {
			for name, spoil := range spoilers {
				transports[job+" "+name] = func(t Task) transport { return &spoiling{transports[peer](t), spoil} }
			}
		}
		servePart()
		return
	}
	os.Exit(m.Run())
}

// short is long enough to see that a measurement works, on a machine that may be busy
// otherwise.
var short = settings{rounds: 1, patient: true, pace: pace{warm: 10 * time.Millisecond, run: 30 * time.Millisecond}}

func TestEveryContest(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	var all []*results
	for _, c := range contests() {
		r := &results{c, make(map[string][]outcome)}
		all = append(all, r)
		for _, entrant := range c.contenders {
			o, err := short.measure(t.Context(), r, entrant)
			if err != nil {
				t.Fatalf("%s: %v", r.name(entrant), err)
			}
			if r.what == fairly && entrant.transport == "zpipes, queue" && (o.calls == 0 || o.p50 <= 0 || o.p99 < o.p50) {
				t.Errorf("%s: timed %d chunks, p50 %v, p99 %v", r.name(entrant), o.calls, o.p50, o.p99)
			}
			if r.what == streaming && (o.rate <= 0 || o.cpu <= 0) {
				t.Errorf("%s: rate %v, CPU seconds for each GB %v", r.name(entrant), o.rate, o.cpu)
			}
			r.rounds[entrant.name] = append(r.rounds[entrant.name], o)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if rows, want := strings.Count(goalTable(all).String(), "\n"), 2+len(goals()); rows != want {
		t.Errorf("the table of goals has %d lines, want %d: a goal is about something that is not measured", rows, want)
	}
	for name, svg := range compared(all).charts {
		d := xml.NewDecoder(strings.NewReader(svg))
		var err error
		for err == nil {
			_, err = d.Token()
		}
		if err != io.EOF {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// spoiled are the jobs that are to notice it, and on what.
var spoiled = map[string]string{"stream": "io.Pipe", "queue": "Go channel"}

// spoilers do something to the tenth write.
var spoilers = map[string]func(w io.Writer, b []byte) error{
	"flipped": func(w io.Writer, b []byte) error {
		b[3] ^= 1
		_, err := w.Write(b)
		return err
	},
	"twice": func(w io.Writer, b []byte) error {
		_, err := w.Write(append(b, b...))
		return err
	},
	"longer": func(w io.Writer, b []byte) error {
		_, err := w.Write(append(b, 0))
		return err
	},
	"again": func(w io.Writer, b []byte) error {
		w.Write(b)
		_, err := w.Write(b)
		return err
	},
	inHalves: func(w io.Writer, b []byte) error {
		w.Write(b[:len(b)/2])
		_, err := w.Write(b[len(b)/2:])
		return err
	},
}

// inHalves is right where pieces may be of any size.
const inHalves = "in halves"

type spoiling struct {
	transport
	spoil func(io.Writer, []byte) error
}

func (s *spoiling) writer(i int) (io.Writer, error) {
	w, err := s.transport.writer(i)
	return &spoiler{to: w, spoil: s.spoil}, err
}

type spoiler struct {
	to    io.Writer
	spoil func(io.Writer, []byte) error
	n     int
}

func (s *spoiler) Write(b []byte) (int, error) {
	if s.n++; s.n == 10 {
		return len(b), s.spoil(s.to, append([]byte(nil), b...))
	}
	return s.to.Write(b)
}

func TestWrongDataAreNoticed(t *testing.T) {
	for job := range spoiled {
		for name := range spoilers {
			for _, size := range []int{64, 1 << 10} {
				r := &results{contest: contest{size: size, streams: 1}}
				_, err := short.measure(t.Context(), r, contender{name, job + " " + name, job, 1})
				if job == "stream" && name == inHalves {
					if err != nil {
						t.Errorf("%s, %s, %d bytes: %v", job, name, size, err)
					}
				} else if err == nil || !strings.Contains(err.Error(), errWrong.Error()) {
					t.Errorf("%s, %s, %d bytes: got error %v, want %v", job, name, size, err, errWrong)
				}
			}
		}
	}
}

// A limited writer sets stop once it has taken so many writes.
type limited struct {
	io.Writer
	left int
	stop atomic.Bool
}

func (l *limited) Write(b []byte) (int, error) {
	if l.left--; l.left == 0 {
		l.stop.Store(true)
	}
	return l.Writer.Write(b)
}

func TestTallyOfAnyPieces(t *testing.T) {
	for _, size := range []int{8, 64, 1000} {
		var stream bytes.Buffer
		w := &limited{Writer: &stream, left: 100}
		written, err := pump(w, size, 0, &w.stop)
		if want := (Total{int64(100 * size), 5050}); err != nil || written != want {
			t.Fatalf("pump returned %+v, %v; want %+v", written, err, want)
		}
		got := &tally{size: size}
		for stream.Len() > 0 {
			got.add(stream.Next(1 + rand.IntN(3*size)))
		}
		if got.total() != written {
			t.Errorf("writes of %d bytes: got %+v, want %+v", size, got.total(), written)
		}
	}
}

func TestQuantiles(t *testing.T) {
	var h histogram
	for i := range 100_000 {
		h.add(time.Duration(i))
	}
	h.add(time.Hour)
	for q, want := range map[float64]time.Duration{0: 0, .001: 100, .5: 50_000, .99: 99_000, 1 - 1e-9: time.Hour} {
		if got := h.quantile(q); got < want*99/100 || got > want*101/100+1 {
			t.Errorf("quantile %v: got %v, want about %v", q, got, want)
		}
	}
}

func TestBusyCore(t *testing.T) {
	p, err := start(t.Context(), "busy", gogc)
	if err != nil {
		t.Fatal(err)
	}
	defer p.end()
	if err := p.call(t.Context(), "Spin", struct{}{}, nil); err != nil {
		t.Fatal(err)
	}
	var used time.Duration
	for end := time.Now().Add(patience); used < 100*time.Millisecond; {
		if err := p.call(t.Context(), "CPU", struct{}{}, &used); err != nil || time.Now().After(end) {
			t.Fatalf("it has used %v, %v", used, err)
		}
	}
}

func TestMany(t *testing.T) {
	var b strings.Builder
	if err := short.many(t.Context(), 1000, &b); err != nil {
		t.Error(err)
	}
	if rows := strings.Count(b.String(), "\n| "); rows != 10 {
		t.Errorf("the table has %d lines, want 10:\n%s", rows, b.String())
	}
}

func TestCrowd(t *testing.T) {
	c, err := newCrowd(t.Context(), 100)
	if err != nil {
		t.Fatal(err)
	}
	defer c.end()
	var took time.Duration
	for i, p := range c.clients {
		if err := p.call(t.Context(), "OpenReaders", c.reads(i), &took); err != nil {
			t.Fatal(err)
		}
		if err := p.call(t.Context(), "OpenWriters", c.writes(i), &took); err != nil {
			t.Fatal(err)
		}
	}
	if err := numberCrowd(t.Context(), c, new(strings.Builder)); err != nil {
		t.Error(err)
	}
	if err := limits(t.Context(), c, new(strings.Builder)); err != nil {
		t.Error(err)
	}
}

func TestOffers(t *testing.T) {
	for method, size := range map[string]int{"Offer": 1 << 20, "Flood": 64 << 10} {
		o := Offering{Task: Task{Transport: "zpipes", Size: size}, Bytes: 4 << 20, AtOnce: 1}
		for readers := range 3 {
			if o.Readers = readers; readers > 0 && method == "Flood" {
				break
			}
			got, _, _, err := offered(t.Context(), method, o)
			if err != nil || got.Bytes < o.Bytes || got.Taken == 0 || got.Taken >= got.Bytes {
				t.Errorf("%s, to %d readers of a broadcast: got %+v, %v", method, readers, got, err)
			}
		}
	}
}

// A process ends with its standard input, whatever it is doing.
func TestProcessesEnd(t *testing.T) {
	c, err := newCast(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	defer c.end()
	task := Task{Job: "stream", Transport: "zmq.Proxy", Size: 64, Streams: 1, Dir: t.TempDir()}
	if _, err := c.perform(t.Context(), task, short.pace); err != nil {
		t.Fatal(err)
	}
	for _, p := range c.processes() {
		p.part.Close()
		ended := make(chan error, 1)
		go func() { ended <- p.cmd.Wait() }()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the %s: %v", p.role, err)
			}
		case <-time.After(patience):
			t.Errorf("the %s does not end", p.role)
		}
	}
}

func TestSave(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, docsFile)
	r := report{"some", "new\n", map[string]string{"some.svg": "<svg/>"}}
	write := func(text string) {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("before\n<!-- some: begin -->\nold\n<!-- some: end -->\nbehind\n")
	for range 2 {
		if err := r.save(dir); err != nil {
			t.Fatal(err)
		}
		got, _ := os.ReadFile(name)
		if want := "before\n<!-- some: begin -->\n\nnew\n\n<!-- some: end -->\nbehind\n"; string(got) != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	write("no markers")
	if err := r.save(dir); err == nil {
		t.Error("a report was saved where it has no place")
	}
}
