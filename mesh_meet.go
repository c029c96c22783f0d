//go:build !core

package zpipes

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"time"
)

// How two brokers meet: who dials, what each says first, and which of several connections becomes the link.

// seek dials if that is due. mu is held.
func (m *mesh) seek(t *target, now time.Time) {
	if m.closed || t.dialling || now.Before(t.next) || len(t.addresses) == 0 {
		return
	}
	address := t.addresses[t.tries%len(t.addresses)]
	t.tries++
	t.dialling = true
	switch t.next = now.Add(redialEvery); {
	case t.found:
		t.next = now.Add(lookUpEvery)
	case t.tries > patientTries:
		t.next = now.Add(rejoinEvery)
	}
	m.running.Go(func() {
		err := m.meet(t, address)
		m.mu.Lock()
		defer m.mu.Unlock()
		if t.dialling = false; err != nil {
			t.why = err
		}
	})
}

// meetings bounds how many are being made in this process: they cost time, and where all of many
// are begun at once, none is done in its own.
var meetings = make(chan struct{}, 32)

// meet makes a link with who is at an address.
func (m *mesh) meet(t *target, address string) error {
	select {
	case meetings <- struct{}{}:
		defer func() { <-meetings }()
	case <-m.stop.Done():
		return errMeshEnded
	}
	if m.hasMet(t) {
		return nil // while this one waited for its turn
	}
	if !t.own {
		if address = m.oneOf(t, address); address == "" {
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(m.stop, meetTime)
	defer cancel()
	c, err := m.port.Dial(ctx, address)
	if err != nil {
		return err
	}
	expects, ok := m.mayMeet(t, c)
	if !ok {
		c.Close()
		return nil
	}
	far, said, err := m.introduce(m.stop, c, linkControl, []byte(m.name), expects, new(lifeSign))
	m.mu.Lock()
	defer m.mu.Unlock()
	t.meeting = false
	switch {
	case err != nil:
	case said.fellow.id == m.id: // the broker's own address
		if !t.several {
			t.met(m.id)
		} else if !slices.Contains(m.own, address) {
			m.own = append(m.own, address)
		}
		if old := m.fellows[t.member]; old != nil && old.name == m.name {
			m.ended(old, false) // it was this one, before it was started again
		}
		c.Close()
	default:
		t.met(said.fellow.id)
		m.adopt(far, said, m.id, address)
	}
	return err
}

// hasMet says that there is a link with who is meant.
func (m *mesh) hasMet(t *target) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.fellows[t.member]
	return f != nil && f.link != nil
}

// met notes who was there. The mesh's mu is held.
func (t *target) met(id memberID) {
	t.why = nil
	switch {
	case t.several:
		t.found = true
	case !t.own:
		t.member = id
	case t.member != id:
		t.why = errAnother
	}
}

// oneOf is an address of who is to be joined; "": all that there are have been met. Where a name is that of several hosts, it is one of
// them after another: by the name itself one would get to the first that answers, which may be this very broker each time.
func (m *mesh) oneOf(t *target, address string) string {
	ctx, cancel := context.WithTimeout(m.stop, meetTime)
	defer cancel()
	all := hostsOf(ctx, address)
	m.mu.Lock()
	defer m.mu.Unlock()
	if t.several = len(all) > 1; !t.several {
		return address
	}
	t.member = 0
	all = slices.DeleteFunc(all, func(a string) bool {
		linked := m.linkedAt(a) != nil
		t.found = t.found || linked
		return linked || slices.Contains(m.own, a)
	})
	if len(all) == 0 {
		t.found = true
		return ""
	}
	return all[rand.IntN(len(all))]
}

// linkedAt is who is linked and has that address, or nil. The mesh's mu is held.
func (m *mesh) linkedAt(address string) *fellow {
	for _, f := range m.fellows {
		if f.link != nil && (f.link.remote == address || slices.Contains(f.addresses, address)) {
			return f
		}
	}
	return nil
}

// hostsOf are the addresses that a HOST:PORT stands for, of the family of which there are more: one host may have one of
// either.
func hostsOf(ctx context.Context, address string) []string {
	host, port, err := net.SplitHostPort(address)
	if err != nil || net.ParseIP(host) != nil {
		return nil
	}
	ips, _ := net.DefaultResolver.LookupNetIP(ctx, "ip", host) // who dials is told why not
	var of [2][]string
	for _, ip := range ips {
		ip = ip.Unmap()
		family := 0
		if ip.Is6() {
			family = 1
		}
		if at := net.JoinHostPort(ip.String(), port); !slices.Contains(of[family], at) {
			of[family] = append(of[family], at)
		}
	}
	if len(of[1]) > len(of[0]) {
		return of[1]
	}
	return of[0]
}

// mayMeet says that there is reason to go on with a connection, and who is expected there.
func (m *mesh) mayMeet(t *target, c net.Conn) (expects memberID, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return 0, false
	}
	if f := m.fellows[t.member]; f != nil && f.link != nil {
		return 0, false // that one was faster
	}
	if f := m.linkedAt(c.RemoteAddr().String()); f != nil {
		if old := m.fellows[t.member]; old != nil && old.name == f.name {
			m.ended(old, false) // it has been started again
		}
		t.met(f.id) // by another name
		return 0, false
	}
	t.meeting = true
	return t.member, true
}

// introduce says on a new connection what it is for, and returns what the other side says. Its
// deadline is its own; when ctx is done, it ends.
func (m *mesh) introduce(ctx context.Context, c net.Conn, mode byte, text []byte, expects memberID, life *lifeSign) (*far, *message, error) {
	defer context.AfterFunc(ctx, func() { c.Close() })()
	c.SetDeadline(time.Now().Add(meetTime))
	far := newFar(c, m.broker.cfg.MaxMessage+messageOverhead, mostRecords, life)
	far.sendMessage(&message{
		id: msgLink, block: hasBlock, mode: mode, text: text,
		fellow: wireFellow{id: m.id, expects: expects, able: linkAbilities, address: []byte(m.port.Address())},
	})
	said, err := far.hear()
	switch {
	case err != nil:
	case said.id == msgInvalid:
		err = said.why().openError()
	case said.id != msgLinkOK || said.block != hasBlock || said.fellow.id == 0:
		err = errors.New("it broke the protocol of links")
	}
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	c.SetDeadline(time.Time{})
	return far, said, nil
}

// accept takes over a connection from another broker.
func (m *mesh) accept(c net.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.hearing == maxHearing {
		c.Close()
		return
	}
	m.hearing++
	m.running.Go(func() {
		err := m.welcome(c)
		m.mu.Lock()
		m.hearing--
		m.mu.Unlock()
		if err != nil {
			c.Close()
			m.broker.log.info("a broker was not linked", "why", err, "peer", c.RemoteAddr().String())
		}
	})
}

// welcome has a connection do what the other side wants it for.
func (m *mesh) welcome(c net.Conn) error {
	stays := context.AfterFunc(m.stop, func() { c.Close() })
	defer stays()
	c.SetDeadline(time.Now().Add(meetTime))
	life := new(lifeSign)
	far := newFar(c, messageOverhead, mostRecords, life)
	said, err := far.hear()
	if err != nil {
		return err
	}
	if said.id != msgLink || said.block != hasBlock || said.fellow.id == 0 {
		return errors.New("it does not speak the protocol of links")
	}
	refuse := func(code causeCode, why error) error {
		far.part(&message{id: msgInvalid, block: hasBlock, code: code, cause: []byte(why.Error())}, time.Second)
		return why
	}
	far.largest = m.broker.cfg.MaxMessage + messageOverhead
	answer := message{id: msgLinkOK, block: hasBlock, text: []byte(m.name), fellow: wireFellow{id: m.id, able: linkAbilities, address: []byte(m.port.Address())}}
	switch {
	case said.fellow.id == m.id:
		far.part(&answer, time.Second)
		return nil
	case said.mode == linkControl && m.meets(said.fellow.id):
		return refuse(causeBusy, errMeeting)
	case said.mode == linkControl:
		if !stays() { // else its end would be that of the link, without a last word
			return errMeshEnded
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		c.SetDeadline(time.Time{})
		m.adopt(far, said, said.fellow.id, "", &answer)
		return nil
	case said.fellow.expects != 0 && said.fellow.expects != m.id:
		return refuse(causeBrokerGone, errAnother)
	case said.mode == linkBulk || said.mode == linkStrand:
		m.mu.Lock()
		f, name := m.fellows[said.fellow.id], ""
		if f != nil {
			name = f.name
		}
		m.mu.Unlock()
		if f == nil {
			return refuse(causeBrokerGone, errNoMember)
		}
		s, ok := parseStrand(said.text)
		if said.mode == linkStrand && !ok {
			return refuse(causeDenied, errNoStrand)
		}
		far.sendMessage(&answer)
		if said.mode == linkStrand {
			whole, err := m.gather(c, f, s)
			if whole == nil {
				return err
			}
			far = newFar(whole, far.largest, mostKeptFar, &f.life)
		}
		far.conn.SetDeadline(time.Time{})
		far.life, far.mostOut = &f.life, mostKeptFar
		far.alive()
		return m.broker.joinFellow(far.listen(), f, name)
	}
	return refuse(causeDenied, fmt.Errorf("this broker does not know what for (%d)", said.mode))
}

// meets says that this side, which goes first, is about to link with that one.
func (m *mesh) meets(id memberID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.fellows[id]
	return m.closed || f != nil && f.meeting && m.id < id
}

// mostKeptFar is how much may wait for a fellow before its pipes do.
const mostKeptFar = 1 << 20

// adopt makes a link of a connection on which both sides have said who they are. Of two links
// between the same two the later one counts; but where both have dialled at the same
// time, both keep what the one with the lower id has dialled; and where one has dialled twice, what
// the other one has taken first: that one alone knows which that was. mu is held.
func (m *mesh) adopt(far *far, said *message, dialer memberID, address string, answer ...*message) {
	id, now := said.fellow.id, time.Now()
	f := m.fellows[id]
	if m.closed || f == nil && (len(m.fellows) >= maxFellows || m.isPast(id, true)) {
		far.conn.Close() // of one that has left, it is an earlier one
		return
	}
	if f == nil {
		f = &fellow{mesh: m, id: id, target: target{member: id, own: true}}
		m.fellows[id] = f
	}
	if old := f.link; old != nil && (old.dialer < dialer || old.dialer == dialer && dialer == id) && now.Sub(f.since) < secondDial {
		far.conn.Close()
		return
	}
	if f.link != nil {
		// Its last word may be under way, that it leaves, if it does not know of this one yet.
		f.link.far.conn.SetReadDeadline(now.Add(secondDial))
		m.down(f, "there is a newer link")
	}
	for _, a := range answer {
		far.sendMessage(a)
	}
	far.life = &f.life
	far.alive()
	f.name, f.able = string(said.text), said.fellow.able
	f.learn(address)
	f.learn(reachedAt(string(said.fellow.address), far.conn.RemoteAddr()))
	for _, t := range m.joins {
		if t.member == 0 && slices.Contains(f.addresses, t.addresses[0]) {
			t.met(id)
		}
	}
	m.replaces(f)
	f.since, f.tries, f.why, f.mute = now, 0, nil, nil
	f.link = &meshLink{mesh: m, fellow: f, far: far, dialer: dialer, remote: far.conn.RemoteAddr().String()}
	m.broker.log.info("linked", "member", f.name, "address", f.link.remote)
	for _, other := range m.fellows {
		f.link.tell(other)
	}
	f.link.ping(now)
	m.running.Go(f.link.serve)
	if m.user != nil {
		m.user.linkUp(id, said.fellow.able)
		m.user.viewChanged(m.view())
	}
}

// replaces ends those who have been there before under the same name: that broker has been started again,
// whichever side has dialled. mu is held.
func (m *mesh) replaces(f *fellow) {
	for _, old := range m.fellows {
		if old != f && old.link == nil && old.name == f.name &&
			slices.ContainsFunc(old.addresses, func(a string) bool { return slices.Contains(f.addresses, a) }) {
			m.ended(old, false)
		}
	}
}

// maxAddresses is how many of one fellow's are tried.
const maxAddresses = 4

// learn notes where a fellow may be reached.
func (f *fellow) learn(address string) {
	if address == "" || slices.Contains(f.addresses, address) {
		return
	}
	f.addresses = slices.Insert(f.addresses, 0, address)
	f.addresses = f.addresses[:min(len(f.addresses), maxAddresses)]
}

// loopback says that an address is this machine's alone.
func loopback(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	return isLoopback(host)
}

// reachedAt is the address of a broker that calls itself that and comes from there.
func reachedAt(says string, from net.Addr) string {
	host, port, err := net.SplitHostPort(says)
	if err != nil {
		return ""
	}
	if host == "" {
		if host, _, err = net.SplitHostPort(from.String()); err != nil {
			return ""
		}
	}
	return net.JoinHostPort(host, port)
}
