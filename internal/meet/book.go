package meet

import "time"

// A listing is what a registrar knows of one name.
type listing struct {
	name    string
	entries []*entry // at most two of each member's, since a broker has one reader and one writer of a name
}

// An entry is one end in it.
type entry struct {
	token   Token
	role    Role
	matched bool
	beaten  time.Time // since when it can't stay; zero: it can
	by      *link
	in      *listing
	place   place[entry]
}

// enter adds an end, or takes note of its state.
func (b *Broker) enter(by *link, r Record, now time.Time) {
	l := b.names[r.Name]
	if l == nil {
		l = &listing{name: r.Name}
		b.names[r.Name] = l
	}
	e := l.find(r.Token)
	if e != nil && e.by != by { // the link by which it came before is no more, or it would be another's token
		b.take(e)
		e = nil
	}
	if e == nil {
		e = &entry{token: r.Token, role: r.Role, by: by, in: l}
		e.place.of = e
		l.entries = append(l.entries, e)
		by.entries.push(&e.place)
	}
	e.matched, e.beaten = r.Matched, time.Time{} // a contest begins anew
	b.judge(l, now)
}

// leave takes out an end, if it came by that link.
func (b *Broker) leave(by *link, r Record, now time.Time) {
	if l := b.names[r.Name]; l != nil {
		if e := l.find(r.Token); e != nil && e.by == by {
			b.remove(e, now)
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

// remove takes an end out. It may be another's turn.
func (b *Broker) remove(e *entry, now time.Time) {
	b.take(e)
	if l := e.in; len(l.entries) > 0 {
		b.judge(l, now)
	} else {
		delete(b.names, l.name)
	}
}

func (b *Broker) take(e *entry) {
	e.by.entries.remove(&e.place)
	l := e.in
	for i, x := range l.entries {
		if x == e {
			last := len(l.entries) - 1
			l.entries[i] = l.entries[last]
			l.entries[last] = nil
			l.entries = l.entries[:last]
			return
		}
	}
}

// judge has a reader and a writer meet that both wait, and sees whether there are two of one
// kind.
func (b *Broker) judge(l *listing, now time.Time) {
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
		if f := first[e.role]; !e.matched && (f == nil || e.token < f.token) {
			first[e.role] = e
		}
	}
	if r, w := first[Reader], first[Writer]; r != nil && w != nil && r.by != w.by {
		b.send(w.by, Record{Kind: Match, Name: l.name, Role: Writer, Token: w.token, Other: r.token, At: r.by.to}, now)
	}
}

// better is an end because of which e can't stay; nil: it can.
func (l *listing) better(e *entry) *entry {
	if e.matched {
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
