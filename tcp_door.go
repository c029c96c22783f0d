//go:build !core

package zpipes

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A tcpDoor is where clients come to a broker that has a Key, from other machines. It
// stands in front of libzmq, which encrypts (CURVE), and passes on what travels. Who comes
// is a stranger until libzmq has let him in: so long the door looks at each frame, as far
// as they are not encrypted, and a stranger costs the broker little for a little time.
//
// libzmq has a place for each secret, with its own broker key, since one place can have
// one key alone. Which one a client means, only that place itself can tell: the door tries
// one after the other. So a Broker's secrets can change while it is served.
type tcpDoor struct {
	broker    *Broker
	listeners []net.Listener
	strangers strangers
	sluices   sluices
	serving   sync.WaitGroup

	mu     sync.Mutex           // guards what follows; no other lock is taken under it
	places []keyPlace           // of libzmq's, the one in use first
	inside map[net.Conn]bool    // all connections; true: it is no stranger any more
	heard  map[string]*lifeSign // by the address that libzmq sees, when something came; see heardOf
	closed bool                 // nobody is let in any more
	ended  bool                 // and who is inside has to go
}

// A keyPlace is where libzmq has one of the broker's keys.
type keyPlace struct {
	secret   secret
	endpoint string
}

const (
	// handshakeTime is how long a stranger may stay one.
	handshakeTime = 5 * time.Second
	// partTime is how long one direction may take to end when the other has ended.
	partTime = time.Second
)

// What is said before anything is encrypted: ZMTP 3.0 (ZeroMQ's RFC 23) and CURVE (26).
const (
	greetingBytes = 64
	helloBytes    = 200
	welcomeBytes  = 168
	// initiateBytes is more than a client's last word in a handshake has, with what it
	// says of itself.
	initiateBytes = 2 << 10
	revisionAt    = 10 // in a greeting
	mechanismAt   = 12

	mechanismBytes = 20
	commandFlag    = 4
	longFlag       = 2
)

// helloHead is how a client's HELLO begins, a command with its version.
const helloHead = "\x04\xc8\x05HELLO\x01\x00"

// firstWords are a client's, in which the greeting may differ, and HELLO has its key.
var firstWords = append(bytes.Clone(greeting), append([]byte(helloHead), make([]byte, 2+helloBytes-len(helloHead))...)...)

// greeting is what the door says first.
var greeting = []byte("\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x00CURVE" + strings.Repeat("\x00", 15) + "\x01" + strings.Repeat("\x00", 31))

var (
	errGoes       = errors.New("it has hung up") // which is for nobody to know
	errAnswered   = errors.New("libzmq has told it why")
	errNotZMTP    = errors.New("it does not speak ZeroMQ's protocol (ZMTP 3)")
	errNoCurve    = errors.New("it comes without a key; ClientConfig.Key has to be set there")
	errWrongKey   = errors.New("it wants a broker with another secret, or another BrokerKey, than this one has")
	errStalled    = fmt.Errorf("it took more than %v to say who it is", handshakeTime)
	errHandshake  = errors.New("it broke the protocol of the handshake")
	errNotServing = errors.New("the broker does not answer itself")
)

// listen opens the door at one more address, for serve.
func (d *tcpDoor) listen(address string) (at string, err error) {
	l, err := net.Listen("tcp", address)
	if isOneOf(err, syscall.EADDRINUSE) {
		return "", errTaken
	}
	if err != nil {
		return "", err
	}
	d.listeners = append(d.listeners, l)
	host, _, _ := net.SplitHostPort(address)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if host == "" {
		host = "*"
	}
	return "tcp://" + net.JoinHostPort(host, port), nil
}

// serve lets clients in, until close.
func (d *tcpDoor) serve() {
	for _, l := range d.listeners {
		d.serving.Go(func() { acceptAll(d.broker, "tcp", "tcp://"+l.Addr().String(), l.Accept, d.knock) })
	}
}

// knock has a stranger looked at, if there are not too many.
func (d *tcpDoor) knock(c net.Conn) {
	leave, err := d.strangers.enter(c)
	c.SetDeadline(time.Now().Add(handshakeTime))
	if err == nil && !d.enter(c, false) {
		leave()
		err = errGoes
	}
	if err != nil {
		d.refuse(c, err)
		c.Close()
		return
	}
	d.serving.Go(func() {
		defer d.leave(c)
		inner, err := d.introduce(c)
		leave()
		if err != nil {
			d.refuse(c, err)
			return
		}
		if d.enter(c, true) {
			heard := d.listenTo(inner)
			d.pass(c, inner, heard)
			d.forget(inner)
		}
		inner.Close()
	})
}

func (d *tcpDoor) refuse(c net.Conn, why error) {
	if !d.broker.serving() {
		return
	}
	if errors.Is(why, os.ErrDeadlineExceeded) {
		why = errStalled
	}
	host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
	switch why {
	case errGoes:
		return
	case errAnswered: // the ZAP handler has told which key it was, and counted it
		d.broker.log.info("a client was refused for its key", "peer", host)
		return
	}
	d.broker.refused(host, why)
}

// enter notes a connection, a stranger's or not; false: none is let in any more.
func (d *tcpDoor) enter(c net.Conn, known bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	if d.inside[c] = known; known {
		c.SetDeadline(time.Time{})
	}
	return true
}

// listenTo has heardOf know of a connection to libzmq.
func (d *tcpDoor) listenTo(inner net.Conn) (heard *lifeSign) {
	heard = new(lifeSign)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.heard[inner.LocalAddr().String()] = heard
	return heard
}

func (d *tcpDoor) forget(inner net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.heard, inner.LocalAddr().String())
}

// heardOf is when something last came from a client, though it may be only a part of a
// message, which libzmq keeps until it is whole; zero, if nothing is known of it. On a slow
// way a large one takes long.
func (d *tcpDoor) heardOf(client *netSocket) time.Time {
	if client == nil {
		return time.Time{}
	}
	address := client.peerName()
	d.mu.Lock()
	defer d.mu.Unlock()
	if at := d.heard[address]; at != nil {
		return at.time()
	}
	return time.Time{}
}

func (d *tcpDoor) leave(c net.Conn) {
	c.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.inside, c)
}

// setPlaces says where to bring clients from now on.
func (d *tcpDoor) setPlaces(places []keyPlace) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.places = places
}

func (d *tcpDoor) allPlaces() []keyPlace {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.places
}

// introduce takes a stranger to libzmq, and returns the connection to it once he is let in.
func (d *tcpDoor) introduce(c net.Conn) (net.Conn, error) {
	said, err := d.greet(c)
	if err != nil {
		return nil, err
	}
	for _, p := range d.allPlaces() {
		inner, err := d.reach(p)
		if err != nil {
			return nil, err
		}
		inner.SetDeadline(time.Now().Add(handshakeTime))
		welcome, err := tell(inner, said)
		if err == nil {
			if err = d.vouch(c, inner, welcome); err == nil {
				inner.SetDeadline(time.Time{})
				return inner, nil
			}
		}
		inner.Close()
		if err != errWrongKey {
			return nil, err
		}
	}
	return nil, errWrongKey
}

// greet says what is said first, and returns what the stranger has said: greeting and
// HELLO. As soon as it is clear that he is none of ours, it waits for no more.
func (d *tcpDoor) greet(c net.Conn) (said []byte, err error) {
	// A client says the second half of its greeting when it has our first, and so do we:
	// one that has read all of ours may hang up before it says what it wants.
	half := revisionAt + 1
	if _, err := c.Write(greeting[:half]); err != nil {
		return nil, errGoes
	}
	said = make([]byte, len(firstWords))
	for n := 0; n < len(said); {
		before := n
		more, err := c.Read(said[n:])
		n += more
		if n > 0 && said[0] != greeting[0] || n >= half && said[revisionAt] < greeting[revisionAt] {
			return nil, errNotZMTP
		}
		if n >= half && before < half {
			if _, err := c.Write(greeting[half:]); err != nil {
				return nil, errGoes
			}
		}
		if n >= greetingBytes && !bytes.HasPrefix(said[mechanismAt:], greeting[mechanismAt:mechanismAt+mechanismBytes]) {
			c.SetReadDeadline(time.Now().Add(partTime))
			io.Copy(io.Discard, io.LimitReader(c, initiateBytes)) // it hangs up when it has read ours
			return nil, errNoCurve
		}
		if n > greetingBytes && !bytes.HasPrefix(said[greetingBytes:], firstWords[greetingBytes:min(n, greetingBytes+len(helloHead))]) {
			return nil, errHandshake
		}
		if err != nil && n < len(said) {
			return nil, gone(err)
		}
	}
	return said, nil
}

// mechanismOf asks whoever serves the other end how connections are encrypted: "NULL" is
// not at all.
func mechanismOf(c net.Conn) (string, error) {
	// Before the first half of a greeting, libzmq does not say the second one.
	if _, err := c.Write(greeting[:revisionAt+1]); err != nil {
		return "", err
	}
	said := make([]byte, greetingBytes)
	if _, err := io.ReadFull(c, said); err != nil {
		return "", err
	}
	name, _, _ := bytes.Cut(said[mechanismAt:mechanismAt+mechanismBytes], []byte{0})
	return string(name), nil
}

// gone is what is to be said of one whose connection has ended, or takes too long.
func gone(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errStalled
	}
	return errGoes
}

// reach connects to a place of libzmq's.
func (d *tcpDoor) reach(p keyPlace) (net.Conn, error) {
	network, address, err := dialAddress(p.endpoint, true)
	if err == nil {
		dialer := net.Dialer{Timeout: handshakeTime}
		if network == "unix" {
			// An address of its own, which libzmq's end of the connection has then, too.
			dialer.LocalAddr = &net.UnixAddr{Net: network, Name: "@zpipes-" + rand.Text()}
		}
		var c net.Conn
		if c, err = dialer.Dial(network, address); err == nil {
			return c, nil
		}
	}
	return nil, fmt.Errorf("%w: %w", errNotServing, err)
}

// tell tells libzmq what the stranger has said, and returns its answer: it says nothing
// if that needs another key than it has.
func tell(inner net.Conn, said []byte) (welcome []byte, err error) {
	if _, err := inner.Write(said); err != nil {
		return nil, errWrongKey
	}
	answer := make([]byte, greetingBytes+2+welcomeBytes)
	_, err = io.ReadFull(inner, answer)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, errNotServing
	case err != nil: // of its greeting it may have said only a part
		return nil, errWrongKey
	}
	return answer[greetingBytes:], nil
}

// vouch passes on the rest of the handshake, in which libzmq has the ZAP handler asked.
func (d *tcpDoor) vouch(c, inner net.Conn, welcome []byte) error {
	if _, err := c.Write(welcome); err != nil {
		return errGoes
	}
	initiate, err := readCommand(c)
	if err != nil {
		return err
	}
	if _, err := inner.Write(initiate); err != nil {
		return errNotServing
	}
	answer, err := readCommand(inner)
	if err != nil {
		return errHandshake // libzmq has hung up
	}
	if _, err := c.Write(answer); err != nil {
		return errGoes
	}
	if !bytes.Contains(answer[:min(len(answer), 16)], []byte("\x05READY")) {
		return errAnswered
	}
	return nil
}

// readCommand reads a frame that is a small command, and no byte more.
func readCommand(c net.Conn) ([]byte, error) {
	frame := make([]byte, 9, initiateBytes)
	if _, err := io.ReadFull(c, frame[:2]); err != nil {
		return nil, gone(err)
	}
	head, size := 2, int(frame[1])
	switch frame[0] {
	case commandFlag:
	case commandFlag | longFlag:
		if _, err := io.ReadFull(c, frame[2:9]); err != nil {
			return nil, gone(err)
		}
		head, size = 9, math.MaxInt
		if bytes.Equal(frame[1:7], make([]byte, 6)) {
			size = int(frame[7])<<8 | int(frame[8])
		}
	default:
		return nil, errHandshake
	}
	if size > initiateBytes-head {
		return nil, errHandshake
	}
	frame = frame[:head+size]
	if _, err := io.ReadFull(c, frame[head:]); err != nil {
		return nil, gone(err)
	}
	return frame, nil
}

// stop lets nobody in any more, and has strangers leave; those who are inside stay.
func (d *tcpDoor) stop() {
	d.mu.Lock()
	d.closed = true
	for c, known := range d.inside {
		if !known {
			c.SetDeadline(time.Now())
		}
	}
	d.mu.Unlock()
	for _, l := range d.listeners {
		l.Close()
	}
}

// close waits until all have left. Without libzmq, nobody stays for long.
func (d *tcpDoor) close() {
	d.stop()
	d.mu.Lock()
	d.ended = true
	for c := range d.inside {
		c.SetDeadline(time.Now().Add(partTime))
	}
	d.mu.Unlock()
	d.serving.Wait()
	d.sluices.close()
}

// sameProcess says that an address, as libzmq has it, is this process's own, as far as the
// system tells: at libzmq's places nobody else has business.
func sameProcess(address string) bool {
	who, told := strings.CutPrefix(address, localPeer+":")
	return runtime.GOOS != "linux" || !told || strings.HasSuffix(who, ":"+strconv.Itoa(os.Getpid()))
}
