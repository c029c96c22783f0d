//go:build !core

package zpipes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A meshLog is a meshUser that writes down what happens.
type meshLog struct {
	mu     sync.Mutex // guards what follows
	linked map[memberID]bool
	view   []memberID
	got    map[memberID][]string // since the last linkUp
	fault  string
}

func (l *meshLog) settled() {}

func (l *meshLog) linkUp(id memberID, _ uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.linked == nil {
		l.linked, l.got = make(map[memberID]bool), make(map[memberID][]string)
	}
	if l.linked[id] {
		l.fault = "linkUp without linkDown"
	}
	l.linked[id] = true
	l.got[id] = nil
}

func (l *meshLog) linkDown(id memberID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.linked[id] {
		l.fault = "linkDown without linkUp"
	}
	delete(l.linked, id)
}

func (l *meshLog) received(id memberID, m *message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.linked[id] {
		l.fault = "received without a link"
	}
	if m.id != msgFound { // the exchange at the other side says when it has told all
		l.got[id] = append(l.got[id], string(m.text))
	}
}

func (l *meshLog) left(memberID) {}

func (l *meshLog) viewChanged(ids []memberID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(ids) != len(l.linked)+1 {
		l.fault = fmt.Sprintf("the view has %d, %d are linked", len(ids), len(l.linked))
	}
	l.view = ids
}

func (l *meshLog) has(id memberID) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.got[id])
}

func (l *meshLog) check(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fault != "" {
		t.Error(l.fault)
	}
}

// watched has a log written of what a broker's mesh tells.
func watched(b *Broker) *meshLog {
	l := &meshLog{linked: make(map[memberID]bool), got: make(map[memberID][]string)}
	m := b.mesh
	m.mu.Lock()
	defer m.mu.Unlock()
	m.user = l
	for id, f := range m.fellows {
		if f.link != nil {
			l.linked[id] = true
		}
	}
	return l
}

// Brokers of a cluster find all others by way of one, and say who is there.
func TestMeshBrokersFindEachOther(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 4)
	for _, b := range brokers {
		members := slices.Collect(b.Members())
		if len(members) != 4 || members[0].State != MemberSelf || members[0].ID != b.mesh.id.String() {
			t.Errorf("members of %s: %+v", b.Name(), members)
		}
		for _, m := range members[1:] {
			if m.State != MemberLinked || m.Address == "" {
				t.Errorf("%s says %+v", b.Name(), m)
			}
		}
	}
	if len(slices.Collect((&Broker{}).Members())) != 0 {
		t.Error("a broker without a cluster has members")
	}
}

// Of two connections that one has made at the same time, both sides keep the one that the other has taken first.
func TestMeshDialledTwice(t *testing.T) {
	t.Parallel()
	b := newTestCluster().broker(t)
	dials := func() (*far, error) {
		c, err := net.Dial("tcp", b.mesh.port.Address())
		check(t, err)
		c.Write([]byte{9}) // see testPort
		c.SetDeadline(time.Now().Add(soon))
		f := newFar(c, messageOverhead, mostRecords, new(lifeSign))
		t.Cleanup(f.close)
		f.sendMessage(&message{id: msgLink, block: hasBlock, mode: linkControl, text: []byte("other@host"), fellow: wireFellow{id: 5, able: linkAbilities}})
		m, err := f.hear()
		if err == nil && m.id != msgLinkOK {
			t.Errorf("LINK was answered with %+v", m)
		}
		return f, err
	}
	begun := time.Now()
	first, err := dials()
	check(t, err)
	if _, err := dials(); err == nil {
		if time.Since(begun) > secondDial/2 {
			t.Skip("the machine is too busy for two at the same time")
		}
		t.Error("it has taken the second one, too")
	}
	if m, err := first.hear(); err != nil || m.id != msgPing {
		t.Errorf("the first one ends: %v", err)
	}
	// Who has lost a connection gets another one.
	first.close()
	eventually(t, "there is a link again", func() bool {
		_, err := dials()
		return err == nil
	})
}

// Records come in order, and each is of the link that is up.
func TestMeshRecords(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 2)
	a, b := brokers[0], brokers[1]
	log := watched(b)
	var want []string
	for i := range 1000 {
		want = append(want, fmt.Sprint(i))
		a.mesh.send(b.mesh.id, &message{id: msgCloseFailed, text: []byte(want[i])})
	}
	eventually(t, "all records are there", func() bool { return len(log.has(a.mesh.id)) == len(want) })
	if got := log.has(a.mesh.id); !slices.Equal(got, want) {
		t.Errorf("records came as %v", got)
	}
	c.sever(a, b)
	eventually(t, "there is another link", func() bool { return len(log.has(a.mesh.id)) == 0 && a.linkedWith(b) && b.linkedWith(a) })
	a.mesh.send(b.mesh.id, &message{id: msgCloseFailed, text: []byte("again")})
	eventually(t, "a record comes over it", func() bool { return slices.Equal(log.has(a.mesh.id), []string{"again"}) })
	log.check(t)
}

// A broker that ends in good order is no member any more at once; one that starts again is
// another one.
func TestMeshBrokerLeaves(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 3)
	log := watched(brokers[0])
	brokers[2].Close()
	eventually(t, "two are left", func() bool {
		return len(slices.Collect(brokers[0].Members())) == 2 && len(slices.Collect(brokers[1].Members())) == 2
	})
	log.check(t)
	c.awaitLinks(t, brokers[0], brokers[1], c.broker(t))
	log.check(t)
}

// A broker that was killed and is started again is the same member's next life: nobody waits for the one before, or
// looks for it, whichever side has dialled, and whoever still names it.
func TestMeshBrokerStartedAgain(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	c.patience = time.Minute
	brokers := c.meshed(t, 2)
	a, b := brokers[0], brokers[1]
	address := []byte(b.mesh.port.Address())
	others := func() (ids []string) {
		for m := range a.Members() {
			if m.State != MemberSelf {
				ids = append(ids, m.ID)
			}
		}
		return ids
	}
	missing := func() bool {
		is := make(chan bool)
		a.meets.exchange.do(func(time.Time) { is <- a.meets.exchange.missing() })
		return <-is
	}
	before := memberID(42)
	a.mesh.told(&message{text: []byte(b.mesh.name), fellow: wireFellow{id: before, address: address}})
	eventually(t, "who was there before is forgotten", func() bool { return slices.Equal(others(), []string{b.mesh.id.String()}) })
	if missing() {
		t.Error("who was there before is missed")
	}

	c.cut(a, b)
	eventually(t, "it is missed", func() bool { return !a.linkedWith(b) && missing() })
	here, there := net.Pipe()
	defer there.Close()
	next := memberID(b.mesh.id + 1)
	a.mesh.mu.Lock()
	a.mesh.adopt(newFar(here, messageOverhead, mostRecords, new(lifeSign)), &message{text: []byte(b.mesh.name), fellow: wireFellow{id: next, address: address}}, next, "")
	a.mesh.mu.Unlock()
	if got := others(); !slices.Equal(got, []string{next.String()}) {
		t.Errorf("the members are %v, not %v alone", got, next)
	}
	if missing() {
		t.Error("one who has come again is missed")
	}
}

// A broker that was killed and is started again does not look for itself, though others still name who it was, whether it
// knows its own address or not.
func TestMeshIsNotItsOwnFellow(t *testing.T) {
	t.Parallel()
	for _, hostless := range []bool{false, true} {
		c := newTestCluster()
		c.hostless = hostless
		a := c.meshed(t, 2)[0]
		before := &message{text: []byte(a.mesh.name), fellow: wireFellow{id: 42, address: []byte(a.mesh.port.(*testPort).reached())}}
		a.mesh.told(before)
		others := func() int { return len(slices.Collect(a.Members())) - 1 }
		if !hostless && others() != 1 {
			t.Error("it has to reach itself to know that")
		}
		eventually(t, "the other one is the only one", func() bool { return others() == 1 })
		if a.mesh.told(before); others() != 1 {
			t.Error("it forgets that")
		}
	}
}

// A broker that leaves goes on alone, whoever has it do so.
func TestMeshLeave(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 3)
	log := watched(brokers[0])
	elsewhere := newClient(ClientConfig{}.withDefaults(), "elsewhere", memoryEndpoint(brokers[1].Name()), nil)
	defer elsewhere.Close()
	for i, client := range []*Client{brokers[0].Client(), elsewhere} {
		if err := client.LeaveCluster(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventuallyWithin(t, 3*soon, "it is alone", func() bool {
			return len(slices.Collect(brokers[i].Members())) == 1 && len(slices.Collect(brokers[2].Members())) == 2-i
		})
	}
	if err := elsewhere.LeaveCluster(t.Context()); err != nil {
		t.Errorf("a second time: %v", err)
	}
	// Who has not heard of it yet says that they are there, and what they began before may come late.
	m := brokers[2].mesh
	for _, b := range brokers[:2] {
		said := &message{text: []byte(b.Name()), fellow: wireFellow{id: b.mesh.id, address: []byte("127.0.0.1:9")}}
		m.told(said)
		here, there := net.Pipe()
		m.mu.Lock()
		m.adopt(newFar(here, messageOverhead, mostRecords, new(lifeSign)), said, b.mesh.id, "")
		m.mu.Unlock()
		if _, err := there.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("a link with who has left: %v", err)
		}
	}
	if all := slices.Collect(brokers[2].Members()); len(all) != 1 {
		t.Errorf("behind that there are %+v", all)
	}
	if len(log.linked) != 0 || len(log.view) != 1 {
		t.Errorf("who has left is linked with %v", log.linked)
	}
	log.check(t)
}

// Over a connection for data a broker is an ordinary client of the other one.
func TestMeshBulk(t *testing.T) {
	c := newTestCluster()
	brokers := c.meshed(t, 2)
	a, b := brokers[0], brokers[1]
	data := bytes.Repeat([]byte("a few bytes more. "), 200_000)
	client := a.mesh.testClient(b.mesh.id)
	var all sync.WaitGroup
	for i := range 2 * bulkConns {
		all.Go(func() {
			name := fmt.Sprint("bulk", i)
			r, err := b.Client().OpenReader(t.Context(), name)
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			w, err := client.OpenWriter(t.Context(), name)
			if err != nil {
				t.Error(err)
				return
			}
			w.SetWriteDeadline(time.Now().Add(time.Minute))
			all.Go(func() {
				if _, err := w.Write(data); err != nil {
					t.Error(err)
				}
				if err := w.Close(); err != nil {
					t.Error(err)
				}
			})
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes came, %v", len(got), err)
			}
		})
	}
	all.Wait()
}

// testClient is the client with which bulk connects.
func (m *mesh) testClient(to memberID) *Client {
	done := make(chan struct{})
	m.bulk(to, func(*conn, error) { close(done) })
	<-done
	m.mu.Lock()
	c := m.fellows[to].client
	m.mu.Unlock()
	c.dialing.Acquire(context.Background(), 1) // bulk may still connect for those who come later
	defer c.dialing.Release(1)
	c.endpoint = fmt.Sprintf("member://%v/0", to)
	return c
}

// bulkNow is bulk, and waits.
func (m *mesh) bulkNow(to memberID) (*conn, error) {
	type answer struct {
		k   *conn
		err error
	}
	answers := make(chan answer, 1)
	m.bulk(to, func(k *conn, err error) { answers <- answer{k, err} })
	a := <-answers
	return a.k, a.err
}

// A cut without a word is noticed within deadAfter, also on connections for data, and as soon as
// bytes pass again there is a link, and data.
func TestMeshCutAndHeal(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 3)
	a, b := brokers[0], brokers[1]
	k, err := a.mesh.bulkNow(b.mesh.id)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	c.cut(a, b)
	eventually(t, "both miss the other", func() bool { return !a.linkedWith(b) && !b.linkedWith(a) })
	if took := time.Since(start); took < deadAfter-beatEvery {
		t.Errorf("the link was given up after %v", took)
	}
	<-k.done
	t.Logf("connection for data ended after %v: %v", time.Since(start), k.closeErr())
	if !a.linkedWith(brokers[2]) || !b.linkedWith(brokers[2]) {
		t.Error("other links have ended, too")
	}
	if _, err := a.mesh.bulkNow(b.mesh.id); err == nil {
		t.Error("there is a connection for data through a cut")
	}
	start = time.Now()
	c.heal(a, b)
	c.awaitLinks(t, a, b)
	t.Logf("linked %v after the heal", time.Since(start))
	k, err = a.mesh.bulkNow(b.mesh.id)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := k.ping(ctx); err != nil {
		t.Error(err)
	}
}

// A cut in one direction alone ends the link at both sides.
func TestMeshCutOneWay(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 2)
	for _, way := range [][2]*Broker{{brokers[0], brokers[1]}, {brokers[1], brokers[0]}} {
		c.cutFrom(way[0], way[1])
		eventually(t, "both miss the other", func() bool { return !way[0].linkedWith(way[1]) && !way[1].linkedWith(way[0]) })
		c.heal(way[0], way[1])
		c.awaitLinks(t, brokers...)
	}
}

// Nobody is asked for data who is no member, and no broker that has taken another one's place.
func TestMeshBulkToNobody(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 2)
	if _, err := brokers[0].mesh.bulkNow(42); !errors.Is(err, errNoMember) {
		t.Errorf("data for nobody: %v", err)
	}
	f := brokers[0].mesh.fellows[brokers[1].mesh.id]
	imposter := &fellow{mesh: f.mesh, id: f.id + 1, target: target{addresses: f.addresses}}
	if _, err := imposter.dialBulk(t.Context(), 0); err == nil {
		t.Error("a broker has taken data that is for another one")
	}
}

// Who waits for a connection to a broker that leaves is told so then, and not when its time is over.
func TestMeshBulkToOneThatLeaves(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 2)
	a, b := brokers[0], brokers[1]
	c.takesNoData(a, b)
	told := make(chan error, 1)
	a.mesh.bulk(b.mesh.id, func(_ *conn, err error) { told <- err })
	b.Close()
	if err := <-told; err != errHasLeft {
		t.Errorf("data for one that has left: %v", err)
	}
}

// Who does not need a connection to a broker any more does not wait for what that one says on it.
func TestMeshBulkThatIsGivenUp(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 2)
	m := brokers[0].mesh
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer silent.Close()
	c.mu.Lock()
	c.ports = append(c.ports, &testPort{cluster: c, number: len(c.ports), listener: silent})
	c.mu.Unlock()
	f := &fellow{mesh: m, id: brokers[1].mesh.id, target: target{addresses: []string{silent.Addr().String()}}}
	for _, strands := range []uint32{0, ableStrands} {
		f.able = strands
		f.rtt.Store(int64(farAway))
		ctx, giveUp := context.WithCancel(t.Context())
		begun, ended := time.Now(), make(chan error)
		go func() {
			_, err := f.dialBulk(ctx, 0)
			ended <- err
		}()
		k, err := silent.Accept()
		check(t, err)
		defer k.Close()
		_, err = io.ReadFull(k, make([]byte, 1+lengthBytes)) // the first of LINK; see testPort
		check(t, err)
		giveUp()
		busy := time.Since(begun) > meetTime/2
		if err := <-ended; err == nil || errors.Is(err, os.ErrDeadlineExceeded) && !busy {
			t.Errorf("it was waited for: %v", err)
		}
	}
}

// Records that take longer than a link may be silent do not end it, whoever sends them: the
// heartbeats that are behind them are not all that shows that both live.
func TestMeshManyRecordsOnASlowWay(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	c.slow = 4 << 10
	brokers := c.meshed(t, 2)
	text := bytes.Repeat([]byte("x"), 250)
	const many = 1300 // 4 s
	for i, b := range brokers {
		log, to := watched(brokers[1-i]), brokers[1-i].mesh.id
		for range many {
			b.mesh.send(to, &message{id: msgCloseFailed, text: text})
		}
		eventuallyWithin(t, 3*soon, "all records are there, by one link", func() bool { return len(log.has(b.mesh.id)) == many })
		log.check(t)
	}
}

// A message of a later version is no reason to end a link.
func TestMeshMessagesThatAreNotKnown(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 2)
	a, b := brokers[0], brokers[1]
	log := watched(b)
	link := func() *meshLink {
		a.mesh.mu.Lock()
		defer a.mesh.mu.Unlock()
		return a.mesh.fellows[b.mesh.id].link
	}()
	if err := link.far.send([]byte(signature + "\xffwhatever")); err != nil {
		t.Fatal(err)
	}
	a.mesh.send(b.mesh.id, &message{id: msgCloseFailed, text: []byte("later")})
	eventually(t, "what comes behind it has come", func() bool { return len(log.has(a.mesh.id)) == 1 })
	log.check(t)
}

// Two brokers that end at the same time part in good order.
func TestMeshBothLeave(t *testing.T) {
	t.Parallel()
	for range 5 {
		brokers := newTestCluster().meshed(t, 2)
		var all sync.WaitGroup
		for _, b := range brokers {
			all.Go(func() { b.Close() })
		}
		all.Wait()
	}
}

// Where only the other one can connect, the two are linked, and it is said why nothing goes there, until it can.
func TestMeshLinkThatTakesNoData(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 2)
	a, b := brokers[0], brokers[1] // which has dialled
	why := func() (text string) {
		for m := range a.Members() {
			text += m.Why
		}
		return text
	}
	move := func(addresses ...string) {
		a.mesh.mu.Lock()
		f := a.mesh.fellows[b.mesh.id]
		client := f.bulkClient()
		f.client, f.addresses = nil, addresses
		a.mesh.mu.Unlock()
		client.abandon()
	}
	move("127.0.0.1:1")
	go a.mesh.bulkNow(b.mesh.id)
	eventually(t, "it is said why", func() bool { return strings.Contains(why(), "data can be made to it: nobody is at 127.0.0.1:1") })
	if !a.linkedWith(b) {
		t.Error("the link was lost")
	}
	move(b.mesh.port.Address())
	eventuallyWithin(t, 3*soon, "it is possible again", func() bool { return why() == "" })
}

// Two brokers that have forgotten each other meet again when they can, if another one is linked with both.
func TestMeshForgottenMeetAgain(t *testing.T) {
	t.Parallel()
	c := newTestCluster()
	brokers := c.meshed(t, 3)
	a, b := brokers[1], brokers[2]
	c.cut(a, b)
	eventually(t, "they are out of reach", func() bool { return !a.linkedWith(b) && !b.linkedWith(a) })
	for x, y := range map[*Broker]*Broker{a: b, b: a} {
		m := x.mesh
		m.mu.Lock()
		m.joins = nil // as where they know of each other by the third one alone
		m.forget(m.fellows[y.mesh.id])
		m.mu.Unlock()
	}
	c.heal(a, b)
	eventuallyWithin(t, 3*soon, "they are linked", func() bool { return a.linkedWith(b) && b.linkedWith(a) })
}
