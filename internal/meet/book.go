package meet

import (
	"slices"
	"time"
)

// A key is a name, and of what: a thing, or, with 0, a stream.
type key struct {
	thing Thing
	name  string
}

func (r *Record) key() key { return key{r.Thing, r.Name} }

// A listing is what a registrar knows of one name.
type listing struct {
	key
	entries []*entry // in the order in which they came; at most one of each role by each link
	few     [2]*entry
}

// An entry is one end in it.
type entry struct {
	token   Token
	role    Role
	matched bool
	many    bool
	beaten  time.Time // since when it can't stay; zero: it can
	by      *link
	in      *listing
	place   place[entry]
}

// enter adds an end or a thing, or takes note of its state.
func (b *Broker) enter(by *link, r Record, now time.Time) {
	l := b.names[r.key()]
	if l == nil {
		l = &listing{key: r.key()}
		l.entries = l.few[:0] // mostly there are no more
	}
	e := l.find(r.Token)
	if e == nil || e.by != by || e.role != r.Role {
		if e != nil && e.by.up || by.entered >= mostEntries { // it is another's token
			return
		}
		if len(l.entries) == 0 {
			b.names[l.key] = l
		}
		b.take(e, false, now) // the link by which it came before is no more
		b.take(l.of(by, r.Role), true, now)
		e = &entry{token: r.Token, role: r.Role, many: r.Many && r.Role == Writer, by: by, in: l}
		e.place.of = e
		l.entries = append(l.entries, e)
		by.entries.push(&e.place)
		by.entered++
		b.announce(e, Record{Kind: Found}, now)
	}
	e.matched, e.beaten = r.Matched, time.Time{} // a contest begins anew
	b.judge(l, now)
}

// leave takes out an end, if it came by that link.
func (b *Broker) leave(by *link, r Record, now time.Time) {
	if l := b.names[r.key()]; l != nil {
		if e := l.find(r.Token); e != nil && e.by == by {
			b.remove(e, r.Over, now)
		}
	}
}

func (l *listing) find(t Token) *entry {
	for _, e := range l.entries {
		if e.token == t {
			return e
		}
	}
	return nil
}

// of is the entry of that role that came by that link.
func (l *listing) of(by *link, r Role) *entry {
	for _, e := range l.entries {
		if e.by == by && e.role == r {
			return e
		}
	}
	return nil
}

// remove takes an end out. It may be another's turn.
func (b *Broker) remove(e *entry, over bool, now time.Time) {
	b.take(e, over, now)
	if l := e.in; len(l.entries) > 0 {
		b.judge(l, now)
	} else {
		delete(b.names, l.key)
	}
}

func (b *Broker) take(e *entry, over bool, now time.Time) {
	if e == nil {
		return
	}
	e.by.entries.remove(&e.place)
	e.by.entered--
	b.announce(e, Record{Kind: Gone, Over: over}, now)
	l := e.in
	i := slices.Index(l.entries, e)
	l.entries = slices.Delete(l.entries, i, i+1)
}

// judge has a reader and a writer meet that both wait, and sees whether there are two of one
// kind.
func (b *Broker) judge(l *listing, now time.Time) {
	if l.thing != 0 {
		return
	}
	var first [2]*entry
	for _, e := range l.entries {
		if !e.by.up {
			continue
		}
		switch {
		case l.better(e) == nil:
			e.beaten = time.Time{}
		case e.beaten.IsZero():
			e.beaten = now
			b.contests.push(now.Add(contestTime), l)
		}
		if f := first[e.role]; (!e.matched || e.many) && (f == nil || e.before(f)) {
			first[e.role] = e
		}
	}
	r, w := first[Reader], first[Writer]
	if r == nil || w == nil {
		return
	}
	for _, e := range l.entries {
		if (e == r || w.many) && e.role == Reader && e.by.up && !e.matched && e.by != w.by {
			b.send(w.by, Record{Kind: Match, Name: l.name, Role: Writer, Token: w.token, Other: e.token, At: e.by.to}, now)
		}
	}
}

// before says that e comes before another one that waits. Of writers that take all readers, one
// that has some does, since it stays.
func (e *entry) before(f *entry) bool {
	if e.matched != f.matched {
		return e.matched
	}
	return e.token < f.token
}

// takesAll says that there is a writer that takes all readers.
func (l *listing) takesAll() bool {
	return slices.ContainsFunc(l.entries, func(e *entry) bool { return e.many && e.by.up })
}

// better is an end because of which e can't stay; nil: it can.
func (l *listing) better(e *entry) *entry {
	if e.matched || e.role == Reader && l.takesAll() {
		return nil
	}
	for _, x := range l.entries {
		if x != e && x.role == e.role && x.by.up && (x.matched || x.token < e.token) {
			return x
		}
	}
	return nil
}

// decide tells those who can't stay, and have not been able to for long enough. One that is
// attaching just now takes no notice, and will be heard of.
func (b *Broker) decide(l *listing, now time.Time) {
	for _, e := range l.entries {
		if e.beaten.IsZero() || !e.by.up || now.Before(e.beaten.Add(contestTime)) {
			continue
		}
		if x := l.better(e); x != nil {
			b.send(e.by, Record{Kind: Conflict, Name: l.name, Role: e.role, Token: e.token, At: x.by.to}, now)
		}
	}
}
