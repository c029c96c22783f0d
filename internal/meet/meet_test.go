package meet

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// A plain is a few brokers whose records arrive at once.
type plain struct {
	busy    Member
	t       *testing.T
	now     time.Time
	brokers map[Member]*Broker
	linked  map[[2]Member]bool
	posted  []func()
	records int
	said    []string
	told    []string // of who has been told of all
}

type plainHost struct {
	*plain
	self Member
}

func newPlain(t *testing.T, n int) *plain {
	p := &plain{t: t, now: epoch, brokers: make(map[Member]*Broker), linked: make(map[[2]Member]bool)}
	var all []Member
	for m := Member(1); m <= Member(n); m++ {
		p.brokers[m] = New(m, plainHost{p, m})
		all = append(all, m)
	}
	for _, m := range all {
		p.brokers[m].View(all)
		for _, o := range all {
			if o < m {
				p.link(m, o, true)
			}
		}
	}
	p.settle()
	return p
}

func (p *plain) link(m, o Member, up bool) {
	p.linked[[2]Member{m, o}], p.linked[[2]Member{o, m}] = up, up
	if up {
		p.brokers[m].LinkUp(o, true)
		p.brokers[o].LinkUp(m, true)
	} else {
		p.brokers[m].LinkDown(o)
		p.brokers[o].LinkDown(m)
	}
}

func (h plainHost) Send(to Member, r Record) {
	h.records++
	h.posted = append(h.posted, func() {
		if h.linked[[2]Member{h.self, to}] {
			h.brokers[to].Receive(h.self, r, h.now)
			if r.Kind == Told {
				h.told = append(h.told, fmt.Sprintf("%d knows %d names of %d", to, len(h.brokers[to].names), h.self))
			}
		}
	})
}

func (h plainHost) Busy(to Member) bool { return h.busy == to }

func (h plainHost) Attach(writer, reader Token, at Member) {
	h.said = append(h.said, fmt.Sprintf("%d at %d attaches to %d at %d", writer, h.self, reader, at))
}

func (h plainHost) Conflict(end Token, at Member) {
	h.said = append(h.said, fmt.Sprintf("%d at %d goes for one at %d", end, h.self, at))
}

func (h plainHost) Offers(seeker Token, all []Offering) {
	h.said = append(h.said, fmt.Sprintf("%d at %d finds %v", seeker, h.self, all))
}

func (p *plain) settle() {
	for again := true; again; {
		again = len(p.posted) > 0
		if again {
			do := p.posted[0]
			p.posted = p.posted[1:]
			do()
		}
		for _, b := range p.brokers {
			if at, ok := b.Next(); ok && !at.After(p.now) {
				b.Step(p.now)
				again = true
			}
		}
	}
}

func (p *plain) want(said ...string) {
	p.t.Helper()
	p.settle()
	if !slices.Equal(p.said, said) {
		p.t.Errorf("%q, want %q", p.said, said)
	}
	p.said = nil
}

// apart returns a name of which neither broker is a registrar, and the registrars.
func (p *plain) apart(brokers ...Member) (name string, first, second Member) {
	for i := 0; ; i++ {
		name = fmt.Sprint("name ", i)
		f, s := p.brokers[brokers[0]].registrars(hash(name), false)
		if !slices.Contains(brokers, f.id) && !slices.Contains(brokers, s.id) {
			return name, f.id, s.id
		}
	}
}

// A registrar for which much waits hears of ends later, once, and of those that are still there.
func TestRegistrarThatIsBusy(t *testing.T) {
	p := newPlain(t, 3)
	var names []string // of which 2 is a registrar
	for i := 0; len(names) < 3; i++ {
		name := fmt.Sprint("name ", i)
		if f, s := p.brokers[1].registrars(hash(name), false); f.id == 2 || s.id == 2 {
			names = append(names, name)
		}
	}
	p.busy = 2
	for i, name := range names {
		p.brokers[1].Open(name, Reader, Token(i+1), false, p.now)
		p.settle()
	}
	p.brokers[1].Close(2, p.now)
	p.now = p.now.Add(lateAfter)
	p.settle()
	if n := len(p.brokers[2].names); n != 0 {
		t.Errorf("it knows of %d ends while it is busy", n)
	}
	p.busy = 0
	p.now = p.now.Add(lateAfter)
	p.settle()
	if n := len(p.brokers[2].names); n != 2 {
		t.Errorf("it knows of %d ends", n)
	}
	if _, ok := p.brokers[1].Next(); ok {
		t.Error("there is still something to be done")
	}
}

func TestReaderAndWriterMeet(t *testing.T) {
	p := newPlain(t, 5)
	name, _, _ := p.apart(1, 2)
	p.brokers[1].Open(name, Reader, 11, false, p.now)
	p.want()
	p.brokers[2].Open(name, Writer, 22, false, p.now)
	p.want("22 at 2 attaches to 11 at 1")
	p.brokers[2].Failed(22, p.now)
	p.want()
	p.now = p.now.Add(retryAfter)
	p.want("22 at 2 attaches to 11 at 1")
	p.brokers[1].Set(11, true, p.now)
	p.brokers[2].Set(22, true, p.now)
	p.want()
	p.brokers[3].Open(name, Reader, 3, false, p.now)
	p.want()
	p.now = p.now.Add(contestTime)
	p.want("3 at 3 goes for one at 1", "3 at 3 goes for one at 1") // both registrars say so
}

// A writer that takes all readers meets each of those that wait, though another one can't be
// reached; they are no conflict, and one more such writer is.
func TestWriterThatTakesAllReaders(t *testing.T) {
	p := newPlain(t, 7)
	name, _, _ := p.apart(1, 2, 3, 4)
	all := func(want ...string) {
		t.Helper()
		p.settle()
		slices.Sort(p.said)
		p.said = slices.Compact(p.said) // both registrars say so
		p.want(want...)
	}
	p.brokers[2].Open(name, Reader, 22, false, p.now)
	p.brokers[3].Open(name, Reader, 33, false, p.now)
	p.brokers[1].OpenMany(name, 44, false, p.now)
	all("44 at 1 attaches to 22 at 2", "44 at 1 attaches to 33 at 3")
	p.now = p.now.Add(contestTime)
	all()
	p.brokers[3].Set(33, true, p.now)
	p.brokers[1].Set(44, true, p.now)
	all("44 at 1 attaches to 22 at 2")
	p.brokers[1].Failed(44, p.now)
	p.now = p.now.Add(retryAfter)
	all("44 at 1 attaches to 22 at 2")
	p.brokers[4].OpenMany(name, 11, false, p.now)
	all("44 at 1 attaches to 22 at 2") // who has readers comes before the lower token
	p.now = p.now.Add(contestTime)
	all("11 at 4 goes for one at 1")
	p.brokers[1].Close(44, p.now)
	all("11 at 4 attaches to 22 at 2")
}

func TestOneBrokerAloneSaysNothing(t *testing.T) {
	p := newPlain(t, 3)
	before := p.records
	for i := range 100 {
		name := fmt.Sprint(i)
		b := p.brokers[1]
		f, s := b.registrars(hash(name), false)
		b.Open(name, Reader, Token(2*i+1), false, p.now)
		b.Open(name, Writer, Token(2*i+2), false, p.now) // they have met, but have not said so yet
		p.settle()
		b.Close(Token(2*i+1), p.now)
		b.Close(Token(2*i+2), p.now)
		p.settle()
		want := 0
		for _, m := range []Member{f.id, s.id} {
			if m != 1 {
				want += 4
			}
		}
		if got := p.records - before; got != want {
			t.Fatalf("%d records for %q, want %d", got, name, want)
		}
		before = p.records
	}
	p.want()
}

// A reader and a writer meet though neither the link of the one to a registrar nor that of the
// other to another one is there.
func TestMeetingThoughARegistrarIsOutOfReach(t *testing.T) {
	p := newPlain(t, 5)
	name, first, _ := p.apart(1, 2)
	p.link(2, first, false)
	p.brokers[1].Open(name, Reader, 11, false, p.now)
	p.brokers[2].Open(name, Writer, 22, false, p.now)
	p.want("22 at 2 attaches to 11 at 1")
}

// What a member says of an end of another member's changes nothing for that.
func TestOnlyItsBrokerSpeaksForAnEnd(t *testing.T) {
	p := newPlain(t, 5)
	name, first, second := p.apart(1, 2, 3)
	p.brokers[1].Open(name, Reader, 11, false, p.now)
	p.settle()
	for _, m := range []Member{first, second} {
		p.brokers[m].Receive(3, Record{Kind: Unregister, Name: name, Role: Reader, Token: 11}, p.now)
	}
	p.brokers[2].Open(name, Writer, 22, false, p.now)
	p.want("22 at 2 attaches to 11 at 1")
}

// Who seeks is told of the first that is known, though another registrar is silent; but that there is
// nobody only when all have answered.
func TestSeekerAndASilentRegistrar(t *testing.T) {
	p := newPlain(t, 5)
	name, first, second := p.apart(1, 2)
	p.linked[[2]Member{first, 2}] = false // what it says is lost, and nobody has noticed
	p.brokers[2].Seek(1, name, 22, p.now)
	p.want()
	p.brokers[1].Offer(1, name, 11, p.now)
	p.want("22 at 2 finds [{11 1 true}]")
	p.brokers[1].Close(11, p.now)
	p.want()
	p.link(2, first, false)
	p.want()
	p.brokers[2].View([]Member{1, 2, second})
	p.want("22 at 2 finds []")
}

// What a registrar has said by a link that is lost is not the answer of all.
func TestAnswerOfALostLink(t *testing.T) {
	p := newPlain(t, 5)
	name, first, second := p.apart(1, 2)
	p.brokers[1].Offer(1, name, 11, p.now)
	p.brokers[2].Seek(1, name, 22, p.now)
	p.want("22 at 2 finds [{11 1 true}]")
	b := p.brokers[2]
	b.LinkDown(first)
	b.Receive(second, Record{Kind: Gone, Thing: 1, Name: name, Role: Seeker, Over: true, Token: 22, Other: 11}, p.now) // before the next Step
	if len(p.said) > 0 {
		t.Errorf("%q", p.said)
	}
}

// A member that knows nothing of things is no registrar of them.
func TestOldMembersAreNotAsked(t *testing.T) {
	p := newPlain(t, 3)
	for _, m := range []Member{1, 2} {
		p.link(m, 3, false)
		p.brokers[m].LinkUp(3, false)
	}
	p.settle()
	p.records = 0
	for i := range 50 {
		name := fmt.Sprint(i)
		p.brokers[1].Offer(1, name, Token(2*i+1), p.now)
		p.brokers[2].Seek(1, name, Token(2*i+2), p.now)
		p.want(fmt.Sprintf("%d at 2 finds [{%d 1 true}]", 2*i+2, 2*i+1))
	}
	if p.records != 50*4 { // to each other: that it is offered, that it is sought, and two answers
		t.Errorf("%d records", p.records)
	}
}

// A member has each thing once, and no more than so many.
func TestMembersAreBounded(t *testing.T) {
	p := newPlain(t, 2)
	b := p.brokers[1]
	for i := range Token(1000) {
		b.Receive(2, Record{Kind: Register, Thing: 1, Name: "q", Role: Offerer, Token: i + 1}, p.now)
		b.Receive(2, Record{Kind: Register, Name: "q", Role: Reader, Token: i + 1}, p.now)
	}
	for k, l := range b.names {
		if len(l.entries) != 1 || l.entries[0].token != 1000 {
			t.Errorf("%d entries of %v", len(l.entries), k)
		}
	}
	link := b.peers[2].link
	link.entered = mostEntries
	b.Receive(2, Record{Kind: Register, Thing: 1, Name: "another", Role: Offerer, Token: 2000}, p.now)
	if len(b.names) != 2 || link.entered != mostEntries {
		t.Error("there is one more than there may be")
	}
	b.Seek(1, "found", 22, p.now)
	for i := range Token(mostOffers + 100) {
		b.Receive(2, Record{Kind: Found, Thing: 1, Name: "found", Role: Seeker, Token: 22, Other: i + 1, At: 2}, p.now)
	}
	if n := len(b.ends[22].seeking.of(link).offers); n != mostOffers {
		t.Errorf("%d offers are known", n)
	}
}

// BenchmarkLost has one of ten brokers go that have a million names together, and counts until
// all are registered again.
func BenchmarkLost(b *testing.B) {
	for _, r := range []Role{Reader, Offerer} {
		b.Run(map[Role]string{Reader: "ends", Offerer: "things"}[r], func(b *testing.B) { benchLost(b, r) })
	}
}

func benchLost(b *testing.B, r Role) {
	const brokers, names = 10, 1_000_000
	for b.Loop() {
		b.StopTimer()
		p := &plain{now: epoch, brokers: make(map[Member]*Broker), linked: make(map[[2]Member]bool)}
		var all []Member
		for m := Member(1); m <= brokers; m++ {
			h := &queueHost{plainHost: plainHost{p, m}}
			p.brokers[m] = New(m, h)
			all = append(all, m)
		}
		for _, m := range all {
			p.brokers[m].View(all)
			for _, o := range all {
				if o != m {
					p.brokers[m].LinkUp(o, true)
				}
			}
		}
		for i := range names {
			m := all[i%brokers]
			if name := fmt.Sprint("a name of some length ", i); r == Reader {
				p.brokers[m].Open(name, r, Token(i+1), false, p.now)
			} else {
				p.brokers[m].Offer(1, name, Token(i+1), p.now)
			}
			deliverAll(p)
		}
		for _, m := range all {
			for at, ok := p.brokers[m].Next(); ok && at.IsZero(); at, ok = p.brokers[m].Next() {
				p.brokers[m].Step(p.now)
				deliverAll(p)
			}
		}
		lost, rest := all[brokers-1], all[:brokers-1]
		var longest time.Duration
		b.StartTimer()
		for _, m := range rest {
			p.brokers[m].LinkDown(lost)
			p.brokers[m].View(rest)
		}
		for _, m := range rest {
			for at, ok := p.brokers[m].Next(); ok && at.IsZero(); at, ok = p.brokers[m].Next() {
				began := time.Now()
				p.brokers[m].Step(p.now)
				longest = max(longest, time.Since(began))
				deliverAll(p)
			}
		}
		b.StopTimer()
		registered := 0
		for _, m := range rest {
			for _, l := range p.brokers[m].names {
				registered += len(l.entries)
			}
		}
		if want := names / brokers * (brokers - 1) * 2; registered != want {
			b.Fatalf("%d registered, want %d", registered, want)
		}
		b.ReportMetric(longest.Seconds()*1000, "ms/longest-step")
		b.StartTimer()
	}
}

// A queueHost keeps records rather than what is to be done with them.
type queueHost struct {
	plainHost
	sent []Record
	to   []Member
}

func (h *queueHost) Send(to Member, r Record) { h.sent, h.to = append(h.sent, r), append(h.to, to) }

func deliverAll(p *plain) {
	for _, b := range p.brokers {
		h := b.host.(*queueHost)
		for i, r := range h.sent {
			p.brokers[h.to[i]].Receive(h.self, r, p.now)
		}
		h.sent, h.to = h.sent[:0], h.to[:0]
	}
}

// Who is linked is told of all, in however many steps and however late, and then that this was all.
func TestToldOfAll(t *testing.T) {
	p := newPlain(t, 2)
	want := func(told ...string) {
		t.Helper()
		p.settle()
		if slices.Sort(p.told); !slices.Equal(p.told, told) {
			t.Errorf("%q, want %q", p.told, told)
		}
		p.told = nil
	}
	want("1 knows 0 names of 2", "2 knows 0 names of 1")
	p.link(1, 2, false)
	p.settle()
	for i := range 2*stepSize + 1 {
		p.brokers[1].Open(fmt.Sprint(i), Reader, Token(i+1), false, p.now)
	}
	p.busy = 2
	p.link(1, 2, true)
	want("1 knows 513 names of 2")
	p.busy = 0
	p.now = p.now.Add(lateAfter)
	want("2 knows 513 names of 1")
	p.brokers[1].Open("new", Reader, 1000, false, p.now)
	want()
}
