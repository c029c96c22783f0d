package meet

import (
	"slices"
	"time"
)

const (
	simThings = 3 // names
	simKinds  = 2 // of things of each name
	// settled is how long it takes at the most until all brokers that can see each other do.
	settled = 20 * time.Second
)

// A simThing is what a broker offers or seeks. Whatever happens,
//
//   - who seeks is told exactly who offers, as soon as all see each other again;
//   - nobody is named that there is no link to;
//   - where there is one trouble at a time, nobody is said to be gone, or not to be there, who has been
//     there, and linked with the one who seeks, for some time (if halves have met, those who have
//     sought for some time); and nobody to be there who has withdrawn some time ago;
//   - a broker's own offer stays, once it was named;
//   - where nothing breaks, who seeks is told within a round trip.
type simThing struct {
	at             *node
	key            key
	role           Role
	token          Token
	opened, closed time.Duration // closed 0: it is open
	told           bool
	all            []Offering
}

// actThings has somebody offer or seek something, or not any more.
func (w *world) actThings() {
	if w.now > simLength {
		return
	}
	w.after(w.upTo(400*time.Millisecond), w.actThings)
	n := w.slots[w.r.IntN(simSlots)]
	if !n.up {
		return
	}
	k := key{Thing(1 + w.r.IntN(simKinds)), string('q' + rune(w.r.IntN(simThings)))}
	r := Offerer + Role(w.r.IntN(2))
	i := slices.IndexFunc(w.things, func(x *simThing) bool { return x.at == n && x.key == k && x.role == r && x.closed == 0 })
	switch {
	case i < 0:
		n.begin(k, r)
	case w.r.IntN(3) > 0:
	case r == Offerer:
		w.count["withdrawn"]++
		w.things[i].stop()
	default:
		w.count["sought no more"]++
		w.things[i].stop()
		if w.r.IntN(2) == 0 {
			w.count["sought again"]++
			n.begin(k, r)
		}
	}
}

func (n *node) begin(k key, r Role) {
	w := n.w
	x := &simThing{at: n, key: k, role: r, token: Token(w.r.Uint64()), opened: w.now}
	w.things = append(w.things, x)
	w.note("%d: %v role %d: %x", n.slot, k, r, x.token>>48)
	if r == Offerer {
		n.b.Offer(k.thing, k.name, x.token, w.time())
	} else {
		n.b.Seek(k.thing, k.name, x.token, w.time())
	}
	n.wake()
}

func (x *simThing) stop() {
	w := x.at.w
	w.note("%d: %v role %d: %x ends", x.at.slot, x.key, x.role, x.token>>48)
	x.closed = w.now
	x.at.b.Close(x.token, w.time())
	x.at.wake()
}

// trouble is all that there is in a gentle world: a broker that crashes, or two halves for some time.
func (w *world) trouble() {
	switch {
	case w.now > simLength:
		return
	case w.r.IntN(2) == 0:
		w.slots[w.r.IntN(simSlots)].crash()
	default:
		w.halved = true
		w.halve()
		w.after(settled, func() { w.cut = [simSlots][simSlots]bool{} })
	}
	w.after(2*settled, w.trouble)
}

// halve makes two halves.
func (w *world) halve() {
	m := w.r.Uint64()
	for i := range simSlots {
		for j := range i {
			if m>>i&1 != m>>j&1 {
				w.part(i, j)
			}
		}
	}
}

// Offers is the Host's.
func (n *node) Offers(t Token, all []Offering) {
	w := n.w
	i := slices.IndexFunc(w.things, func(x *simThing) bool { return x.token == t })
	x := w.things[i]
	w.note("%d is told of %v, %x: %v", n.slot, x.key, t>>48, all)
	switch {
	case x.closed != 0:
		w.fail("%d is told of %v, and does not want to know", n.slot, x.key)
	case x.told && slices.Equal(all, x.all):
		w.fail("%d is told of %v twice", n.slot, x.key)
	case !x.told && w.calm:
		if w.answers = append(w.answers, w.now-x.opened); w.now-x.opened > 2*(simLatest+time.Millisecond) {
			w.fail("%d is told of %v after %v", n.slot, x.key, w.now-x.opened)
		}
	}
	for _, o := range bare(x.all) {
		if o.At == n.id && w.offers(n, o.Token) && !slices.Contains(bare(all), o) {
			w.fail("%d is told that it does not have %v itself, which it has", n.slot, x.key)
		}
	}
	early := !x.told && len(all) > 0 // one registrar may not have answered yet
	x.told, x.all = true, all
	if w.count["told where"]++; len(all) == 0 {
		w.count["told where"]--
		w.count["told that nobody has it"]++
	}
	first := 0
	for _, o := range all {
		if o.First {
			first++
		}
		if o.At != n.id && !slices.Contains(n.to[:], o.At) {
			w.fail("%d is told that %v is at one that there is no link to", n.slot, x.key)
		}
	}
	if first > 2 {
		w.fail("%d is told of %v, and that %d were the first with two registrars", n.slot, x.key, first)
	}
	if w.calm || w.gentle {
		w.plausible(x, early)
	}
}

// offers says that a broker does.
func (w *world) offers(n *node, t Token) bool {
	return slices.ContainsFunc(w.things, func(x *simThing) bool { return x.at == n && x.token == t && x.closed == 0 })
}

// plausible checks what is told where there is one trouble at a time.
func (w *world) plausible(x *simThing, early bool) {
	late := settled // the registrars may go before they hear, or say so
	if w.calm {
		late = time.Second
	}
	if w.halved && x.opened+late >= w.now { // it has not heard of those that were there before
		early = true
	}
	for _, o := range w.things {
		if o.role != Offerer || o.key != x.key || o.at == x.at || w.cut[x.at.slot][o.at.slot] {
			continue
		}
		linked, since := x.at.to[o.at.slot] == o.at.id, x.at.since[o.at.slot]
		steady := o.closed == 0 && linked && (since == 0 || w.now >= since+settled)
		is := slices.Contains(bare(x.all), Offering{Token: o.token, At: o.at.id})
		if steady && !is && !early && o.opened+late < w.now {
			w.fail("%d is told of %v, and not that %d has it", x.at.slot, x.key, o.at.slot)
		}
		if gone := o.closed != 0 && o.at.up; gone && is && o.closed+late < w.now {
			w.fail("%d is told that %d has %v, which has none any more", x.at.slot, o.at.slot, x.key)
		}
	}
}

// bare is without what comes by the order in which registrars have heard.
func bare(all []Offering) []Offering {
	all = slices.Clone(all)
	for i := range all {
		all[i].First = false
	}
	return all
}

// offered is what is offered, as who seeks it should know.
func (w *world) offered(k key) (all []Offering) {
	for _, o := range w.things {
		if o.role == Offerer && o.key == k && o.closed == 0 {
			all = append(all, Offering{Token: o.token, At: o.at.id})
		}
	}
	slices.SortFunc(all, func(x, y Offering) int {
		if x.Token < y.Token {
			return -1
		}
		return 1
	})
	return all
}

// restThings checks what must hold when all have seen each other for long enough.
func (w *world) restThings() {
	open := make(map[Token]bool)
	for _, x := range w.things {
		if x.closed != 0 {
			continue
		}
		open[x.token] = true
		if len(x.all) > 0 && !slices.ContainsFunc(x.all, func(o Offering) bool { return o.First }) {
			w.fail("nobody was the first to have %v", x.key)
		}
		if want := w.offered(x.key); x.role == Seeker && (!x.told || !slices.Equal(bare(x.all), want)) {
			w.fail("%d seeks %v, and knows of %v (told: %v), where there are %v", x.at.slot, x.key, x.all, x.told, want)
		}
	}
	for _, n := range w.slots {
		if !n.up {
			continue
		}
		entries := 0
		for k, l := range n.b.names {
			entries += len(l.entries)
			for _, e := range l.entries {
				if k.thing != 0 && !open[e.token] {
					w.fail("%d knows of %v, %x, which is gone", n.slot, k, e.token>>48)
				}
			}
		}
		for _, p := range n.b.peers {
			if p.link != nil {
				entries -= p.link.entered
			}
		}
		if entries != 0 {
			w.fail("%d has miscounted what members have by %d", n.slot, entries)
		}
	}
}
