//go:build cgo

package zpipes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pebbe/zmq4"
)

// A conn is a client's connection to a broker elsewhere: one socket, and a
// goroutine that owns it. On a broker that has agreed to the extension it
// carries any number of links; on another just one.
type conn struct {
	client    *Client
	endpoint  string
	at        string  // the same, or where the broker of a name is private
	otherUser bool    // the broker runs as another user, who may turn this one away
	host      *Broker // of the context, where that is a broker's (inproc)
	largest   int     // bytes of a chunk that it takes from the broker
	shared    bool    // any number of ends may use it; set before it is handed out

	posted   mailbox[channelLink]
	done     chan struct{} // closed when the socket is
	inFlight atomic.Int64  // bytes that all links have in unanswered WRITEs

	greeting chan hello // gets the answer to the first PING

	mu       sync.Mutex      // guards what follows; a mailbox's mu may be taken under it
	err      error           // why the connection is no more; nil while it is
	denied   error           // either side has refused the connection
	killed   error           // the owner is to end it for this reason
	retiring time.Time       // the owner is to end it once no link is left, or at this time
	asked    int             // PINGs to be sent
	waiting  []chan struct{} // what to close at the next PING_OKs, or nil

	// The rest belongs to the owner.
	sock          *socket
	links         map[uint32]channelLink
	watched       map[*queueLink]bool  // have chunks that may have to go back
	held          map[channelLink]bool // have something to send when less is under way
	broken        string               // what the broker has done to the protocol
	last          uint32               // channel given out
	lost          bool                 // a send has failed
	leaves        bool                 // it is this side that ends the connection
	heard         time.Time
	beat          time.Time // when to send the next heartbeat
	asking        bool      // the first PING was sent
	session       uint64
	able          uint32 // what both sides have
	channelWindow int    // bytes that a link may have in unanswered WRITEs
	connWindow    int    // bytes that all links may have in them
	pending       int    // what the broker's pipes and queues hold
	most          int    // bytes in one of them
	greeted       bool   // the first PING was answered
	scratch       []byte
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

var (
	// errUnserved: nobody serves the endpoint, now.
	errUnserved = errors.New("nobody serves it")
	// errTurnedAway: the broker of another user has hung up at once.
	errTurnedAway = fmt.Errorf("%w: the broker turns user %d away; its BrokerConfig.AllowUIDs can allow it", fs.ErrPermission, os.Geteuid())
	// errSilent: the same may be the case. libzmq 4.3.4 forgets now and then to say that
	// a connection was turned away.
	errSilent = errors.New("no answer")
	// errHere: the broker has come up in this very process.
	errHere = errors.New("the broker is in this process")
)

// dial connects and finds out what the broker can do. It retries while nobody
// serves the endpoint, until ctx ends.
func dial(ctx context.Context, c *Client, endpoint string) (*conn, error) {
	turned := 0 // away, one after the other
	for pause := redialAfter; ; pause = min(2*pause, redialAtMost) {
		k, err := dialOnce(ctx, c, endpoint)
		switch {
		case err == errTurnedAway:
			turned++
		case err != errSilent:
			turned = 0
		}
		retry := err == errTurnedAway || err == errSilent || errors.Is(err, errUnserved) || errors.Is(err, ErrBrokerGone)
		if err == nil || turned == enoughTurns || !retry {
			return k, err
		}
		for again := time.Now().Add(pause); time.Now().Before(again); {
			if endpoint == c.endpoint && c.local() != nil {
				return nil, errHere
			}
			select {
			case <-ctx.Done():
				return nil, fmt.Errorf("%w: %w", ctx.Err(), err)
			case <-time.After(min(pause, lookAgain)):
			}
		}
	}
}

func dialOnce(ctx context.Context, c *Client, endpoint string) (*conn, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	k := &conn{
		client: c, endpoint: endpoint, at: endpoint, largest: c.largestChunk(),
		done:     make(chan struct{}),
		links:    make(map[uint32]channelLink),
		watched:  make(map[*queueLink]bool),
		held:     make(map[channelLink]bool),
		greeting: make(chan hello, 1),
	}
	if err := k.connect(ctx); err != nil {
		return nil, err
	}
	go k.run()
	if !c.track(k) {
		k.kill("the client was closed")
		<-k.done
		return nil, os.ErrClosed
	}
	var silence <-chan time.Time
	if k.otherUser {
		silence = time.After(answerTime)
	}
	select {
	case h := <-k.greeting:
		k.shared = h.version > 0
		return k, nil
	case <-k.done:
		return nil, k.dialErr()
	case <-silence:
		k.kill("no answer")
		return nil, errSilent
	case <-ctx.Done():
		k.kill("no answer")
		return nil, ctx.Err()
	}
}

// unmet is why a connection has ended before it was of any use.
func (k *conn) dialErr() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	why := k.denied
	if why == nil && k.lost && !k.greeted && k.otherUser {
		why = errTurnedAway
	}
	if why == nil {
		why = k.err
	}
	return why
}

// connect makes the socket, if somebody serves the endpoint: one that finds
// nobody never says so.
func (k *conn) connect(ctx context.Context) error {
	name, inproc := strings.CutPrefix(k.endpoint, inprocEndpoint(""))
	if inproc {
		if k.host = processBrokers.find(name); k.host == nil {
			return fmt.Errorf("%w in this process", errUnserved)
		}
		return k.host.inproc.admit(k, func() (err error) {
			k.sock, err = k.dealer(k.host.ctx)
			return err
		})
	}
	if err := k.probe(ctx); err != nil {
		return err
	}
	zctx, err := k.client.context()
	if err == nil {
		k.sock, err = k.dealer(zctx)
	}
	return err
}

// probe finds out who serves the endpoint, or of a name, the first of its places.
func (k *conn) probe(ctx context.Context) (err error) {
	at := []string{k.endpoint}
	if c := k.client; c.named && k.endpoint == c.endpoint {
		at = places(c.broker)
	}
	for _, endpoint := range at {
		if err = k.probeAt(ctx, endpoint); !isUnserved(err) {
			break
		}
	}
	if err == nil || errors.Is(err, fs.ErrPermission) || outOfDescriptors(err) || isPermanent(err) {
		return err
	}
	return fmt.Errorf("%w: %w", errUnserved, err)
}

func (k *conn) probeAt(ctx context.Context, endpoint string) error {
	network, address, err := dialAddress(endpoint)
	if err != nil {
		return err
	}
	probe, err := new(net.Dialer).DialContext(ctx, network, address)
	if errors.Is(err, syscall.EACCES) {
		return closedPath(endpoint, address)
	}
	if err != nil {
		return err
	}
	defer probe.Close()
	k.at = endpoint
	if network == "tcp" {
		k.at = "tcp://" + probe.RemoteAddr().String() // of all that localhost may mean
	}
	uid, told := serverUID(probe)
	k.otherUser = told && !ownUser(uid) && !rootHere()
	if told {
		return k.client.cfg.trust(uid, endpoint)
	}
	return nil
}

// closedPath says what keeps this process from a socket.
func closedPath(endpoint, path string) error {
	if _, there := os.Lstat(path); there != nil {
		return fmt.Errorf("%w: a directory of %s keeps user %d out", fs.ErrPermission, endpoint, os.Geteuid())
	}
	return fmt.Errorf("%w: the socket %s is closed to user %d; its BrokerConfig.AllowUIDs can allow it", fs.ErrPermission, endpoint, os.Geteuid())
}

func (k *conn) dealer(ctx *zmq4.Context) (*socket, error) {
	s, err := newDealer(ctx, k.at, k.largest)
	if err == nil {
		s.asks = func([]byte) []string {
			if k.greeted {
				return nil
			}
			return []string{peerAddress}
		}
	}
	return s, err
}

func (k *conn) alive() bool { return k.closeErr() == nil }

// gone is why the connection is no more, or nil.
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
	k.sock.wake()
}

// retire ends the connection once its last link is closed.
func (k *conn) retire() {
	k.mu.Lock()
	if k.retiring.IsZero() {
		k.retiring = time.Now().Add(partingTime)
	}
	k.mu.Unlock()
	k.sock.wake()
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
	k.sock.wake()
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

// newLink makes a link for an end, which is o's or, if nil, nobody's.
func (k *conn) newLink(o opener, p *pipe, r role, mode byte) *streamLink {
	return &streamLink{linkBase: newLinkBase(k, o), pipe: p, role: r, mode: mode}
}

// open opens the link's end at the broker. One that is given up is undone there.
func (k *conn) open(ctx context.Context, l *streamLink) error {
	p := l.pipe
	p.mu.Lock()
	p.attach(1-l.role, func() { k.post(l) })
	if l.role == writer {
		p.reader.want = 1
	}
	p.mu.Unlock()
	err := k.await(ctx, l, &l.linkBase)
	if err != nil && err == ctx.Err() {
		p.mu.Lock()
		p.leave(l.role, never)
		p.mu.Unlock()
	}
	return err
}

// await waits for the answer to the open of an end.
func (k *conn) await(ctx context.Context, self channelLink, l *linkBase) (err error) {
	k.post(self)
	select {
	case err = <-l.opened:
	case <-k.done:
		select {
		case err = <-l.opened: // it may have ended because of that
		default:
			err = k.closeErr()
		}
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil && !l.giveUp() {
		return nil // it was opened at the same moment
	}
	return err
}

func (k *conn) newQueueLink(o opener, s *chunkQueue, l *senderQueue, mode byte) *queueLink {
	q := &queueLink{linkBase: newLinkBase(k, o), mode: mode, queue: s, sender: l, batch: 1}
	s.link = q
	return q
}

// openQueue opens or deletes the link's queue at the broker.
func (k *conn) openQueue(ctx context.Context, l *queueLink) error {
	err := k.await(ctx, l, &l.linkBase)
	if err != nil && err == ctx.Err() {
		l.leave(never)
	}
	return err
}

// extended is why a broker has nothing that only the extension has, and ends a
// connection that is of no use then.
func (k *conn) needExtension(what string) error {
	if k.shared {
		return nil
	}
	k.retire()
	return fmt.Errorf("%w: the broker knows only the old protocol, which has no %s", errors.ErrUnsupported, what)
}

func (k *conn) post(l channelLink) {
	if k.posted.put(l, l.flag()) {
		k.sock.wake()
	}
}

// watch has a Queue's chunks looked at in a while; fail ends the connection. Both are
// the owner's.
func (k *conn) watch(l *queueLink) { k.watched[l] = true }

func (k *conn) fail(reason string) { k.broken = reason }

// run is the owner: the only goroutine that touches the socket and the links.
func (k *conn) run() {
	now := time.Now()
	k.heard, k.beat = now, now
	reason := k.loop()
	k.mu.Lock()
	k.err = cause{text: reason}.explain(ErrBrokerGone)
	k.mu.Unlock()
	for _, l := range k.links {
		l.lost(cause{causeBrokerGone, reason})
	}
	for _, l := range k.posted.fetch(channelLink.flag) {
		l.lost(cause{causeBrokerGone, reason})
	}
	if k.agreed() && k.leaves {
		// Else the broker would keep what was open until it misses this client, and
		// the next connection might find that in its way.
		k.sock.zmq.SetLinger(goodbyeTime)
		k.send(&message{id: msgClose, block: hasBlock})
	}
	k.sock.close()
	if k.host != nil {
		k.host.inproc.left(k)
	}
	k.client.untrack(k)
	k.client.log.info("connection ended", "reason", reason)
	close(k.done)
}

// loop returns why the connection is over.
func (k *conn) loop() (reason string) {
	for {
		p, ok := k.sock.wait(k.nextLook(time.Now()))
		now := time.Now()
		if ok {
			k.heard = now
			if reason := k.handle(&p); reason != "" {
				return reason
			}
		}
		for _, l := range k.posted.fetch(channelLink.flag) {
			l.serve()
		}
		if reason := k.tick(now); reason != "" {
			return reason
		}
		if k.lost = k.lost || !k.sock.connected(); k.lost {
			return errGone.Error()
		}
	}
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
	k.heard = creditSilence(k.heard, k.beat, now, 0)
	if silent := now.Sub(k.heard); silent > missedBeats*interval {
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
	for range asked {
		k.send(&message{id: msgPing, block: hasBlock, hello: hello{
			version: protocolVersion,
			session: k.session,
			number:  uint32(interval / time.Millisecond),
			able:    abilities,
		}})
	}
	return ""
}

func (k *conn) send(m *message) {
	k.scratch = m.append(k.scratch[:0])
	k.sendFrame(k.scratch)
}

func (k *conn) sendFrame(frame []byte) {
	if err := k.sock.send(frame); err != nil {
		k.lost = true
	}
}

// newChannel is the number of the next link: 0 for the only one of the old
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
	if !k.greeted {
		if err := k.client.cfg.checkServer(p.about[peerAddress], k.at); err != nil {
			return k.deny(err, "its user is not trusted")
		}
	}
	frame := p.frame
	m, err := parse(frame)
	if err != nil {
		return "the broker broke the protocol: " + err.Error()
	}
	if m.id == msgPingOK {
		return k.pong(&m)
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
	l := k.links[m.channel]
	if l == nil {
		return "" // an answer behind a CLOSE_OK
	}
	if !l.expects(&m) || m.block == badBlock {
		return fmt.Sprintf("the broker broke the protocol: message %d on channel %d", m.id, m.channel)
	}
	l.handle(frame, &m)
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

// mayLeave says that l may send a chunk of n bytes alone, which can't be cut. If not, it
// is served again when there is less under way.
func (k *conn) mayLeave(l channelLink, n int) bool {
	flight := int(k.inFlight.Load())
	if flight == 0 || flight+n <= k.connWindow {
		return true
	}
	k.held[l] = true
	return false
}

// meet takes note of what the broker can do.
func (k *conn) greet(h hello) {
	k.greeted = true
	k.session, k.able = h.session, h.able&abilities
	k.most, k.channelWindow, k.connWindow = frameSegment, math.MaxInt, math.MaxInt
	if k.agreed() {
		// A message is taken whole, so a large one leaves much of a pipe unused.
		k.pending = size(h.pending)
		k.most, k.channelWindow, k.connWindow = max(1, min(k.most, k.pending/4)), size(h.number), size(h.total)
	}
	k.client.log.info("connected", "extended", k.agreed())
	k.greeting <- h
}

// size is a number of bytes that the broker has told, as far as it is one here.
func size(told uint32) int { return int(min(told, math.MaxInt32)) }

// agreed says that both sides speak the extension. It is the owner's.
func (k *conn) agreed() bool { return k.session != 0 }

// A channelLink is what has a channel of a connection: a link or a queueLink. Its
// methods are the owner's.
type channelLink interface {
	flag() *bool
	serve()                          // sends what its state calls for
	expects(m *message) bool         // says whether the broker may send that message now
	handle(frame []byte, m *message) // takes a message that it expects
	lost(why cause)                  // ends it for good, without the broker
}

// A linkBase is what they have in common.
type linkBase struct {
	conn    *conn
	channel uint32
	opened  chan error // gets the answer to the open
	done    chan struct{}

	opener  opener  // whose end it is, from the outcome on
	outcome outcome // of the open; guarded by the client's mu

	posted bool // guarded by conn.posted

	// The rest belongs to the connection's owner.
	state    linkState
	answered bool // opened has its answer

	// Likewise; a queueLink's are written with its queue's mu held, too.
	inFlight int  // bytes in WRITEs that are not answered
	moving   bool // some WRITE was answered
}

func newLinkBase(k *conn, o opener) linkBase {
	return linkBase{conn: k, opener: o, opened: make(chan error, 1), done: make(chan struct{})}
}

// An outcome is what the opener and the connection's owner agree on, if the opener's
// time is over at the moment at which the answer comes.
type outcome byte

const (
	pending outcome = iota
	opened
	givenUp
)

var errGivenUp = errors.New("the open was given up")

// giveUp says false if the end is open.
func (l *linkBase) giveUp() bool {
	c := l.conn.client
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.outcome == pending {
		l.outcome = givenUp
	}
	return l.outcome == givenUp
}

// accepted takes the broker's word that the end is open, and with shows set, tells it
// that the opener knows. Where that has given up, it will be closed.
func (l *linkBase) accepted(shows bool) {
	if l.answered || l.conn.client.enter(l.opener, func() error {
		if l.outcome == givenUp {
			return errGivenUp
		}
		l.outcome = opened
		return nil
	}) != nil {
		return
	}
	l.answer(nil)
	if shows && l.conn.able&ableHere != 0 {
		l.send(&message{id: msgRead, flags: readHere})
	}
}

// A streamLink is the client's side of one stream's end on a connection.
type streamLink struct {
	linkBase
	role role
	mode byte  // of its INPUT
	pipe *pipe // the end's own; the link is its other side

	// The rest belongs to the connection's owner.
	sent    []int // sizes of the WRITEs that are not answered
	asked   int   // bytes that READs have asked for and that have not come
	ofQueue bool  // the pipe is a queue, whose chunks are not asked for ahead
}

type linkState byte

const (
	linkNew linkState = iota
	linkOpening
	linkOpen
	linkClosing
	linkDone
)

func (l *linkBase) flag() *bool { return &l.posted }

func (l *linkBase) block() blockState {
	if l.conn.agreed() {
		return hasBlock
	}
	return noBlock
}

func (l *linkBase) send(m *message) {
	m.block, m.channel = l.block(), l.channel
	l.conn.send(m)
}

// fly counts bytes that a WRITE carries, or that were answered.
func (l *linkBase) addInFlight(n int) {
	l.inFlight += n
	l.conn.addInFlight(n)
}

func (k *conn) addInFlight(n int) {
	k.inFlight.Add(int64(n))
	if n < 0 && len(k.held) > 0 {
		for l := range k.held {
			k.post(l)
		}
		clear(k.held)
	}
}

// mayFollow says that n bytes may leave behind others that are not answered. The
// connection's total is kept by halves: what leaves alone needs the other one.
func (l *linkBase) mayFollow(n int) bool {
	k := l.conn
	return l.moving && l.inFlight+n <= k.channelWindow && int(k.inFlight.Load())+n <= k.connWindow/2
}

// begin gives self, whose base this is, a channel.
func (l *linkBase) begin(self channelLink) {
	l.state = linkOpening
	l.channel = l.conn.newChannel()
	l.conn.links[l.channel] = self
}

// serve sends what the end's state calls for.
func (l *streamLink) serve() {
	p := l.pipe
	p.mu.Lock()
	defer p.mu.Unlock()
	own := p.side(l.role)
	switch {
	case l.state == linkNew && own.left:
		l.finish()
	case l.state == linkNew:
		l.begin(l)
		id := msgInput
		if l.role == writer {
			id = msgOutput
		}
		l.send(&message{id: id, text: []byte(p.name), mode: l.mode})
	case l.state == linkOpening && own.left:
		// Given up: behind this CLOSE the name is free for the next open.
		l.close(own.cause)
	case l.state == linkOpen && l.role == writer:
		l.serveWriter()
	case l.state == linkOpen:
		l.serveReader()
	}
}

// serveWriter sends what is in the window. One message is on its way at once;
// behind it, once the broker has taken anything at all, others leave when they
// are full. p.mu is held.
func (l *streamLink) serveWriter() {
	p, most := l.pipe, l.conn.most
	if l.probing() {
		switch {
		case !p.writer.left:
			l.sendProbe()
		case p.writer.cause.code != causeClosed || len(l.sent) == 0:
			l.close(p.writer.cause)
		}
		return
	}
	for p.buf.n > 0 && !p.reader.left {
		if l.inFlight > 0 && (p.buf.n < most || !l.mayFollow(most)) {
			break
		}
		c := p.slice(min(p.buf.n, most, l.conn.share()), true)
		n := c.w - c.r
		l.sent = append(l.sent, n)
		l.addInFlight(n)
		l.conn.sendFrame(c.frame(msgWrite, l.block(), l.channel))
		c.release()
	}
	if p.ending && len(l.sent) == 0 && !l.moving && !p.reader.left {
		l.seek()
	}
	p.reader.want = 1
	if l.inFlight > 0 {
		p.reader.want = most
	}
	if p.writer.left {
		l.close(p.writer.cause)
	}
}

// seek has the broker say when there is a reader: a WRITE, even of nothing, is not
// answered before. p.mu is held.
func (l *streamLink) seek() {
	if l.conn.able&ableHere == 0 {
		// An older broker of ours: if this is a queue, nothing is a chunk to it.
		l.pipe.met = true
		l.pipe.wakeSide(&l.pipe.writer)
		return
	}
	l.sent = append(l.sent, 0)
	l.send(&message{id: msgWrite})
}

// serveReader asks for as much as there is room for. p.mu is held.
func (l *streamLink) serveReader() {
	p := l.pipe
	if p.reader.left {
		l.close(p.reader.cause)
		return
	}
	if p.limit == 0 || p.writer.left {
		return
	}
	if l.ofQueue {
		// The next Read that waits sets the limit anew.
		if p.limit = 0; l.asked == 0 && p.buf.n == 0 {
			l.asked = p.asks
			l.send(&message{id: msgRead, size: uint32(p.asks), flags: readAny})
		}
		return
	}
	want := p.room() - l.asked
	if !l.conn.agreed() {
		l.askBase(p.room())
	} else if want > 0 && (want >= p.limit/2 || l.asked == 0) {
		l.send(&message{id: msgRead, size: uint32(want), flags: readAny | readStream})
		l.asked += want
	}
	if p.writer.want = 0; l.asked <= p.limit/2 {
		p.writer.want = max(1, p.limit/2+l.asked)
	}
}

// close ends the link in the way that the broker can be told. p.mu is held.
func (l *streamLink) close(why cause) {
	if !l.conn.agreed() && l.role == writer && (why.code != causeClosed || len(l.sent) > 0) {
		// To the base protocol every CLOSE is a clean end. A connection that
		// just ends is not, or will not be before its time.
		l.conn.kill("the writer gave up")
		l.finish()
		return
	}
	m := message{id: msgClose, code: why.code, cause: []byte(why.text)}
	if l.ofQueue {
		if m.count = uint32(l.pipe.unread); l.asked > 0 {
			m.count = math.MaxUint32
		}
	}
	l.state = linkClosing
	l.send(&m)
}

// finish takes the link off the connection.
func (l *linkBase) finish() {
	if l.state == linkDone {
		return
	}
	if l.state != linkNew {
		delete(l.conn.links, l.channel)
	}
	l.state = linkDone
	l.conn.addInFlight(-l.inFlight)
	close(l.done)
	if !l.conn.agreed() {
		l.conn.retire()
	}
}

// expects says whether the broker may send that message now.
func (l *streamLink) expects(m *message) bool {
	opened := l.state == linkOpen || l.state == linkClosing
	switch m.id {
	case msgInputOK, msgInputFailed, msgOutputOK, msgOutputFailed:
		return !l.answered && (l.role == reader) == (m.id == msgInputOK || m.id == msgInputFailed)
	case msgReadOK:
		return opened && l.role == reader && len(m.chunk) <= l.answersRead(m) && l.answersRead(m) <= l.asked
	case msgReadEnd, msgReadFailed:
		return opened && l.role == reader
	case msgWriteOK:
		return opened && l.role == writer && len(l.sent) > 0
	case msgWriteTimeout:
		return opened && l.probing() && len(l.sent) > 0
	case msgWriteFailed:
		return opened && l.role == writer
	case msgCloseOK, msgCloseFailed:
		return l.state == linkClosing
	case msgInvalid:
		return true
	}
	return false // READ_TIMEOUT, since no READ has one, and a client's messages
}

// handle takes one message for this link, which expects it.
func (l *streamLink) handle(frame []byte, m *message) {
	switch m.id {
	case msgInputOK, msgOutputOK:
		l.ofQueue = m.mode == modeQueue
		l.accepted(true)
		if l.state == linkOpening {
			l.state = linkOpen
			l.serve() // the opener may have gone
		}
	case msgInputFailed, msgOutputFailed:
		why := cause{m.code, string(m.cause)}
		if m.block == noBlock {
			why = cause{causeBusy, string(m.text)}
		}
		l.answer(why.openError())
		l.finish()
	case msgReadOK:
		l.arrived(frame, m)
	case msgReadEnd:
		l.ended(cause{})
	case msgReadFailed:
		why := cause{m.code, string(m.cause)}
		if why.code == causeClosed { // which it is not
			why = cause{causeAborted, string(m.text)}
		}
		l.ended(why)
	case msgWriteFailed:
		l.ended(cause{m.code, string(m.cause)})
	case msgWriteOK:
		l.acknowledged(m)
	case msgWriteTimeout:
		l.probeAnswered()
	case msgCloseOK, msgCloseFailed:
		l.finish()
	case msgInvalid:
		l.lost(cause{causeBrokerGone, "it has dropped this end"})
	}
}

// answer gives the opener the answer, once.
func (l *linkBase) answer(err error) {
	if !l.answered {
		l.answered = true
		l.opened <- err
	}
}

func (l *streamLink) arrived(frame []byte, m *message) {
	p := l.pipe
	p.mu.Lock()
	if l.asked -= l.answersRead(m); l.ofQueue {
		l.asked = 0
	}
	if !p.reader.left {
		p.take(frame, m)
	}
	p.mu.Unlock()
	l.serve()
}

func (l *streamLink) acknowledged(m *message) {
	n := l.sent[0]
	if l.sent = l.sent[1:]; len(l.sent) == 0 {
		l.sent = nil
	}
	l.addInFlight(-n)
	l.moving = true
	p := l.pipe
	p.mu.Lock()
	p.granted = int(min(m.count, math.MaxInt32))
	p.met = true
	p.confirm(n)
	p.settle()
	p.mu.Unlock()
	l.serve()
}

// ended records that the other end, or the broker, has ended the pipe.
func (l *streamLink) ended(why cause) {
	p := l.pipe
	p.mu.Lock()
	p.leave(1-l.role, why)
	p.mu.Unlock()
}

// lost ends the link for good, without the broker.
func (l *streamLink) lost(why cause) {
	if l.state == linkDone {
		return // it was over before
	}
	l.answer(why.openError())
	l.ended(why)
	l.finish()
}
