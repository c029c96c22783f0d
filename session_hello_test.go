package zpipes

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var malformed = map[string]string{
	"an empty frame":   "",
	"no signature":     "00 00 13",
	"no id":            "aaa0",
	"an unknown id":    "aaa0 ff",
	"a name cut short": "aaa0 01 05 6162",
	"a chunk too long": "aaa0 0c ffffffff 6162",
}

func TestSessionMalformedFrameOfABaseClient(t *testing.T) {
	for name, frame := range malformed {
		t.Run(name, func(t *testing.T) {
			st := newStage(t)
			st.base().raw(t, frame).gets("INVALID")
			r := st.base().input("p").gets("INPUT_OK").read(1, 0).raw(t, frame).read(1, 0).input("p").waits()
			w := st.base().output("p").gets("OUTPUT_OK").write("xy", 0).gets("WRITE_OK")
			r.gets(`READ_OK "x"`, "INVALID", "INVALID", "INPUT_OK")
			w.write("z", 0).gets("WRITE_FAILED")
			_, err := parse(unhex(t, frame))
			if !slices.Equal(st.violations, []string{err.Error(), err.Error()}) {
				t.Errorf("violations are %q, want twice %v", st.violations, err)
			}
			st.leavesNothing()
		})
	}
}

// Once channels are agreed on, a frame whose channel cannot be read may have
// been anybody's.
func TestSessionMalformedFrameOfAnAgreedClient(t *testing.T) {
	for name, frame := range malformed {
		t.Run(name, func(t *testing.T) {
			st := newStage(t)
			c := st.modern()
			c.on(1).input("p").gets("INPUT_OK").read(1, 0)
			c.on(2).output("q").gets("OUTPUT_OK").write("x", 0)
			c.on(3).output("p").gets("OUTPUT_OK")
			c.on(9).raw(t, frame)
			c.on(1).gets("READ_FAILED broker gone")
			c.on(2).gets("WRITE_FAILED broker gone")
			c.on(0).gets("INVALID broker gone")
			c.on(3).waits()
			_, err := parse(unhex(t, frame))
			if !slices.Equal(st.violations, []string{err.Error()}) {
				t.Errorf("violations are %q, want %v", st.violations, err)
			}
			st.violations = nil
			if !c.session.gone {
				t.Error("the session goes on")
			}
			c.on(1).read(1, 0).waits() // the broker does not know it any more
			c.on(0).gets("INVALID broker gone")
			if n := len(st.pipes.allPipes()); n > 0 {
				t.Errorf("%d pipes are left", n)
			}
		})
	}
}

func TestSessionBlockCutShortEndsItsChannelOnly(t *testing.T) {
	st := newStage(t)
	c := st.modern()
	w := c.on(1).output("p").gets("OUTPUT_OK")
	r := c.on(2).input("p").gets("INPUT_OK").read(1, 0)
	r.raw(t, "aaa0 07 00000001 00000000 5a50 00000002") // no flags
	r.raw(t, "aaa0 10 5a50 00000002 00 09 78")          // does not overtake
	r.waits()
	w.write("xy", 0)
	r.gets(`READ_OK "x"`, "INVALID", "INVALID")
	w.gets("WRITE_OK", "WRITE_FAILED vanished").close().gets("CLOSE_OK")
	c.on(3).raw(t, "aaa0 10 5a50 00000003").gets("INVALID")
	c.on(0).waits()
	st.sawViolations(3)
	st.leavesNothing()
}

// The two sides do not believe the same of each other, so nothing that is said
// may be done.
func TestSessionBlockWithoutAgreement(t *testing.T) {
	for _, agreed := range []bool{false, true} {
		for name, m := range map[string]message{
			"INPUT":  {id: msgInput, text: []byte("new")},
			"OUTPUT": {id: msgOutput, text: []byte("new")},
			"READ":   {id: msgRead, size: 1},
			"WRITE":  {id: msgWrite, chunk: []byte("unheard of")},
			"CLOSE":  {id: msgClose},
		} {
			t.Run(fmt.Sprintf("%s, agreed %v", name, agreed), func(t *testing.T) {
				st := newStage(t)
				r := st.modern().on(1).input("p").gets("INPUT_OK")
				l := st.base()
				if agreed {
					l = st.modern().on(0)
				}
				l.output("p").gets("OUTPUT_OK").write("confirmed", 0).gets("WRITE_OK")
				if !agreed {
					m.block = hasBlock
				}
				l.deliver(m.append(nil))
				st.sawViolations(1)
				l.gets("INVALID broker gone")
				r.read(100, 0).gets(`READ_OK "confirmed"`).read(1, 0).gets("READ_FAILED vanished")
				if len(st.pipes.pipes()) > 0 {
					t.Error("a pipe came into being")
				}
				// Afterwards the client is a new one.
				l.connect()
				l.input("new").gets("INPUT_OK")
				st.leavesNothing()
			})
		}
	}
}

func TestSessionAnswersToPing(t *testing.T) {
	st := newStage(t)
	here := hello{version: 1, session: st.tokens, number: minQueueBytes, pending: stagePending, total: 256 << 20}
	unknown := here
	unknown.session = 0
	bare := message{id: msgPingOK}
	with := func(h hello) message { return message{id: msgPingOK, block: hasBlock, hello: h} }
	ping := func(version byte, session uint64) message {
		return message{id: msgPing, block: hasBlock, hello: hello{version: version, session: session, number: 100}}
	}
	for _, test := range []struct {
		name   string
		agreed bool // before
		ping   message
		answer message
		then   bool // agreed
	}{
		{"bare", false, message{id: msgPing}, bare, false},
		{"bare, of a client that has agreed", true, message{id: msgPing}, bare, true},
		{"the first", false, ping(1, 0), with(here), true},
		{"of a later version", false, ping(9, 0), with(here), true},
		{"of version 0", false, ping(0, 0), with(unknown), false},
		{"a heartbeat", true, ping(1, st.tokens), with(here), true},
		// Both learn from the answer that their broker is not there any more.
		{"a heartbeat of an unknown session", false, ping(1, 5), with(unknown), false},
		{"a heartbeat of another session", true, ping(1, 5), with(here), true},
	} {
		c := st.call()
		if test.agreed {
			c.sayHello(100)
		}
		c.deliver(test.ping.append(nil))
		if diff := cmp.Diff([]message{test.answer}, c.hellos(), sameMessage); diff != "" {
			t.Errorf("%s: other answers than expected (-want +got):\n%s", test.name, diff)
		}
		if c.session.agreed != test.then {
			t.Errorf("%s: agreed is %v", test.name, c.session.agreed)
		}
	}

	cut := (&message{id: msgPing, block: hasBlock, hello: hello{version: 1}}).append(nil)
	c := st.call()
	c.deliver(cut[:len(cut)-1])
	if diff := cmp.Diff([]message{bare}, c.hellos(), sameMessage); diff != "" || c.session.agreed {
		t.Errorf("a block that is cut short is no agreement:\n%s", diff)
	}
}

// Settings may be larger than what the wire has room for.
func TestSessionHelloOfABrokerWithHugeLimits(t *testing.T) {
	huge := math.MaxInt - messageOverhead // as large as a message may be, also where an int has 32 bits
	for largest, pending := range map[int]uint32{huge: uint32(min(huge, math.MaxInt32)), stageMessage: stageMessage} {
		st := newStageOf(t, math.MaxInt, largest)
		c := st.call()
		c.deliver(firstPing())
		want := hello{1, st.tokens, math.MaxInt32, pending, 256 << 20, 0, 0}
		if diff := cmp.Diff(want, c.hellos()[0].hello, sameMessage); diff != "" {
			t.Errorf("hello (-want +got):\n%s", diff)
		}
	}
}

func firstPing() []byte {
	return (&message{id: msgPing, block: hasBlock, hello: hello{version: 1}}).append(nil)
}

// A first PING says that its client knows of nothing before it: what there is
// under that routing id was another one's.
func TestSessionFirstPingStartsFromNothing(t *testing.T) {
	for _, agreed := range []bool{false, true} {
		st := newStage(t)
		l := st.base()
		if agreed {
			l = st.modern().on(0)
		}
		r := st.modern().on(1)
		r.input("p").gets("INPUT_OK")
		l.output("p").gets("OUTPUT_OK").write("confirmed", 0).gets("WRITE_OK")
		if agreed {
			l.on(2).input("q").gets("INPUT_OK").read(1, 5).waits()
		}
		l.congested = true // with answers to the one before
		l.ping()
		l.congested = false
		st.tokens++
		l.sayHello(100)
		if n := len(l.session.backlog); n > 0 {
			t.Errorf("%d answers to the client before wait for the new one", n)
		}
		if n := len(l.session.channels); n > 0 || l.session.token != st.tokens {
			t.Errorf("%d conversations go on in session %x", n, l.session.token)
		}
		r.read(100, 0).gets(`READ_OK "confirmed"`).read(1, 0).gets("READ_FAILED vanished")
		st.pass(time.Hour)
		l.on(2).waits()
		l.on(1).output("p").gets("OUTPUT_OK")
		st.sawViolations(0)
		st.leavesNothing()
	}
}
