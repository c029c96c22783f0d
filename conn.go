//go:build cgo

package zpipes

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/pebbe/zmq4"
)

// A conn is a client's connection to a broker elsewhere: one socket, and a
// goroutine that owns it. On a broker that has agreed to the extension it
// carries any number of links; on another just one.
type conn struct {
	client *Client
	host   *Broker // of the context, where that is a broker's (inproc)
	agreed bool    // set before the connection is handed out

	posted mailbox[*link]
	done   chan struct{} // closed when the socket is

	greeted chan hello // gets the answer to the first PING

	mu       sync.Mutex // guards what follows; a mailbox's mu may be taken under it
	err      error      // why the connection is no more; nil while it is
	killed   error      // the owner is to end it for this reason
	retiring time.Time  // the owner is to end it once no link is left, or at this time
	asked    int        // PINGs to be sent
	waiting  []chan struct{}
	lastLink uint32

	// The rest belongs to the owner.
	sock    *socket
	links   map[uint32]*link
	heard   time.Time
	beat    time.Time // when to send the next heartbeat
	session uint64
	credit  int  // bytes that a link may have in unanswered WRITEs
	most    int  // bytes in one of them
	met     bool // the first PING was answered
	scratch []byte
}

const (
	redialAfter  = 5 * time.Millisecond
	redialAtMost = 100 * time.Millisecond
	// partingTime is how long a connection that nobody uses any more waits for
	// answers to its last CLOSEs.
	partingTime = time.Second
)

// dial connects and finds out what the broker can do. It retries while nobody
// serves the endpoint, until ctx ends.
func dial(ctx context.Context, c *Client) (*conn, error) {
	for pause := redialAfter; ; pause = min(2*pause, redialAtMost) {
		k, err := dialOnce(ctx, c)
		if err == nil || !errors.Is(err, ErrNoBroker) && !errors.Is(err, ErrBrokerGone) {
			return k, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w (%w)", err, ctx.Err())
		case <-time.After(pause):
		}
	}
}

func dialOnce(ctx context.Context, c *Client) (*conn, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	k := &conn{
		client:  c,
		done:    make(chan struct{}),
		links:   make(map[uint32]*link),
		greeted: make(chan hello, 1),
	}
	zctx, err := k.reach(ctx)
	if err != nil {
		return nil, err
	}
	if k.sock, err = newDealer(zctx, c.endpoint); err == nil && !c.adopt(k) {
		k.sock.close(0)
		err = context.Canceled
	}
	if err != nil {
		if k.host != nil {
			k.host.guests.left(k)
		}
		return nil, err
	}
	go k.run()
	select {
	case h := <-k.greeted:
		k.agreed = h.version > 0
		return k, nil
	case <-k.done:
		return nil, k.gone()
	case <-ctx.Done():
		k.kill("no answer")
		return nil, ctx.Err()
	}
}

// reach returns the ZeroMQ context to connect in, if somebody serves the
// endpoint: a socket that finds nobody never says so.
func (k *conn) reach(ctx context.Context) (*zmq4.Context, error) {
	c := k.client
	if name, ok := strings.CutPrefix(c.endpoint, inprocEndpoint("")); ok {
		b := here.find(name)
		if b == nil || !b.guests.admit(k) {
			return nil, fmt.Errorf("%w: this process runs none at %s", ErrNoBroker, c.endpoint)
		}
		k.host = b
		return b.ctx, nil
	}
	network, address, err := dialAddress(c.endpoint)
	if err != nil {
		return nil, err
	}
	if network == "" {
		return nil, fmt.Errorf("%w: this process runs none at %s", ErrNoBroker, c.endpoint)
	}
	probe, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoBroker, err)
	}
	probe.Close()
	return c.context()
}

func (k *conn) alive() bool { return k.gone() == nil }

// gone is why the connection is no more, or nil.
func (k *conn) gone() error {
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
		return k.gone()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// open opens an end of p's pipe at the broker. An open that is given up is
// closed when its answer comes.
func (k *conn) open(ctx context.Context, p *pipe, r role) (*link, error) {
	l := &link{conn: k, pipe: p, role: r, opened: make(chan error, 1), done: make(chan struct{})}
	k.mu.Lock()
	if k.agreed {
		k.lastLink++
		l.channel = k.lastLink
	}
	k.mu.Unlock()
	p.mu.Lock()
	p.attach(1-r, func() { k.post(l) })
	if r == writer {
		p.reader.want = 1
	}
	p.mu.Unlock()
	k.post(l)
	select {
	case err := <-l.opened:
		return l, err
	case <-k.done:
		return nil, k.gone()
	case <-ctx.Done():
		p.mu.Lock()
		p.leave(r, cause{})
		p.mu.Unlock()
		return nil, ctx.Err()
	}
}

func (k *conn) post(l *link) {
	if k.posted.put(l, &l.posted) {
		k.sock.wake()
	}
}

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
	for _, l := range k.posted.fetch((*link).flag) {
		l.lost(cause{causeBrokerGone, reason})
	}
	k.sock.close(0)
	if k.host != nil {
		k.host.guests.left(k)
	}
	k.client.disown(k)
	k.client.cfg.Logger.Info("connection ended", "broker", k.client.broker, "reason", reason)
	close(k.done)
}

// loop returns why the connection is over.
func (k *conn) loop() (reason string) {
	for {
		now := time.Now()
		n := 0
		for ; n < batch; n++ {
			p, ok := k.sock.recv()
			if !ok {
				break
			}
			k.heard = now
			if reason := k.handle(p.frame); reason != "" {
				return reason
			}
		}
		posted := k.posted.fetch((*link).flag)
		for _, l := range posted {
			l.serve()
		}
		if reason := k.tick(now); reason != "" {
			return reason
		}
		if n == 0 && len(posted) == 0 && !k.sock.connected() {
			return errGone.Error()
		}
		if n < batch {
			k.sock.wait(k.beat)
		}
	}
}

// tick does what the clock and other goroutines ask for.
func (k *conn) tick(now time.Time) (reason string) {
	interval := k.client.cfg.Heartbeat
	if silent := now.Sub(k.heard); silent > missedBeats*interval {
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
			return "the client was closed"
		}
	}
	if !now.Before(k.beat) {
		k.beat = now.Add(interval)
		asked++
		k.mu.Lock()
		k.waiting = append(k.waiting, nil)
		k.mu.Unlock()
	}
	for range asked {
		k.send(&message{id: msgPing, block: hasBlock, hello: hello{
			version: protocolVersion,
			session: k.session,
			number:  uint32(interval / time.Millisecond),
		}})
	}
	return ""
}

func (k *conn) send(m *message) {
	k.scratch = m.append(k.scratch[:0])
	k.sendFrame(k.scratch)
}

// sendFrame hands a frame over. That it failed shows soon enough: the
// connection is not there any more.
func (k *conn) sendFrame(frame []byte) { k.sock.send(frame) }

// handle takes one message from the broker.
func (k *conn) handle(frame []byte) (reason string) {
	m, err := parse(frame)
	if err != nil {
		return "the broker broke the protocol: " + err.Error()
	}
	if m.id == msgPingOK {
		return k.pong(&m)
	}
	if k.session != 0 && m.block != hasBlock || m.id == msgInvalid && m.channel == 0 && k.session != 0 {
		if len(m.cause) > 0 {
			return string(m.cause)
		}
		return "it has dropped this connection"
	}
	l := k.links[m.channel]
	if l == nil {
		return "" // an answer behind a CLOSE_OK
	}
	l.handle(frame, &m)
	return ""
}

func (k *conn) pong(m *message) (reason string) {
	k.mu.Lock()
	var answer chan struct{}
	if len(k.waiting) > 0 {
		answer = k.waiting[0]
		k.waiting = k.waiting[1:]
	}
	k.mu.Unlock()
	if answer != nil {
		close(answer)
	}
	h := m.hello
	if m.block != hasBlock {
		h = hello{}
	}
	if !k.met {
		k.met = true
		k.session, k.credit, k.most = h.session, int(h.number), largeChunk
		if k.session == 0 {
			k.credit = math.MaxInt // it takes what it gets
		} else {
			// A larger one would wait for an empty pipe.
			k.most = max(1, min(k.most, int(h.pending)))
		}
		k.client.cfg.Logger.Info("connected", "broker", k.client.broker, "extended", h.version > 0)
		k.greeted <- h
	} else if h.session != k.session {
		return "it has dropped this connection"
	}
	return ""
}

// A link is the client's side of one pipe end on a connection.
type link struct {
	conn    *conn
	channel uint32
	role    role
	pipe    *pipe      // the end's own; the link is its other side
	opened  chan error // gets the answer to the open
	done    chan struct{}

	posted bool // guarded by conn.posted

	// The rest belongs to the connection's owner.
	state  linkState
	sent   []int // sizes of the WRITEs that are not answered
	flight int   // their sum
	asked  int   // bytes that READs have asked for and that have not come
}

type linkState byte

const (
	linkNew linkState = iota
	linkOpening
	linkOpen
	linkClosing
	linkDone
)

func (l *link) flag() *bool { return &l.posted }

func (l *link) send(m *message) {
	if l.conn.session != 0 {
		m.block, m.channel = hasBlock, l.channel
	}
	l.conn.send(m)
}

// serve sends what the end's state calls for.
func (l *link) serve() {
	switch l.state {
	case linkNew:
		l.state = linkOpening
		l.conn.links[l.channel] = l
		id := msgInput
		if l.role == writer {
			id = msgOutput
		}
		l.send(&message{id: id, text: []byte(l.pipe.name)})
	case linkOpen:
		if l.role == writer {
			l.serveWriter()
		} else {
			l.serveReader()
		}
	}
}

func (l *link) serveWriter() {
	p := l.pipe
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.buf.n > 0 && !p.reader.left {
		// One message is on its way at once; behind it, others leave when they
		// are full, as far as the broker lets them.
		if l.flight > 0 && (p.buf.n < l.conn.most || l.flight+l.conn.most > l.conn.credit) {
			break
		}
		c := p.slice(min(p.buf.n, l.conn.most), true)
		n := c.w - c.r
		l.sent = append(l.sent, n)
		l.flight += n
		p.mu.Unlock()
		block := noBlock
		if l.conn.session != 0 {
			block = hasBlock
		}
		l.conn.sendFrame(c.frame(msgWrite, block, l.channel))
		c.release()
		p.mu.Lock()
	}
	p.reader.want = 1
	if l.flight > 0 {
		p.reader.want = l.conn.most
	}
	if p.writer.left {
		l.close(p.writer.cause)
	}
}

func (l *link) serveReader() {
	p := l.pipe
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reader.left {
		l.close(p.reader.cause)
		return
	}
	if p.limit == 0 || p.writer.left {
		return
	}
	want := p.room() - l.asked
	if l.conn.session == 0 {
		l.askOld(want)
	} else if want >= p.limit/2 || l.asked == 0 && want > 0 {
		l.send(&message{id: msgRead, size: uint32(want), flags: readAny | readStream})
		l.asked += want
	}
	if p.writer.want = 0; l.asked <= p.limit/2 {
		p.writer.want = max(1, p.limit/2+l.asked)
	}
}

// maxOldReads is how many READs wait at an old broker at once.
const maxOldReads = 256

// askOld reads from a broker that answers with exactly what it was asked for.
func (l *link) askOld(want int) {
	size := l.conn.client.cfg.ReadSize
	most := max(1, min(want+l.asked, maxOldReads*size)/size) * size
	if l.asked > most/2 {
		return
	}
	for ; l.asked < most; l.asked += size {
		l.send(&message{id: msgRead, size: uint32(size)})
	}
}

// close ends the link in the way that the broker can be told. p.mu is held.
func (l *link) close(why cause) {
	if l.conn.session == 0 && l.role == writer && (why.code != causeClosed || l.flight > 0) {
		// To the old protocol every CLOSE is a clean end. A connection that
		// just ends is not, or will not be before its time.
		l.conn.kill("the writer gave up")
		l.finish()
		return
	}
	l.state = linkClosing
	l.send(&message{id: msgClose, code: why.code, cause: []byte(why.text)})
}

// finish takes the link off the connection.
func (l *link) finish() {
	if l.state == linkDone {
		return
	}
	l.state = linkDone
	delete(l.conn.links, l.channel)
	close(l.done)
	if l.conn.session == 0 {
		l.conn.retire()
	}
}

// handle takes one message for this link.
func (l *link) handle(frame []byte, m *message) {
	switch m.id {
	case msgInputOK, msgOutputOK:
		l.isOpen()
	case msgInputFailed, msgOutputFailed:
		why := cause{m.code, string(m.cause)}
		if m.block == noBlock {
			why = cause{causeBusy, string(m.text)}
		}
		l.opened <- why.openError()
		l.finish()
	case msgReadOK:
		l.arrived(frame, m)
	case msgReadEnd:
		l.ended(cause{})
	case msgReadFailed, msgWriteFailed:
		why := cause{m.code, string(m.cause)}
		if m.block == noBlock && m.id == msgReadFailed {
			why = cause{causeAborted, string(m.text)}
		}
		l.ended(why)
	case msgWriteOK:
		l.acknowledged()
	case msgCloseOK, msgCloseFailed:
		l.finish()
	case msgInvalid:
		l.lost(cause{causeBrokerGone, "it has dropped this end"})
	}
}

func (l *link) isOpen() {
	if l.state != linkOpening {
		return
	}
	l.state = linkOpen
	l.opened <- nil
	l.serve() // the opener may have gone, or may have written already
}

func (l *link) arrived(frame []byte, m *message) {
	p := l.pipe
	p.mu.Lock()
	l.asked -= min(l.asked, len(m.chunk))
	if !p.reader.left {
		p.take(frame, m)
	}
	p.mu.Unlock()
	l.serve()
}

func (l *link) acknowledged() {
	if len(l.sent) == 0 {
		return
	}
	n := l.sent[0]
	if l.sent = l.sent[1:]; len(l.sent) == 0 {
		l.sent = nil
	}
	l.flight -= n
	p := l.pipe
	p.mu.Lock()
	p.confirm(n)
	p.settle()
	p.mu.Unlock()
	l.serve()
}

// ended records that the other end, or the broker, has ended the pipe.
func (l *link) ended(why cause) {
	p := l.pipe
	p.mu.Lock()
	p.leave(1-l.role, why)
	p.mu.Unlock()
}

// lost ends the link for good, without the broker.
func (l *link) lost(why cause) {
	if l.state == linkNew || l.state == linkOpening {
		select {
		case l.opened <- why.openError():
		default:
		}
	}
	l.ended(why)
	l.finish()
}
