package zpipes

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// What a port does, said with slices.

type modelPort struct {
	listeners []*modelListener
	turns     []*modelListener // that wait: who is next
	waiting   []*modelDial     // the oldest first
}

type modelListener struct {
	port    *modelPort
	real    *listener
	accepts []*modelAccept // that wait, in order
	closed  bool
}

type modelAccept struct {
	listener *modelListener
	real     *accepting
	woken    int
	gets     *modelDial
	over     bool // its listener is closed
}

type modelDial struct {
	port     *modelPort
	real     *duplex
	number   int
	woken    int
	told     bool
	failed   bool
	taken    bool // somebody has accepted it
	shown    bool // and knows that
	dead     bool // turned away after it had succeeded
	wrote    bool // the writing end has left, in order or not
	tore     bool
	read     bool
	entered  bool // the ends of who accepts are attached
	accepted *modelListener
	left     [2]bool // of them, by role
}

func (d *modelDial) gone() bool { return d.wrote && (d.tore || d.read) }

type duplexWorld struct {
	t       *testing.T
	r       *rand.Rand
	g       *registry
	ports   map[string]*modelPort
	listens []*modelListener
	dials   []*modelDial
	accepts []*modelAccept
	made    int
	trace   []string
	count   map[string]int
}

const worldBacklog = 2

func (w *duplexWorld) does(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
	w.count[strings.Fields(format)[0]]++
}

func (w *duplexWorld) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\nafter:\n%s", fmt.Sprintf(format, args...), strings.Join(w.trace[max(0, len(w.trace)-30):], "\n"))
}

// place is where a connection goes that nobody accepts just now.
func (p *modelPort) place(d *modelDial, again bool) {
	d.accepted = nil
	switch {
	case len(p.turns) > 0:
		l := p.turns[0]
		p.turns = p.turns[1:]
		a := l.accepts[0]
		l.accepts = l.accepts[1:]
		if len(l.accepts) > 0 {
			p.turns = append(p.turns, l)
		}
		a.get(d)
	case again:
		p.waiting = append([]*modelDial{d}, p.waiting...)
	default:
		p.waiting = append(p.waiting, d)
	}
	p.tell()
}

func (p *modelPort) tell() {
	for _, d := range p.waiting[:min(worldBacklog, len(p.waiting))] {
		d.told = true
	}
}

func (a *modelAccept) get(d *modelDial) {
	a.gets, d.told, d.accepted = d, true, a.listener
}

// again is place of one that had been given to somebody.
func (d *modelDial) again() {
	switch d.taken = false; {
	case len(d.port.listeners) == 0, d.gone():
		d.dead = true
	default:
		d.port.place(d, true)
	}
}

// leaves is what follows where the dialler has given a connection up.
func (w *duplexWorld) leaves(d *modelDial) {
	p := d.port
	if !d.gone() || d.taken || d.failed || d.dead {
		return
	}
	d.failed, d.dead = !d.told, d.told
	if i := slices.Index(p.waiting, d); i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
		p.tell()
		return
	}
	a := w.accepts[slices.IndexFunc(w.accepts, func(a *modelAccept) bool { return a.gets == d })]
	a.gets = nil
	if l := a.listener; l.closed {
		a.over = true
	} else if len(p.waiting) > 0 {
		next := p.waiting[0]
		p.waiting = p.waiting[1:]
		a.get(next)
		p.tell()
	} else if l.accepts = append([]*modelAccept{a}, l.accepts...); len(l.accepts) == 1 {
		p.turns = append(p.turns, l)
	}
}

func pick[T any](r *rand.Rand, of []T, f func(T)) {
	if len(of) > 0 {
		f(of[r.IntN(len(of))])
	}
}

func (w *duplexWorld) step() {
	r := w.r
	name := []string{"a", "b"}[r.IntN(2)]
	p := w.ports[name]
	if p == nil {
		p = &modelPort{}
		w.ports[name] = p
	}
	switch k := r.IntN(100); {
	case k < 6 && len(w.listens) < 4:
		w.does("listen %s", name)
		real, why := w.g.listen(name, Access{PID: len(w.listens)}, born)
		if why != nil {
			w.fail("listening: %+v", why)
		}
		l := &modelListener{port: p, real: real}
		p.listeners, w.listens = append(p.listeners, l), append(w.listens, l)
	case k < 9:
		pick(r, w.listens, w.quit)
	case k < 30:
		pick(r, w.listens, w.accept)
	case k < 40:
		pick(r, w.accepts, func(a *modelAccept) {
			w.does("forgo")
			w.g.forgo(a.real)
			w.drop(a)
			if d := a.gets; d != nil {
				d.again()
			} else if i := slices.Index(a.listener.accepts, a); i >= 0 {
				l := a.listener
				if l.accepts = slices.Delete(l.accepts, i, i+1); len(l.accepts) == 0 {
					q := l.port
					q.turns = slices.DeleteFunc(q.turns, func(x *modelListener) bool { return x == l })
				}
			}
		})
	case k < 60:
		pick(r, w.accepts, w.enter)
	case k < 80 && len(w.dials) < 12:
		w.dial(name, p)
	case k < 86:
		pick(r, w.dials, func(d *modelDial) {
			tears := r.IntN(2) == 0 || !d.shown // nobody closes in order what is not delivered
			w.departs(d, r.IntN(3), tears)
		})
	case k < 90:
		pick(r, w.dials, func(d *modelDial) {
			if d.entered && !d.shown {
				w.does("show %d", d.number)
				d.shown = true
				d.real.forth.mu.Lock()
				d.real.forth.show(reader)
				if d.tore {
					d.real.forth.mu.Unlock()
					return
				}
				if got := string(d.real.forth.buf.head.data()); got != fmt.Sprint(d.number) {
					w.fail("dial %d sent %q", d.number, got)
				}
				d.real.forth.mu.Unlock()
			}
		})
	case k < 95:
		pick(r, w.dials, func(d *modelDial) {
			if d.entered && !d.shown {
				w.does("takeback %d", d.number)
				d.entered = false
				w.g.takeBack(d.real)
				d.again()
			}
		})
	default:
		pick(r, w.dials, func(d *modelDial) { w.partsWith(d) })
	}
}

func (w *duplexWorld) quit(l *modelListener) {
	w.does("quit")
	w.g.quit(l.real, listenerClosed)
	p := l.port
	l.closed = true
	for _, a := range l.accepts {
		a.over = true
	}
	l.accepts = nil
	is := func(x *modelListener) bool { return x == l }
	p.turns, p.listeners = slices.DeleteFunc(p.turns, is), slices.DeleteFunc(p.listeners, is)
	w.listens = slices.DeleteFunc(w.listens, is)
	if len(p.listeners) > 0 {
		return
	}
	for _, d := range p.waiting {
		d.failed, d.dead = !d.told, d.told
	}
	p.waiting = nil
	for name, q := range w.ports {
		if q == p {
			delete(w.ports, name)
		}
	}
}

func (w *duplexWorld) accept(l *modelListener) {
	w.does("accept")
	a := &modelAccept{listener: l}
	a.real = w.g.accept(l.real, func() { a.woken++ })
	w.accepts = append(w.accepts, a)
	if p := l.port; len(p.waiting) > 0 {
		d := p.waiting[0]
		p.waiting = p.waiting[1:]
		a.get(d)
		p.tell()
	} else if l.accepts = append(l.accepts, a); len(l.accepts) == 1 {
		p.turns = append(p.turns, l)
	}
}

func (w *duplexWorld) drop(a *modelAccept) {
	w.accepts = slices.DeleteFunc(w.accepts, func(x *modelAccept) bool { return x == a })
}

func (w *duplexWorld) enter(a *modelAccept) {
	w.does("enter")
	d, why, done := w.g.enterAccepted(a.real, func(in, out *pipe) {
		in.propose(reader, nil)
		out.propose(writer, nil)
	})
	switch {
	case a.gets != nil:
		if !done || why != nil || d != a.gets.real {
			w.fail("Accept gets %v, %+v, %v, want dial %d", d, why, done, a.gets.number)
		}
		a.gets.taken, a.gets.entered, a.gets.shown, a.gets.left = true, true, false, [2]bool{}
		w.drop(a)
	case a.over:
		if why == nil || !done {
			w.fail("an Accept of a closed listener: %v, %+v, %v", d, why, done)
		}
		w.drop(a)
	case done:
		w.fail("an Accept that should wait gets %v, %+v", d, why)
	}
}

func (w *duplexWorld) dial(name string, p *modelPort) {
	w.made++
	d := &modelDial{port: p, number: w.made}
	real, why := w.g.dial(name, Access{PID: d.number}, func() { d.woken++ }, func(in, out *pipe) {
		in.attach(reader, nil)
		out.openWindow(100)
		out.attach(writer, nil)
	}, born)
	if len(p.listeners) == 0 {
		w.does("refused")
		if why == nil || why.code != causeNoListener || real != nil {
			w.fail("a dial where nobody listens: %v, %+v", real, why)
		}
		return
	}
	w.does("dial %d", d.number)
	if why != nil {
		w.fail("dial: %+v", why)
	}
	d.real = real
	real.forth.mu.Lock()
	real.forth.write([]byte(fmt.Sprint(d.number)))
	real.forth.mu.Unlock()
	w.dials = append(w.dials, d)
	p.place(d, false)
}

// departs has the dialler's writing end leave, its reading end, or both.
func (w *duplexWorld) departs(d *modelDial, which int, tears bool) {
	w.does("depart %d: %d, torn %v", d.number, which, tears)
	if which != 1 && !d.wrote {
		why := cause{}
		if tears {
			why.code = causeVanished
		}
		d.wrote, d.tore = true, tears
		w.g.depart(d.real.forth, writer, why)
		w.leaves(d)
	}
	if which != 0 && !d.read {
		d.read = true
		w.g.depart(d.real.back, reader, cause{})
		w.leaves(d)
	}
}

// partsWith has the ends leave of who has accepted.
func (w *duplexWorld) partsWith(d *modelDial) {
	if !d.entered || !d.shown {
		return
	}
	w.does("part %d", d.number)
	for r, x := range []*pipe{reader: d.real.forth, writer: d.real.back} {
		if !d.left[r] {
			d.left[r] = true
			w.g.depart(x, role(r), cause{})
		}
	}
}

// holds wants the registry to be as the model says.
func (w *duplexWorld) holds() {
	for _, d := range w.dials {
		why, done := w.g.dialled(d.real)
		if (why != nil) != d.failed || done != (d.told || d.failed) {
			w.fail("dial %d: %+v, %v, want told %v, failed %v", d.number, why, done, d.told, d.failed)
		}
		if done && d.woken == 0 && !(d.wrote && d.read) {
			w.fail("dial %d was not woken", d.number)
		}
		if who := d.real.accepted.Load(); (who != nil) != (d.accepted != nil && !d.dead) || who != nil && who != &d.accepted.real.who {
			w.fail("dial %d was accepted by %+v", d.number, who)
		}
		if !d.read && d.real.back.writer.left != (d.dead || d.failed || d.left[writer]) {
			w.fail("dial %d: its reader sees the end: %v", d.number, d.real.back.writer.left)
		}
	}
	for _, a := range w.accepts {
		var want *duplex
		if a.gets != nil {
			want = a.gets.real
		}
		if a.real.duplex != want || (a.real.why != nil) != a.over {
			w.fail("an Accept has %v, %+v, want %v, over %v", a.real.duplex, a.real.why, want, a.over)
		}
	}
	for name, p := range w.ports {
		info, is := w.g.lookUp(name, born)
		want := PipeInfo{Name: name, Mode: ModeListener, Listeners: len(p.listeners), Waiting: len(p.waiting), Reads: len(p.turns) > 0, Writes: len(p.waiting) > 0}
		info.Connections = 0
		if is != (len(p.listeners) > 0) || is && info != want {
			w.fail("%q is %+v, %v, want %+v", name, info, is, want)
		}
	}
}

func TestDuplexBehavesAsItsModel(t *testing.T) {
	count := make(map[string]int)
	for seed := range uint64(300) {
		w := &duplexWorld{t: t, r: scripted(seed), g: newRegistry(1000, 100, 100), ports: make(map[string]*modelPort), count: count}
		w.g.backlog = worldBacklog
		w.does("seed %d", seed)
		for range 300 {
			w.step()
			w.holds()
		}
		for _, d := range w.dials {
			w.departs(d, 2, true)
			d.shown = true
			w.partsWith(d)
		}
		for len(w.listens) > 0 {
			w.quit(w.listens[0])
		}
		w.holds()
		if g := w.g; g.names.n > 0 || deadOf(g) > 0 || g.halves != 0 || g.waits.Load() != 1 {
			w.fail("%d ports, %d pipes, %d of them counted, and %d readers are left", g.names.n, deadOf(g), g.halves, g.waits.Load()-1)
		}
	}
	for _, what := range []string{"refused", "takeback", "forgo", "enter", "part", "show"} {
		if count[what] < 100 {
			t.Errorf("%q was done %d times: the test sees little of it", what, count[what])
		}
	}
}
