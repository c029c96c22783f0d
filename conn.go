//go:build !core

package zpipes

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// A conn is a client's connection to a broker elsewhere: one transport, and a
// goroutine that owns it. On a broker that has agreed to the extension it
// carries any number of links; on another just one.
type conn struct {
	client    *Client
	endpoint  string
	at        string              // the same, or where the broker of a name is private
	otherUser bool                // the broker runs as another user, who may turn this one away
	verify    func(*packet) error // what comes before the greeting; nil: the system has said who is there
	closed    func()              // called when the transport is; nil: nobody wants to know
	badge     *badge              // what it shows over tcp; nil: it is not encrypted
	largest   int                 // bytes of a chunk that it takes from the broker
	shared    bool                // any number of ends may use it; set before it is handed out

	posted   mailbox[channelLink]
	done     chan struct{} // closed when the transport is
	inFlight atomic.Int64  // bytes that all links have in unanswered WRITEs

	began time.Time     // when the first PING was sent; set before the conn is handed out, as is
	took  time.Duration // the time until its answer

	mu       sync.Mutex      // guards what follows; no other lock is taken under it
	err      error           // why the connection is no more; nil while it is
	denied   error           // either side has refused the connection
	killed   error           // the owner is to end it for this reason
	retiring time.Time       // the owner is to end it once no link is left, or at this time
	asked    int             // PINGs to be sent
	waiting  []chan struct{} // what to close at the next PING_OKs, or nil

	// The rest belongs to the owner.
	transport     transport
	links         map[uint32]channelLink
	watched       map[*queueLink]bool  // have chunks that may have to go back
	held          map[channelLink]bool // have something to send when less is under way
	turns         []channelLink        // scratch of inTurn
	broken        string               // what the broker has done to the protocol
	last          uint32               // channel given out
	lost          bool                 // a send has failed
	leaves        bool                 // it is this side that ends the connection
	heard         time.Time
	beat          time.Time // when to send the next heartbeat
	asking        bool      // the first PING was sent
	used          time.Time // when it had a link the last time, between brokers
	crowded       time.Time // until then it may take long until others of the program have had their turn
	session       uint64
	abilities     uint32 // what this side has, on such a connection
	able          uint32 // what both sides have
	channelWindow int    // bytes that a link may have in unanswered WRITEs
	connWindow    int    // bytes that all links may have in them
	pending       int    // what the broker's pipes and queues hold
	most          int    // bytes in one of them
	pace          pace
	greeted       bool        // the first PING was answered
	tunnel        *tunnelLink // what it is for; nil: for links
	scratch       []byte
	frames        [1][]byte // for transport.send
	arrived       packet    // what is being handled
	message       message   // the same
}

const (
	redialAfter  = 5 * time.Millisecond
	redialAtMost = 100 * time.Millisecond
	// lookAgain is how often it looks meanwhile whether the broker is in this process now.
	lookAgain = 10 * time.Millisecond
	// enoughTurns is after how many times it is clear that the broker turns this client
	// away, and does not just end.
	enoughTurns = 3
	// answerTime is how long a broker that may turn this client away has to answer.
	answerTime = time.Second
	// partingTime is how long a connection that nobody uses any more waits for
	// answers to its last CLOSEs.
	partingTime = time.Second
)

func (k *conn) alive() bool { return k.closeErr() == nil }

// closeErr is why the connection is no more, or nil.
func (k *conn) closeErr() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

// kill ends the connection as if the broker were gone.
func (k *conn) kill(reason string) {
	k.mu.Lock()
	k.killed = errors.New(reason)
	k.mu.Unlock()
	k.transport.wake()
}

// retire ends the connection once its last link is closed.
func (k *conn) retire() {
	k.mu.Lock()
	if k.retiring.IsZero() {
		k.retiring = time.Now().Add(partingTime)
	}
	k.mu.Unlock()
	k.transport.wake()
}

// ping waits for the answer to a PING sent now.
func (k *conn) ping(ctx context.Context) error {
	answer := make(chan struct{})
	k.mu.Lock()
	if err := k.err; err != nil {
		k.mu.Unlock()
		return err
	}
	k.asked++
	k.waiting = append(k.waiting, answer)
	k.mu.Unlock()
	k.hurry()
	select {
	case <-answer:
		return nil
	case <-k.done:
		return k.closeErr()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// never is why an end leaves whose open was given up.
var never = cause{causeNever, "the open was given up"}

// needExtension is an error where the broker has nothing that only the extension has.
// It retires the connection, which is of no use then.
func (k *conn) needExtension(what string) error {
	if k.shared {
		return nil
	}
	k.retire()
	return fmt.Errorf("%w: the broker knows only the base protocol, which has no %s", errors.ErrUnsupported, what)
}

// needAbility is the same for what the broker's extension may not have yet.
func (k *conn) needAbility(able uint32, what string) error {
	if err := k.needExtension(what); err != nil || k.able&able != 0 {
		return err
	}
	return fmt.Errorf("%w: the broker is of an earlier version, which has no %s", errors.ErrUnsupported, what)
}

func (k *conn) post(l channelLink) {
	if k.posted.put(l) {
		k.transport.wake()
	}
}

// A lender is a transport whose owner lets others send while it waits: to wake it would
// take about as long as the way to the broker and back.
type lender interface {
	// borrow makes the caller the owner, but for wait, until repay; false: not now.
	borrow() bool
	// repay has leave what was sent.
	repay()
}

// hurry has what was posted sent: by the caller, who holds no lock, or by the owner, who is
// woken.
func (k *conn) hurry() {
	t, ok := k.transport.(lender)
	if !ok || !t.borrow() {
		k.transport.wake()
		return
	}
	now := time.Now()
	look := k.nextLook(now)
	k.posted.each(math.MaxInt, channelLink.serve)
	k.mu.Lock()
	asked := k.asked
	k.asked = 0
	k.mu.Unlock()
	k.sendPings(asked)
	wake := k.lost || k.broken != "" || k.nextLook(now).Before(look)
	if t.repay(); wake {
		k.transport.wake()
	}
}

func (k *conn) fail(reason string) { k.broken = reason }

// meet exchanges the first PING, and returns why that can't be; "" if it could. Who dials
// is the owner until then: no other goroutine has to be woken for it.
func (k *conn) meet() (reason string) {
	now := time.Now()
	k.heard, k.beat, k.began = now, now, now
	for reason = k.tick(now); reason == "" && !k.greeted; {
		reason = k.turn()
	}
	k.took = time.Since(now)
	return reason
}

// run is the owner from then on: the only goroutine that touches the transport and the links.
func (k *conn) run() {
	reason := ""
	for reason == "" {
		reason = k.turn()
	}
	k.finish(reason)
}

// finish ends the connection for that reason.
func (k *conn) finish(reason string) {
	k.mu.Lock()
	k.err = cause{text: reason}.explain(ErrBrokerGone)
	k.mu.Unlock()
	for _, l := range k.links {
		l.lost(cause{causeBrokerGone, reason})
	}
	k.posted.each(math.MaxInt, func(l channelLink) { l.lost(cause{causeBrokerGone, reason}) })
	if k.agreed() && k.leaves {
		// Else the broker would keep what was open until it misses this client, and
		// the next connection might find that in its way.
		k.transport.linger(goodbyeTime)
		k.send(&message{id: msgClose, block: hasBlock})
	}
	k.transport.close()
	if k.closed != nil {
		k.closed()
	}
	k.client.untrack(k)
	k.client.log.info("connection ended", "reason", reason)
	close(k.done)
}

// turn waits, and does what there is to do then. It returns why the connection is over, or "".
func (k *conn) turn() (reason string) {
	var ok bool
	if k.tunnel.sated() {
		k.transport.(*far).pause(k.nextLook(time.Now()))
		k.heard = time.Now() // it would have been
	} else {
		k.arrived, ok = k.transport.wait(k.nextLook(time.Now()))
	}
	now := time.Now()
	if ok {
		k.heard = now
		if reason := k.handle(&k.arrived); reason != "" {
			return reason
		}
	}
	k.posted.each(math.MaxInt, channelLink.serve)
	k.tunnel.serve()
	if reason := k.tick(now); reason != "" {
		return reason
	}
	if k.lost = k.lost || !k.transport.connected(); k.lost {
		return errGone.Error()
	}
	return ""
}

func (k *conn) nextLook(now time.Time) time.Time {
	if soon := now.Add(returnAfter); len(k.watched) > 0 && soon.Before(k.beat) {
		return soon
	}
	return k.beat
}

// tick does what the clock and other goroutines ask for.
func (k *conn) tick(now time.Time) (reason string) {
	interval := k.client.cfg.Heartbeat
	if k.broken != "" {
		return k.broken
	}
	for l := range k.watched {
		if !l.look(now) {
			delete(k.watched, l)
		}
	}
	if f, ok := k.transport.(*far); ok {
		if heard := f.heardAt(); heard.After(k.heard) {
			k.heard = heard
		}
		if reason := k.rest(now); reason != "" {
			return reason
		}
	}
	k.heard = creditSilence(k.heard, k.beat, now, 0)
	patience := missedBeats * interval
	if k.badge != nil && !k.greeted {
		patience = max(patience, handshakeTime) // which takes its turns to and fro
	}
	silent := now.Sub(k.heard)
	if s, ok := k.transport.(interface {
		lost() bool
		quiet() time.Duration
	}); ok {
		switch {
		case silent > lastWords && s.lost(): // and libzmq says nothing, but connects again
			k.leaves = true
			return errGone.Error()
		case silent > patience:
			silent = min(silent, s.quiet()) // a part of a large message may have come
		}
	}
	if silent > patience {
		k.leaves = true
		return fmt.Sprintf("no answer for %v", silent.Round(time.Millisecond))
	}
	k.mu.Lock()
	killed, retiring, asked := k.killed, k.retiring, k.asked
	k.asked = 0
	k.mu.Unlock()
	if killed != nil {
		return killed.Error()
	}
	if !retiring.IsZero() {
		if len(k.links) == 0 || !now.Before(retiring) {
			k.leaves = true
			return "the client was closed"
		}
	}
	if !now.Before(k.beat) {
		k.beat = now.Add(interval)
		if k.pings() {
			asked++
			k.mu.Lock()
			k.waiting = append(k.waiting, nil)
			k.mu.Unlock()
		}
		k.asking = true
	}
	k.sendPings(asked)
	return ""
}

func (k *conn) sendPings(n int) {
	for range n {
		k.send(&message{id: msgPing, block: hasBlock, hello: hello{
			version: protocolVersion,
			session: k.session,
			number:  uint32(k.client.cfg.Heartbeat / time.Millisecond),
			able:    k.abilities,
			window:  uint32(min(k.client.cfg.Window, math.MaxInt32)),
		}})
	}
}

func (k *conn) send(m *message) {
	k.scratch = m.append(k.scratch[:0])
	k.sendFrame(k.scratch)
}

func (k *conn) sendFrame(frame []byte) {
	k.frames[0] = frame
	if err := k.transport.send(k.frames[:]...); err != nil {
		k.lost = true
	}
}

// newChannel is the number of the next link: 0 for the only one of the base
// protocol, else the next that is free.
func (k *conn) newChannel() uint32 {
	if !k.agreed() {
		return 0
	}
	for k.last++; k.last == 0 || k.links[k.last] != nil; k.last++ {
	}
	return k.last
}

// handle takes one message from the broker, and returns why that ends the
// connection, if it does.
func (k *conn) handle(p *packet) (reason string) {
	if !k.greeted && k.verify != nil {
		if err := k.verify(p); err != nil {
			return k.deny(err, "its user is not trusted")
		}
	}
	frame := p.frame
	m, err := &k.message, error(nil)
	*m, err = parse(frame)
	m.lent, m.body, m.descriptors = p.lent, p.body, p.descriptors
	defer func() {
		m.body.release()
		closeDescriptors(m.descriptors)
	}()
	if p.fault != nil {
		err = p.fault
		k.tunnel.fault(err)
	}
	if err != nil {
		return "the broker broke the protocol: " + err.Error()
	}
	if m.id == msgPingOK {
		return k.pong(m)
	}
	if !k.greeted && m.id == msgInvalid && m.code == causeDenied {
		return k.deny(cause{causeDenied, string(m.cause)}.openError(), "it refused this client")
	}
	if k.agreed() && (m.block == noBlock || m.id == msgInvalid && m.channel == 0) {
		if len(m.cause) > 0 {
			return string(m.cause)
		}
		return "it has dropped this connection"
	}
	if k.tunnel != nil && m.block == hasBlock {
		k.tunnel.take(p, m)
		return ""
	}
	l := k.links[m.channel]
	if l == nil && k.tunnel == nil {
		return "" // an answer behind a CLOSE_OK
	}
	if l == nil || !l.expects(m) || m.block == badBlock {
		return fmt.Sprintf("the broker broke the protocol: message %d on channel %d", m.id, m.channel)
	}
	l.handle(frame, m)
	return ""
}

// deny has the dial fail for good.
func (k *conn) deny(err error, reason string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.denied = err
	return reason
}

func (k *conn) pong(m *message) (reason string) {
	h := m.hello
	switch {
	case !k.greeted:
		if m.block != hasBlock || h.version == 0 {
			h = hello{}
		}
		if h.version > 0 && (h.session == 0 || h.number == 0 || h.pending == 0 || h.total == 0) {
			return "the broker broke the protocol: PING_OK without a session, window or bound"
		}
		k.greet(h)
	case m.block == hasBlock && h.version == 0:
		return "" // unasked
	case h.session != k.session:
		return "it has dropped this connection"
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.waiting) > 0 {
		if k.waiting[0] != nil {
			close(k.waiting[0])
		}
		k.waiting = k.waiting[1:]
	}
	return ""
}

// share is how many bytes of a stream may leave alone, with nothing of it under way: of
// what others leave free never all, so that those which nobody reads do not hold it
// up; and a quarter of the total stays for what can't be cut.
func (k *conn) share() int {
	flight := int(k.inFlight.Load())
	return max(1, k.connWindow/2-flight, (k.connWindow-k.connWindow/4-flight)/1024)
}

// mayLeave says that l may send n bytes alone: nothing is under way, or together no more than
// most. If not, it is served again when there is less under way.
func (k *conn) mayLeave(l channelLink, n, most int) bool {
	if flight := int(k.inFlight.Load()); flight == 0 || flight+n <= most {
		return true
	}
	k.held[l] = true
	return false
}

// inTurn calls f, after which less is under way, and serves those that were held up, before others take all the room
// time and again.
func (k *conn) inTurn(f func()) {
	for l := range k.held {
		k.turns = append(k.turns, l)
	}
	clear(k.held)
	f()
	for _, l := range k.turns {
		l.serve()
	}
	clear(k.turns)
	k.turns = k.turns[:0]
}

// greet takes note of what the broker can do.
func (k *conn) greet(h hello) {
	k.greeted = true
	if s, ok := k.transport.(interface{ shaken() }); ok {
		s.shaken()
	}
	k.session, k.able = h.session, h.able&k.abilities
	k.most, k.channelWindow, k.connWindow = frameSegment, math.MaxInt, math.MaxInt
	if k.agreed() {
		// A message is taken whole, so a large one leaves much of a pipe unused.
		k.pending = size(h.pending)
		k.most, k.channelWindow, k.connWindow = max(1, min(k.most, k.pending/4)), size(h.number), size(h.total)
		if k.paced() {
			k.most = k.pace.begin(k.most, time.Since(k.began))
		}
	}
	k.client.log.info("connected", "extended", k.agreed())
}

// agreed says that both sides speak the extension. It is the owner's.
func (k *conn) agreed() bool { return k.session != 0 }

const (
	pending outcome = iota
	opened
	givenUp
)
