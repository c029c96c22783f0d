package meet

import (
	"cmp"
	"slices"
	"time"
)

// A Thing is a kind of what is at one broker, or at several, and does not move; 0 is none. Things
// of the same name and different kinds have nothing to do with each other.
type Thing byte

// An Offering is a thing at a broker.
type Offering struct {
	Token Token
	At    Member
	First bool // a registrar has heard of it before it heard of any other that is there
}

// mostOffers is how many of one name are heard of.
const mostOffers = 4096

// A seeking is what a seeker has heard.
type seeking struct {
	answers [2]*answer // of its registrars; nil: of one that is out of reach, or there is no second
	asked   int        // how many registrars it has
	kept    []kept
	told    bool       // the host has been told
	all     []Offering // what it was told last
}

// An answer is what the registrar at the other end of a link has said.
type answer struct {
	by     *link
	whole  bool // it has told of all that it knew of then
	offers []Offering
}

// A kept is an offer that is taken to be there, though a registrar does not know of it any more.
type kept struct {
	Offering
	until time.Time
}

// Offer says that the thing of that name is at this broker, until Close. A broker offers it once at a
// time.
func (b *Broker) Offer(k Thing, name string, t Token, now time.Time) {
	b.add(&end{key: key{k, name}, token: t, role: Offerer}, now)
}

// Seek has the host told who offers the thing of that name, until Close: when one registrar has
// named somebody, or all have said that there is nobody; and at each change, when all have been
// heard. Only members count to which there is a link; and an offer of the broker's own, when all
// registrars know of it.
func (b *Broker) Seek(k Thing, name string, t Token, now time.Time) {
	b.add(&end{key: key{k, name}, token: t, role: Seeker, seeking: new(seeking)}, now)
}

// Knows says whether this member is one of those that are told who offers the thing of that name, and whether somebody
// does.
func (b *Broker) Knows(k Thing, name string) (told, offered bool) {
	first, second := b.registrars(hash(name), true)
	if first != b.self && second != b.self {
		return false, false
	}
	if l := b.names[key{k, name}]; l != nil {
		offered = slices.ContainsFunc(l.entries, func(e *entry) bool { return e.role == Offerer && e.by.up })
	}
	return true, offered
}

// ask forgets what was said by others than these registrars. What one has said by a link before is of no
// use: it has not been told what happened since.
func (b *Broker) ask(e *end, by [2]*link, two bool, now time.Time) {
	s := e.seeking
	var answers [2]*answer
	for i, l := range by {
		if l != nil {
			if answers[i] = s.of(l); answers[i] == nil {
				answers[i] = &answer{by: l}
			}
		}
	}
	for _, a := range s.answers {
		if a != nil && a != answers[0] && a != answers[1] {
			b.keep(e, now, a.offers...)
		}
	}
	s.answers, s.asked = answers, 1
	if two {
		s.asked = 2
	}
}

// keep has offers stay for a while of which a registrar knows no more.
func (b *Broker) keep(e *end, now time.Time, offers ...Offering) {
	for _, o := range offers {
		e.seeking.unkeep(o.Token)
		e.seeking.kept = append(e.seeking.kept, kept{o, now.Add(keepTime)})
		b.kept.push(now.Add(keepTime), e.token)
	}
}

func (s *seeking) unkeep(t Token) {
	s.kept = slices.DeleteFunc(s.kept, func(k kept) bool { return k.Token == t })
}

// expire forgets those that were kept for long enough.
func (b *Broker) expire(e *end, now time.Time) {
	if e != nil && e.seeking != nil {
		e.seeking.kept = slices.DeleteFunc(e.seeking.kept, func(k kept) bool { return !now.Before(k.until) })
		b.report(e)
	}
}

func (s *seeking) of(by *link) *answer {
	for _, a := range s.answers {
		if a != nil && a.by == by {
			return a
		}
	}
	return nil
}

// heard takes what a registrar says.
func (b *Broker) heard(by *link, r Record, now time.Time) {
	e := b.ends[r.Token]
	if e == nil || e.seeking == nil || e.key != r.key() {
		return
	}
	a := e.seeking.of(by)
	if a == nil {
		return
	}
	is := func(o Offering) bool { return o.Token == r.Other }
	i := slices.IndexFunc(a.offers, is)
	switch {
	case r.Kind == Gone && r.Over: // whatever others know
		e.seeking.unkeep(r.Other)
		for _, a := range e.seeking.answers {
			if a != nil {
				a.offers = slices.DeleteFunc(a.offers, is)
			}
		}
	case r.Kind == Gone && i >= 0:
		b.keep(e, now, a.offers[i])
		a.offers = slices.Delete(a.offers, i, i+1)
	case r.Kind == Gone:
	case r.Other == 0:
		a.whole = true
	case i < 0 && len(a.offers) < mostOffers:
		a.offers = append(a.offers, Offering{Token: r.Other, At: r.At})
	}
	b.report(e)
}

// report tells the host what is new to a seeker.
func (b *Broker) report(e *end) {
	s := e.seeking
	if s == nil {
		return
	}
	// What happens while there is no link is said by others when there is one again.
	s.kept = slices.DeleteFunc(s.kept, func(k kept) bool { return !b.linked(k.At) })
	whole := 0
	for _, a := range s.answers {
		if a != nil && a.whole && a.by.up {
			whole++
		}
	}
	if whole == 0 || whole < s.asked && s.told {
		return
	}
	var all []Offering
	add := func(o Offering, first bool) (added bool) {
		if added = b.linked(o.At); added {
			o.First = first
			all = append(all, o)
		}
		return added
	}
	for _, a := range s.answers {
		if a == nil || !a.by.up {
			continue
		}
		first := true
		for _, o := range a.offers {
			if add(o, first) {
				first = false
			}
		}
	}
	for _, k := range s.kept {
		add(k.Offering, false)
	}
	all = b.merge(s, all)
	if whole < s.asked && len(all) == 0 || s.told && slices.Equal(all, s.all) {
		return
	}
	s.told, s.all = true, all
	b.host.Offers(e.token, all)
}

func (b *Broker) linked(m Member) bool {
	p := b.peers[m]
	return p != nil && p.link != nil
}

// merge makes one of those that several registrars know.
func (b *Broker) merge(s *seeking, all []Offering) (merged []Offering) {
	slices.SortFunc(all, func(x, y Offering) int { return cmp.Compare(x.Token, y.Token) })
	for i := 0; i < len(all); {
		o, n := all[i], 0
		for ; i < len(all) && all[i].Token == o.Token; i++ {
			o.First = o.First || all[i].First
			n++
		}
		told := func(x Offering) bool { return x.Token == o.Token }
		if o.At != b.self.id || b.ends[o.Token] != nil && (n >= s.asked || slices.ContainsFunc(s.all, told)) {
			merged = append(merged, o)
		}
	}
	return merged
}

// announce tells seekers that an offer has come or gone, and a new one all that there are.
func (b *Broker) announce(e *entry, r Record, now time.Time) {
	if e.in.thing == 0 || e.role == Seeker && r.Kind == Gone {
		return
	}
	r.Thing, r.Name, r.Role = e.in.thing, e.in.name, Seeker
	tell := func(s *entry, o Offering) {
		if s.by.up {
			r.Token, r.Other, r.At = s.token, o.Token, o.At
			b.send(s.by, r, now)
		}
	}
	for _, x := range e.in.entries {
		switch {
		case e.role == Offerer && x.role == Seeker:
			tell(x, Offering{Token: e.token, At: e.by.to})
		case e.role == Seeker && x.role == Offerer && x.by.up:
			tell(e, Offering{Token: x.token, At: x.by.to})
		}
	}
	if e.role == Seeker {
		tell(e, Offering{})
	}
}
