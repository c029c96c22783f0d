//go:build !core

package zpipes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A mesh is how a broker is connected with all others of its cluster: each two have a link, and
// who is linked is who is there. Brokers tell each other whom they are linked with, and
// connect to those, too.
type mesh struct {
	broker    *Broker
	id        memberID
	name      string // BROKER@HOST
	port      ClusterPort
	user      meshUser // nil: nobody
	strangers strangers
	began     time.Time

	stop    context.Context // done when close begins
	halt    context.CancelFunc
	ending  sync.Once
	running sync.WaitGroup // added to with mu held, unless closed, or by one of them

	mu         sync.Mutex // guards what follows; only leaves are taken under it
	fellows    map[memberID]*fellow
	past       []pastMember // the latest; see told
	joins      []*target
	own        []string // those of several hosts' addresses that are this broker's
	leaving    bool
	closed     bool
	hearing    int // connections that have not said yet what they are for
	gatherings map[gatheringName]*gathering
	due        time.Time // of the next look
	quiet      time.Time // until then nothing is due but beats; zero: something may be
	beatAt     time.Time // of the next beat
	beats      int       // how many there were
	settled    bool      // the user has been told
}

// A meshUser makes something of links. Its methods are called with the mesh's mu held, and
// wait for nothing.
type meshUser interface {
	// linkUp says that messages can be sent to a member, and what it is able to do. They arrive in
	// order, as far as they do.
	linkUp(m memberID, able uint32)
	// linkDown says that messages sent since linkUp may not have arrived.
	linkDown(memberID)
	// received takes a message that came in between; what it points to is the link's again.
	received(from memberID, m *message)
	// viewChanged says who is there, after each of the first two.
	viewChanged([]memberID)
	// left says that a member has ended, and does not come again.
	left(memberID)
	// settled says, once, that those who should be there are linked, or could not be reached.
	settled()
}

// A fellow is another broker of the cluster. What is no atomic is guarded by the mesh's mu.
type fellow struct {
	mesh   *mesh
	id     memberID
	name   string
	link   *meshLink // nil: there is none
	since  time.Time // when it was linked, or lost
	client *Client   // of it, for streams; nil: none was needed
	// tunnels are clients with one connection each.
	tunnels map[*Client]bool
	turn    int // which of the client's connections is next
	life    lifeSign
	rtt     atomic.Int64 // nanoseconds; 0: not known
	able    uint32       // what it has named
	mute    error        // why no connection for data can be made to it, though it is linked
	target               // where it is
}

// A target is somebody to be linked with. The mesh's mu guards it.
type target struct {
	addresses []string // that are tried in turn
	member    memberID // who is there; 0: not known
	own       bool     // it is a fellow's, and nobody else is meant
	next      time.Time
	tries     int // one after the other that have failed
	dialling  bool
	meeting   bool // it has got as far as to say LINK
	several   bool // it is a name of several hosts, and has no member; see oneOf
	found     bool // one of these was met
	why       error
}

const (
	// meshTick is how often a mesh looks around.
	meshTick = 100 * time.Millisecond
	// beatEvery is how often a link shows that it lives, and deadAfter for how long it may
	// not have. A broker with more than fewLinks lets each beat more slowly.
	beatEvery = 500 * time.Millisecond
	deadAfter = 2 * time.Second
	fewLinks  = 32
	slowBeat  = time.Second
	slowDeath = 2500 * time.Millisecond
	// askEvery is how many beats there are to one that asks for an answer.
	askEvery = 8
	// redialEvery is how often it is tried to make one, and meetTime how long that may take.
	redialEvery = 500 * time.Millisecond
	meetTime    = 3 * time.Second
	// After patientTries it is tried less often, but for ever.
	patientTries = 60
	rejoinEvery  = 2 * time.Second
	// lookUpEvery is when another one of several hosts with one name is tried, after the first was met.
	lookUpEvery = 10 * time.Second
	// secondDial is how much later the one of two with the higher id begins to dial when their
	// link is lost, so that they do not meet half-way.
	secondDial = time.Second
	// forgetFellow is how long a broker that is gone is looked for.
	forgetFellow = time.Hour
	maxFellows   = 4096
	// maxHearing is how many connections may be about to say what they are for.
	maxHearing = 1024
	// mostRecords is how much may wait for a fellow that does not take it; see also busyLink.
	mostRecords = 64 << 20
	// bulkConns is how many connections data takes to one fellow: one alone is bounded by
	// the system's buffers, and what is small would wait behind what is large.
	bulkConns = 4
)

var (
	errNoMember  = errors.New("no such member of the cluster")
	errAnother   = errors.New("another broker is there now")
	errMeshEnded = errors.New("the broker is closing")
	errMeeting   = errors.New("the two are meeting already")
)

// newMesh begins.
func newMesh(b *Broker, c Cluster, id memberID, user meshUser) (*mesh, error) {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "unknown"
	}
	m := &mesh{
		broker: b, id: id, name: b.name + "@" + host, user: user, began: time.Now(),
		fellows: make(map[memberID]*fellow), gatherings: make(map[gatheringName]*gathering),
	}
	m.stop, m.halt = context.WithCancel(context.Background())
	opened := make(chan struct{})
	m.port, err = c.Open(ClusterHost{
		Broker:  b.name,
		Accept:  func(c net.Conn) { <-opened; m.accept(c) },
		Enter:   m.strangers.enter,
		Refused: b.refused,
		Log:     b.log.info,
	})
	close(opened)
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	for _, address := range m.port.Join() {
		m.joins = append(m.joins, &target{addresses: []string{address}})
	}
	m.running.Go(m.serve)
	return m, nil
}

// close ends all links in good order. A second one waits for the first.
func (m *mesh) close() { m.ending.Do(m.end) }

func (m *mesh) end() {
	m.halt()
	m.port.Close()
	m.mu.Lock()
	m.closed = true
	links := make([]*meshLink, 0, len(m.fellows))
	for _, f := range m.fellows {
		if f.link != nil {
			links = append(links, f.link)
		}
	}
	m.mu.Unlock()
	var all sync.WaitGroup
	for _, l := range links {
		all.Go(l.goodbye)
	}
	all.Wait()
	m.mu.Lock()
	for _, f := range m.fellows {
		m.forget(f)
	}
	m.joins = nil
	m.mu.Unlock()
	m.running.Wait()
}

// leave calls f, which closes, on a goroutine of the movers', unless it has been called or is closed.
func (m *mesh) leave(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.leaving && !m.closed {
		m.leaving = true
		m.broker.meets.movers.running.Go(f)
	}
}

// linked says that there is a link to anybody.
func (m *mesh) linked() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.fellows {
		if f.link != nil {
			return !m.closed
		}
	}
	return false
}

// mayLink says that there is a link to anybody, or that one which was lost may come back.
func (m *mesh) mayLink() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.fellows) > 0 && !m.closed
}

// serve looks around now and then, until close.
func (m *mesh) serve() {
	tick := time.NewTicker(meshTick)
	defer tick.Stop()
	m.look(time.Now())
	for {
		select {
		case <-m.stop.Done():
			return
		case <-tick.C:
			m.look(time.Now())
		}
	}
}

// look does what is due.
func (m *mesh) look(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	late := time.Duration(0)
	if !m.due.IsZero() {
		late = max(0, now.Sub(m.due))
	}
	m.due = now.Add(meshTick)
	beat, dead := beatEvery, deadAfter
	if len(m.fellows) > fewLinks {
		beat, dead = slowBeat, slowDeath
	}
	// All links beat at once, which costs less than one after the other.
	beats, asks := !now.Before(m.beatAt), m.beats%askEvery == 0
	if !beats && now.Before(m.quiet) {
		return
	}
	if beats {
		m.beatAt = now.Add(beat)
		m.beats++
	}
	m.quiet = now.Add(dead)
	for _, f := range m.fellows {
		switch {
		case f.link != nil:
			if beats {
				f.link.beat(now, asks)
			}
			f.link.look(now, dead, late)
		case now.Sub(f.since) > forgetFellow:
			m.forget(f)
		default:
			m.quiet = time.Time{}
			if m.id < f.id || f.tries > 0 || now.Sub(f.since) >= secondDial {
				m.seek(&f.target, now)
			}
		}
	}
	for _, t := range m.joins {
		// Where the one who was there can't be reached, another one may be there by now.
		if f := m.fellows[t.member]; t.member != m.id && (f == nil || f.link == nil) {
			m.quiet = time.Time{}
			if f == nil || now.Sub(f.since) >= secondDial {
				m.seek(t, now)
			}
		}
	}
	if !m.settled && m.user != nil {
		m.quiet = time.Time{}
		if m.met() || now.Sub(m.began) > meetTime {
			m.settled = true
			m.user.settled()
		}
	}
}

// met says that those who are known are linked, or have been tried twice. The mu is held.
func (m *mesh) met() bool {
	tried := func(t *target) bool { return t.tries > 1 && !t.dialling }
	for _, t := range m.joins {
		if t.member == 0 && !t.found && !tried(t) {
			return false
		}
	}
	for _, f := range m.fellows {
		if f.link == nil && !tried(&f.target) {
			return false
		}
	}
	return true
}

// unlink ends a fellow's link, if there is one. mu is held.
func (m *mesh) unlink(f *fellow, why string) {
	if f.link != nil {
		f.link.far.conn.Close()
		m.down(f, why)
	}
}

// down takes the link from a fellow that has one. mu is held.
func (m *mesh) down(f *fellow, why string) {
	f.link, f.since, f.next, f.tries, m.quiet = nil, time.Now(), time.Time{}, 0, time.Time{}
	f.why = errors.New(why)
	m.broker.log.info("link lost", "member", f.name, "why", why)
	if m.user != nil {
		m.user.linkDown(f.id)
		m.user.viewChanged(m.view())
	}
}

// A pastMember has ended: it has said so (left), or it seems that another one is in its place. If that was another broker of the
// same name, on a host of the same name behind the same NAT, it comes again.
type pastMember struct {
	id   memberID
	left bool
}

// mostPast is how many of them are remembered.
const mostPast = 256

// ended forgets a member for good. mu is held.
func (m *mesh) ended(f *fellow, left bool) {
	if m.past = append(m.past, pastMember{f.id, left}); len(m.past) > mostPast {
		m.past = m.past[1:]
	}
	m.forget(f)
}

// isPast says that a member has ended, as far as that is known; or surely. mu is held.
func (m *mesh) isPast(id memberID, surely bool) bool {
	return slices.ContainsFunc(m.past, func(p pastMember) bool { return p.id == id && (p.left || !surely) })
}

// forget has a fellow be no member any more. mu is held.
func (m *mesh) forget(f *fellow) {
	if f == nil {
		return
	}
	m.unlink(f, "it has left")
	delete(m.fellows, f.id)
	m.quiet = time.Time{}
	if m.user != nil {
		m.user.left(f.id)
	}
	if f.client != nil {
		m.running.Go(f.client.abandon)
	}
	for c := range f.tunnels {
		m.running.Go(c.abandon)
	}
}

// view is who is there. mu is held.
func (m *mesh) view() []memberID {
	ids := []memberID{m.id}
	for id, f := range m.fellows {
		if f.link != nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// told takes what another one says of a member.
func (m *mesh) told(said *message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id := said.fellow.id
	if id == m.id || id == 0 || m.closed {
		return
	}
	if string(said.text) == m.name && string(said.fellow.address) == m.port.Address() {
		return // it was this one, before it was started again, and may not reach itself at that address
	}
	f := m.fellows[id]
	switch {
	case f == nil && m.isPast(id, false):
		return // who says so has not heard yet
	case f != nil && f.link != nil:
		return // and it is known where
	case f == nil:
		if len(m.fellows) >= maxFellows {
			return
		}
		f = &fellow{mesh: m, id: id, name: string(said.text), since: time.Now(), target: target{member: id, own: true}}
		f.tries = 1 // it is for the one who learns to dial
		m.fellows[id], m.quiet = f, time.Time{}
	}
	f.learn(string(said.fellow.address))
	m.seek(&f.target, time.Now())
}

// What the mesh's user calls follows; from any goroutine, but not from under mu.

func (m *mesh) patience() time.Duration { return m.port.Patience() }

// send sends a message to a member. Without a link it is dropped.
func (m *mesh) send(to memberID, msg *message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.fellows[to]; f != nil && f.link != nil {
		msg.block = hasBlock
		if f.link.far.sendMessage(msg) != nil {
			m.unlink(f, "it does not take what is sent to it")
		}
	}
}

// busyLink is how many bytes wait for a fellow before what can wait does.
const busyLink = 1 << 20

// busy says that so many do.
func (m *mesh) busy(to memberID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.fellows[to]
	return f != nil && f.link != nil && f.link.far.waiting() > busyLink
}

// describe is what people call a member.
func (m *mesh) describe(id memberID) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.fellows[id]; f != nil {
		return f.describe()
	}
	return "a broker that has left"
}

// nameOf is a member's, as BROKER@HOST.
func (m *mesh) nameOf(id memberID) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.fellows[id]; f != nil {
		return f.name
	}
	return "a broker that has left"
}

func (f *fellow) describe() string {
	if len(f.addresses) > 0 {
		return fmt.Sprintf("%s (%s)", f.name, f.addresses[0])
	}
	return f.name
}

// list is what Members says.
func (m *mesh) list() []Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	members := []Member{{Name: m.name, ID: m.id.String(), Address: strings.TrimPrefix(m.port.Address(), ":"), State: MemberSelf, Since: m.began}}
	for _, f := range m.fellows {
		x := Member{Name: f.name, ID: f.id.String(), State: MemberMissing, Since: f.since}
		if len(f.addresses) > 0 {
			x.Address = f.addresses[0]
		}
		if f.link != nil {
			x.State, x.RTT, x.Address = MemberLinked, time.Duration(f.rtt.Load()), f.link.remote
			if f.mute != nil {
				x.Why = "no connection for data can be made to it: " + f.mute.Error()
			}
		} else if f.why != nil {
			x.Why = f.why.Error()
		}
		members = append(members, x)
	}
	for _, t := range m.joins {
		if t.member == 0 && !t.found {
			x := Member{Name: t.addresses[0], Address: t.addresses[0], State: MemberMissing, Since: m.began}
			if t.why != nil {
				x.Why = t.why.Error()
			}
			members = append(members, x)
		}
	}
	slices.SortFunc(members[1:], func(x, y Member) int { return cmp.Or(strings.Compare(x.Name, y.Name), strings.Compare(x.ID, y.ID)) })
	return members
}
