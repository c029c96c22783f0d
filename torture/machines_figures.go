package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/zpipes/zpipes"
	"github.com/zpipes/zpipes/torture/netrig"
)

// What is measured between hosts: how far things are from what the network allows. Each figure has
// a region of its own, and what a broken promise would be is an error.

func init() {
	parts["source"], parts["sink"] = playSource, playSink
	parts["ping"], parts["echo"] = playPing, playEcho
}

// A stint is a stream, or some pings, of which one end measures.
type stint struct {
	KeyFile string
	Piece   int           // bytes of a Write
	For     time.Duration // how long there are any
	Brokers int           // of a process that has many
}

func (t task) client() (*zpipes.Client, error) {
	var cfg zpipes.ClientConfig
	if t.Stint.KeyFile != "" {
		key, err := zpipes.ReadKey(t.Stint.KeyFile)
		if err != nil {
			return nil, err
		}
		cfg.Key = key
	}
	cfg.Timeout = time.Minute
	return cfg.NewClient(t.Broker)
}

// playSource writes as much as it can.
func playSource(t task) error {
	c, err := t.client()
	if err != nil {
		return err
	}
	w, err := c.OpenWriter(context.Background(), t.Pipe)
	if err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	say("open")
	b := make([]byte, max(t.Stint.Piece, 1))
	for end := time.Now().Add(t.Stint.For); time.Now().Before(end); {
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	say("closed")
	<-untilToldTo()
	return nil
}

// A drain is what a sink has got.
type drain struct {
	Bytes  int64
	Rates  []float64 // MB/s in each half second
	End    string    // "" : io.EOF
	Opened time.Time
	First  time.Time
	Ended  time.Time
}

// playSink reads to the end.
func playSink(t task) error {
	c, err := t.client()
	if err != nil {
		return err
	}
	r, err := c.OpenReader(context.Background(), t.Pipe)
	if err != nil {
		return err
	}
	d := drain{Opened: time.Now()}
	say("open")
	b := make([]byte, 1<<20)
	const slot = 500 * time.Millisecond
	var from time.Time
	in := int64(0)
	for {
		n, err := r.Read(b)
		now := time.Now()
		if d.Bytes += int64(n); d.First.IsZero() && n > 0 {
			d.First, from = now, now
			say("first")
		}
		in += int64(n)
		if took := now.Sub(from); took >= slot && !from.IsZero() {
			d.Rates = append(d.Rates, float64(in)/1e6/took.Seconds())
			from, in = now, 0
		}
		if err != nil {
			if d.Ended = now; err != io.EOF {
				d.End = err.Error()
			}
			say("ended")
			tell(d)
			<-untilToldTo()
			return nil
		}
	}
}

// playEcho sends back what comes.
func playEcho(t task) error {
	c, err := t.client()
	if err != nil {
		return err
	}
	r, err := c.OpenReader(context.Background(), t.Pipe+"-there")
	if err != nil {
		return err
	}
	w, err := c.OpenWriter(context.Background(), t.Pipe+"-back")
	if err != nil {
		return err
	}
	say("open")
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}

// playPing sends something and waits until it is back, and says how long that has taken.
func playPing(t task) error {
	c, err := t.client()
	if err != nil {
		return err
	}
	w, err := c.OpenWriter(context.Background(), t.Pipe+"-there")
	if err != nil {
		return err
	}
	r, err := c.OpenReader(context.Background(), t.Pipe+"-back")
	if err != nil {
		return err
	}
	b := make([]byte, 64)
	var all laps
	for end := time.Now().Add(t.Stint.For); len(all) < 2 || time.Now().Before(end); {
		began := time.Now()
		if _, err := w.Write(b); err != nil {
			return err
		}
		if _, err := io.ReadFull(r, b); err != nil {
			return err
		}
		if all = append(all, time.Since(began)); len(all) == 1 {
			say("first")
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	l := all[1:].lap()
	return tell(&l)
}

// A figure is measured at hosts of its own.
type figure struct {
	name string
	wire netrig.Conditions // when the brokers meet
	run  func(f *figures) (string, error)
}

// figures are those of the table in docs/MACHINES.md.
type figures struct {
	*region
	b      *bench
	number int
}

var allFigures = []figure{
	{"open of a remote end, links up", netrig.Conditions{Delay: 20 * time.Millisecond}, (*figures).opens},
	{"told that a process at the other end has died", calm, (*figures).deaths},
	{"dials between hosts", netrig.Conditions{Delay: 20 * time.Millisecond}, (*figures).dials},
	{"told that a host has died", calm, (*figures).hostDies},
	{"after a cut", calm, (*figures).heals},
	{"50 ms away, default settings and sysctls", netrig.Conditions{Delay: 25 * time.Millisecond}, (*figures).longWay},
	{"ping-pong beside bulk, 100 Mbit/s, 10 ms", netrig.Conditions{Delay: 5 * time.Millisecond, Rate: 12_500_000, Queue: 128 << 10}, (*figures).beside},
	{"50 KB/s, busy for a minute", netrig.Conditions{Delay: 20 * time.Millisecond, Rate: slowRate, Queue: slowRate}, (*figures).slowLink},
}

// measureMachines measures all of them.
func measureMachines(ctx context.Context, b *bench) (outcome, error) {
	var found []string
	which, brokers := allFigures, meshedBrokers
	if b.scale < 0.01 {
		which, brokers = which[:2], 5 // the others take longer
	}
	for i, x := range which {
		if ctx.Err() != nil {
			break
		}
		s, err := newRegionOf(2, true, x.wire.Rate == 0, 10*time.Second, x.wire)
		if errors.Is(err, errNoRegion) {
			return outcome{found: err.Error()}, nil
		}
		if err == nil {
			var said string
			s.net.Grep([]byte("figure-"))
			said, err = x.run(&figures{region: s, b: b, number: i})
			if n := s.net.Found(); n > 0 && err == nil {
				err = fmt.Errorf("%d packets had a pipe's name in them", n)
			}
			s.end()
			found = append(found, x.name+": "+said)
			fmt.Fprintln(os.Stderr, "  ", found[len(found)-1])
		}
		if err != nil {
			return outcome{int64(i), strings.Join(found, "<br>")}, fmt.Errorf("%s: %w", x.name, err)
		}
	}
	said, err := measureMeshed(brokers)
	if err != nil {
		return outcome{int64(len(found)), strings.Join(found, "<br>")}, fmt.Errorf("%d idle brokers: %w", brokers, err)
	}
	found = append(found, fmt.Sprintf("%d brokers of one process, all linked and idle: %s", brokers, said))
	found = append(found, "0 packets had a pipe's name in plain text")
	return outcome{int64(len(found)), strings.Join(found, "<br>")}, nil
}

// play starts a part on a host.
func (f *figures) play(host int, part, pipe string, x stint) (*child, error) {
	var broker string
	broker, x.KeyFile = f.at(host)
	return startChildAt(f.net.Host(host), task{Part: part, Broker: broker, Pipe: "figure-" + pipe, Stint: x})
}

// expect waits until a child says that.
func (c *child) expect(what string, limit time.Duration) (time.Time, error) {
	line, err := within(limit, "a process that says "+what, c.line)
	if err == nil && line != what {
		err = fmt.Errorf("it said %q, not %q", line, what)
	}
	return time.Now(), err
}

func (c *child) result(v any, limit time.Duration) error {
	line, err := within(limit, "a process that says what it has measured", c.line)
	if err == nil {
		err = json.Unmarshal([]byte(line), v)
	}
	return err
}

// pair starts both ends of a stream, the reader first, and waits until they have met.
func (f *figures) pair(pipe string, x stint) (source, sink *child, err error) {
	if sink, err = f.play(1, "sink", pipe, x); err != nil {
		return nil, nil, err
	}
	if _, err = sink.expect("open", patience); err == nil {
		if source, err = f.play(0, "source", pipe, x); err == nil {
			if _, err = source.expect("open", patience); err == nil {
				_, err = sink.expect("first", patience)
			}
		}
	}
	if err != nil {
		sink.kill()
		if source != nil {
			source.kill()
		}
	}
	return source, sink, err
}

// wire sets what all lanes are like.
func (f *figures) wire(c netrig.Conditions) { f.net.All(c) }

// calm is a wire that leaves the processors alone.
var calm = netrig.Conditions{Delay: 5 * time.Millisecond, Rate: 2 << 20, Queue: 128 << 10}

func (f *figures) opens() (string, error) {
	const trip = 40 * time.Millisecond
	var first float64
	var all laps
	for i := range int(2 + f.b.size(10)) {
		sink, err := f.play(1, "sink", fmt.Sprint("open", i), stint{})
		if err != nil {
			return "", err
		}
		defer sink.kill()
		if _, err := sink.expect("open", patience); err != nil {
			return "", err
		}
		time.Sleep(5 * trip) // until it is registered
		source, err := f.play(0, "opener", fmt.Sprint("open", i), stint{})
		if err != nil {
			return "", err
		}
		defer source.kill()
		var took time.Duration
		if err := source.result(&took, patience); err != nil {
			return "", err
		}
		if i == 0 {
			first = float64(took) / float64(trip)
		} else {
			all = append(all, took)
		}
	}
	slices.Sort(all)
	return fmt.Sprintf("p50 %.1f round trips of 40 ms, at worst %.1f; %.1f the first one, as soon as the two are linked (open, and Flush of a byte)",
		float64(all[len(all)/2])/float64(trip), float64(all[len(all)-1])/float64(trip), first), nil
}

func init() { parts["opener"] = playOpener }

// playOpener says how long it takes until a byte is confirmed whose reader is at another host.
func playOpener(t task) error {
	c, err := t.client()
	if err != nil {
		return err
	}
	if _, err := c.Ping(context.Background()); err != nil {
		return err
	}
	began := time.Now()
	w, err := c.OpenWriter(context.Background(), t.Pipe)
	if err == nil {
		_, err = w.Write([]byte("x"))
	}
	if err == nil {
		err = w.Flush()
	}
	took := time.Since(began)
	return errors.Join(err, tell(took), w.Close())
}

func (f *figures) deaths() (string, error) {
	var all laps
	for i := range int(f.b.size(20)) {
		source, sink, err := f.pair(fmt.Sprint("death", i), stint{Piece: 1 << 10, For: time.Minute})
		if err != nil {
			return "", err
		}
		defer sink.kill()
		began := time.Now()
		source.kill()
		told, err := sink.expect("ended", notice)
		if err != nil {
			return "", err
		}
		all = append(all, told.Sub(began))
	}
	l := all.lap()
	return fmt.Sprintf("p50 %v, at worst %v", brief(l.P50), brief(l.Most)), nil
}

// sees waits until a host's broker sees so many.
func (f *figures) sees(host, brokers int, limit time.Duration) (time.Time, error) {
	err := eventually(limit, fmt.Sprintf("%d brokers seen", brokers), func() bool {
		n, _, err := f.members(host)
		return err == nil && n == brokers
	})
	return time.Now(), err
}

func (f *figures) hostDies() (string, error) {
	source, sink, err := f.pair("host", stint{Piece: 1 << 10, For: time.Minute})
	if err != nil {
		return "", err
	}
	defer source.kill()
	defer sink.kill()
	began := time.Now()
	f.wire(netrig.Conditions{Cut: true})
	dead, err := f.sees(1, 1, notice)
	if err != nil {
		return "", err
	}
	told, err := sink.expect("ended", 20*time.Second)
	return fmt.Sprintf("the link is known to be dead after %v, the end is told after %v (patience 10 s)", brief(dead.Sub(began)), brief(told.Sub(began))), err
}

func (f *figures) heals() (string, error) {
	var members, meet, goOn laps
	for i := range 5 {
		f.wire(calm)
		source, sink, err := f.pair(fmt.Sprint("heal", i), stint{Piece: 4 << 10, For: 20 * time.Second})
		if err != nil {
			return "", err
		}
		defer source.kill()
		f.wire(netrig.Conditions{Cut: true})
		for host := range 2 {
			if _, err := f.sees(host, 1, notice); err != nil {
				return "", err
			}
		}
		late, err := f.play(1, "sink", fmt.Sprint("late", i), stint{})
		if err != nil {
			return "", err
		}
		defer late.kill()
		if _, err := late.expect("open", patience); err != nil {
			return "", err
		}
		opener, err := f.play(0, "opener", fmt.Sprint("late", i), stint{})
		if err != nil {
			return "", err
		}
		defer opener.kill()
		time.Sleep(time.Duration(f.b.rand.IntN(2000)) * time.Millisecond)
		passed := f.net.Lane(0, 1).Passed()
		began := time.Now()
		f.wire(calm)
		linked, err := f.sees(1, 2, notice)
		if err != nil {
			return "", err
		}
		if err := eventually(notice, "a stream that goes on", func() bool { return f.net.Lane(0, 1).Passed() > passed+64<<10 }); err != nil {
			return "", err
		}
		goOn = append(goOn, time.Since(linked))
		if _, err := late.expect("first", notice); err != nil {
			return "", err
		}
		meet, members = append(meet, time.Since(began)), append(members, linked.Sub(began))
		source.signal(syscall.SIGKILL)
		sink.kill()
	}
	worst := func(l laps) time.Duration { return l.lap().Most }
	return fmt.Sprintf("in five cuts at worst: members agree after %v, ends that wait meet after %v, streams go on %v behind that there is a link",
		brief(worst(members)), brief(worst(meet)), brief(worst(goOn))), nil
}

func (f *figures) longWay() (string, error) {
	source, sink, err := f.pair("long", stint{Piece: 64 << 10, For: 12 * time.Second})
	if err != nil {
		return "", err
	}
	defer source.kill()
	defer sink.kill()
	if _, err := sink.expect("ended", time.Minute); err != nil {
		return "", err
	}
	var d drain
	if err := sink.result(&d, patience); err != nil {
		return "", err
	}
	if d.End != "" {
		return "", errors.New(d.End)
	}
	best := slices.Sorted(slices.Values(d.Rates))
	if len(best) < 4 {
		return "", fmt.Errorf("%d bytes in all", d.Bytes)
	}
	return fmt.Sprintf("%.0f MB/s at best, p50 %.0f MB/s, in half seconds", best[len(best)-1], best[len(best)/2]), nil
}

func (f *figures) beside() (string, error) {
	const trip = 10 * time.Millisecond
	source, sink, err := f.pair("bulk", stint{Piece: 64 << 10, For: 25 * time.Second})
	if err != nil {
		return "", err
	}
	defer source.kill()
	defer sink.kill()
	echo, err := f.play(1, "echo", "ping", stint{})
	if err != nil {
		return "", err
	}
	defer echo.kill()
	if _, err := echo.expect("open", patience); err != nil {
		return "", err
	}
	ping, err := f.play(0, "ping", "ping", stint{For: 10 * time.Second})
	if err != nil {
		return "", err
	}
	defer ping.kill()
	if _, err := ping.expect("first", patience); err != nil {
		return "", err
	}
	var l lap
	if err := ping.result(&l, time.Minute); err != nil {
		return "", err
	}
	return fmt.Sprintf("p50 %.1f round trips, p99 %.1f", float64(l.P50)/float64(trip), float64(l.P99)/float64(trip)), nil
}

func (f *figures) slowLink() (string, error) {
	busy := time.Duration(float64(time.Minute) * f.b.scale)
	source, sink, err := f.pair("slow", stint{Piece: 16 << 10, For: busy})
	if err != nil {
		return "", err
	}
	defer source.kill()
	defer sink.kill()
	deaths := 0
	for end := time.Now().Add(busy); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		for host := range 2 {
			if n, _, err := f.members(host); err != nil {
				return "", err
			} else if n != 2 {
				deaths++
			}
		}
	}
	if _, err := sink.expect("ended", 2*time.Minute); err != nil {
		return "", err
	}
	var d drain
	if err := sink.result(&d, patience); err != nil {
		return "", err
	}
	if d.End != "" || deaths > 0 {
		return "", fmt.Errorf("%d times a broker was missing, and the stream ended with %q", deaths, d.End)
	}
	return fmt.Sprintf("nobody was taken for dead, and the stream came to its end (%.1f MB)", float64(d.Bytes)/1e6), nil
}
