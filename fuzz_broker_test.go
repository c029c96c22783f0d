package zpipes

import (
	"bytes"
	"fmt"
	"runtime"
	"strconv"
	"testing"
	"time"
)

// Fuzzing looks for inputs that make something panic, hang, grow or go wrong:
//
//	go test -run '^$' -fuzz '^FuzzBroker$' -fuzztime 10m -fuzzminimizetime 1x .
//
// The targets are FuzzCodec (single frames), FuzzBroker and FuzzText (the core of a
// broker), FuzzWire (a whole broker) and FuzzClient (a client and a lying broker). What
// a long run has found worth keeping is in testdata/fuzz, which every go test plays.

// FuzzBroker has clients of all kinds send anything, in any order, to the core of a
// broker. It must not panic, must answer with messages that parse, must not hold more
// than it was sent and fuzzSlack for each message, and must have nothing left when all
// are gone.
//
// What it holds is the growth of Go's heap, after collections, from before the first
// message to after the last one, with all clients still there. Since collections take
// long, that is only looked at where more than the bound was allocated in the meantime,
// garbage and the test's own included. Not counted is free room at the end of a
// stream's bytes, up to 64 KiB for each pipe, which what comes next fills.
//
// Each step of the input is the client and what it does (one byte), a length, and so
// many bytes.
func FuzzBroker(f *testing.F) {
	var whole, base []byte
	for _, m := range everyMessage() {
		for channel := range uint32(3) {
			m.channel = channel
			whole = append(whole, fuzzStep(fuzzFrame|1, m.append(nil)[2:])...)
			whole = append(whole, fuzzStep(fuzzFrame|2, m.append(nil)[2:])...)
		}
		plain := bare(m)
		base = append(base, fuzzStep(fuzzFrame, plain.append(nil)[2:])...)
	}
	f.Add(whole)
	f.Add(base)
	for mode := range byte(5) {
		var b []byte
		for _, m := range []message{
			{id: msgInput, text: []byte("q"), mode: mode},
			{id: msgWrite, chunk: packed("abc", "", "defgh")},
			{id: msgRead, size: 2, flags: readAny},
			{id: msgRead, count: 1},
			{id: msgRead, flags: readReturn},
			{id: msgRead, size: 9, timeout: 5},
			{id: msgClose, count: 2},
		} {
			m.block, m.channel = hasBlock, 1
			b = append(b, fuzzStep(fuzzFrame|1, m.append(nil)[2:])...)
			b = append(b, fuzzStep(fuzzFrame|2, m.append(nil)[2:])...)
			b = append(b, fuzzStep(fuzzText, []byte("READ\x00q"))...)
		}
		f.Add(append(b, fuzzStep(fuzzPass, []byte{10})...))
	}
	var text []byte
	for _, line := range []string{"OPEN\x00q", "WRITE\x00q\x00chunk", "READ\x00q", "READ\x00q", "CLOSE\x00q", "DANCE\x00q", "CLOSE\x00p"} {
		text = append(text, fuzzStep(fuzzText, []byte(line))...)
		text = append(text, fuzzStep(fuzzText|1, []byte(line))...)
	}
	f.Add(text)
	for n := range ringTalk {
		var b []byte
		for _, say := range ringTalk[:n+1] {
			b = append(b, fuzzStep(fuzzFrame|1+byte(say.role), say.append(nil)[2:])...)
		}
		f.Add(b)
		f.Add(append(b, fuzzStep(fuzzRing, bytes.Repeat([]byte{0xff}, 9))...))
		f.Add(append(b, fuzzStep(fuzzLook|1, nil)...))
		f.Add(append(b, fuzzStep(fuzzGone|1+byte(n)%2, nil)...))
	}
	for n := range castTalk {
		var b []byte
		for _, say := range castTalk[:n+1] {
			if say.id == msgInput { // others come beside it
				b = append(b, fuzzStep(fuzzFrame, (&message{id: msgInput, text: say.text}).append(nil)[2:])...)
				b = append(b, fuzzStep(fuzzFrame, (&message{id: msgRead, size: 9}).append(nil)[2:])...)
			}
			b = append(b, fuzzStep(fuzzFrame|1+byte(say.role), say.append(nil)[2:])...)
		}
		f.Add(b)
		f.Add(append(b, fuzzStep(fuzzGone|1+byte(n)%2, nil)...))
	}
	for n := range jobTalk {
		var b []byte
		for _, m := range jobTalk[:n+1] {
			b = append(b, fuzzStep(fuzzFrame|1+byte(m.size), m.append(nil)[2:])...)
		}
		f.Add(b)
		f.Add(append(b, fuzzStep(fuzzGone|2, nil)...))
		for _, line := range []string{"TAKE\x00q", "DONE\x00q\x000-1", "RETURN\x00q\x000-2.1\x005", "EXTEND\x00q\x000-2", "WRITE\x00q\x00x", "DONE\x00q\x001-1"} {
			b = append(b, fuzzStep(fuzzText, []byte(line))...)
		}
		f.Add(append(b, fuzzStep(fuzzPass, []byte{200})...))
	}
	f.Add(append(text, append(fuzzStep(fuzzBlock|4, nil), fuzzStep(fuzzGone|4, nil)...)...))

	f.Fuzz(func(t *testing.T, data []byte) {
		st := newFuzzStage(t)
		bound := 0
		grown := allocated(func() { bound = st.play(data) })
		st.leaves()
		if grown > uint64(bound) {
			held := newFuzzStage(t).holds(data)
			for i := 0; held > bound && i < 3; i++ { // others allocate, too
				held = newFuzzStage(t).holds(data)
			}
			if held > bound {
				t.Errorf("the broker holds %d bytes, want at most %d", held, bound)
			}
		}
	})
}

// A fuzzStage is what an input of FuzzBroker is played on.
type fuzzStage struct {
	*stage
	binary, text []*caller
}

func newFuzzStage(t *testing.T) *fuzzStage {
	st := newStage(t)
	st.rings = &stageRings{atOnce: true}
	return &fuzzStage{
		stage:  st,
		binary: []*caller{st.base().caller, st.modern(), st.modern(), st.base().caller},
		text:   []*caller{st.call(), st.call()},
	}
}

// play returns what the broker may hold after it.
func (st *fuzzStage) play(data []byte) (bound int) {
	for len(data) >= 2 {
		op, n := data[0], int(data[1])
		data = data[2:]
		b := data[:min(n, len(data))]
		data = data[len(b):]
		bound += len(b) + fuzzSlack
		c := st.binary[op%4]
		switch op & fuzzOps {
		case fuzzText:
			c := st.text[op%2]
			frames := bytes.Split(b, []byte{0})
			if len(frames) < 2 || len(frames) > maxFrames+1 {
				continue
			}
			if c.session.gone {
				c.connect()
			}
			c.texts = true
			if len(frames) > 2 && bytes.HasPrefix(frames[2], []byte("0-")) {
				frames[2] = fmt.Appendf(nil, "%s-%s", strconv.FormatUint(st.incarnation(string(frames[1])), 36), frames[2][2:])
			}
			c.session.handleText(frames, st.now)
			st.settle()
			c.lines = nil
		case fuzzRaw:
			c.deliver(bytes.Clone(b))
		case fuzzPass:
			if len(b) > 0 {
				st.pass(time.Duration(b[0]) * time.Millisecond)
			}
		case fuzzGone:
			c.gone()
		case fuzzRing:
			if n := len(st.rings.made); n > 0 && len(b) > 0 {
				mem := st.rings.made[n-1].memory
				copy(mem[ringPlaces[int(b[0])%len(ringPlaces)]:], b[1:])
			}
		case fuzzLook:
			for _, p := range st.pipes.allPipes() {
				p.lookAtDetour(st.now.Add(quietTime), op&1 > 0)
				if i, ok := p.info(st.now); ok && (i.Queued < 0 || i.Queued > stagePending+max(stageMessage, stageWindow)) {
					st.t.Errorf("%d bytes are in a pipe", i.Queued)
				}
			}
			st.settle()
		case fuzzBlock:
			if c.congested = !c.congested; !c.congested && !c.session.gone {
				c.relieve()
			}
		default:
			c.deliver(st.meant(append([]byte(signature), b...)))
		}
		c.heard, st.violations = nil, nil
	}
	for _, g := range st.rings.made {
		bound += len(g.memory) // what the system has, elsewhere
	}
	return bound
}

// meant has a SETTLE or DONE of incarnation 0 be about its queue's jobs, since nobody guesses another one.
func (st *fuzzStage) meant(frame []byte) []byte {
	if m, err := parse(frame); err == nil && m.id == msgSettle && m.job.incarnation == 0 {
		m.job.incarnation = st.incarnation("q")
		return m.append(nil)
	} else if err == nil && m.id == msgDone && m.token == 0 {
		m.token = st.incarnation("q")
		return m.append(nil)
	}
	return frame
}

func (st *fuzzStage) incarnation(queue string) uint64 {
	if s := st.pipes.queues()[queue]; s != nil {
		return s.incarnation
	}
	return 0
}

// jobTalk is what clients say of jobs; the size says who.
var jobTalk = func() []message {
	all := []message{{id: msgPing, hello: hello{version: 1, number: 100, able: abilities}}}
	all = append(all, all[0])
	all = append(all, []message{
		{id: msgInput, text: []byte("q"), mode: modeQueue},
		{id: msgRules, rules: wireRules{lease: 100, maxDeliveries: 2, maxBytes: 500}},
		{id: msgWrite, chunk: packed("one", "", "three")},
		{id: msgPut, chunk: []byte("once"), text: []byte("key")},
		{id: msgPut, chunk: []byte("later"), count: 50},
		{id: msgInput, text: []byte("q"), mode: modeKnown, size: 1},
		{id: msgTake, count: 4, size: 1},
		{id: msgSettle, mode: byte(actDone), job: wireJob{id: 1, delivery: 1}, size: 1},
		{id: msgSettle, mode: byte(actReturn), job: wireJob{id: 2, delivery: 1}, count: 20, size: 1},
		{id: msgSettle, mode: byte(actReject), job: wireJob{id: 3, delivery: 1}, text: []byte("why"), size: 1},
		{id: msgSettle, mode: byte(actExtend), job: wireJob{id: 4, delivery: 1}, count: 500, size: 1},
		{id: msgSettle, mode: byte(actUnseen), job: wireJob{id: 4, delivery: 1}, size: 1},
		{id: msgSettle, mode: byte(actDone), job: wireJob{id: 1, delivery: 1}, size: 1},
		{id: msgSettle, mode: byte(actDone), size: 1},
		{id: msgTake, count: 1, size: 1},
		{id: msgDone, chunk: appendDone(appendDone(nil, wireJob{id: 2, delivery: 2}), wireJob{id: 9, delivery: 1}), size: 1},
		{id: msgTend, mode: byte(tendRedrive)},
		{id: msgTend, mode: byte(tendPurgeDelayed)},
		{id: msgClose, size: 1},
		{id: msgTend, mode: byte(tendPurgeReady)},
	}...)
	for i := range all {
		if all[i].block = hasBlock; all[i].id != msgPing {
			all[i].channel = 1
		}
	}
	all[1].size = 1
	return all
}()

// holds plays an input and returns how much the broker holds for it.
func (st *fuzzStage) holds(data []byte) int {
	heap := func() int {
		runtime.GC()
		runtime.GC() // what lies in pools survives one
		runtime.ReadMemStats(&fuzzAfter)
		n := int(fuzzAfter.HeapAlloc)
		for _, p := range st.pipes.allPipes() {
			n -= p.buf.spare()
		}
		return n
	}
	before := heap()
	st.play(data)
	n := heap() - before
	runtime.KeepAlive(st)
	return n
}

func (st *fuzzStage) leaves() {
	for _, c := range st.binary {
		c.congested = false
	}
	st.leavesNothing()
}

func fuzzStep(op byte, b []byte) []byte { return append([]byte{op, byte(len(b))}, b...) }

// What a step of FuzzBroker does; the rest of the byte is who.
const (
	fuzzOps   = 7 << 3
	fuzzFrame = 0 << 3 // sends a message
	fuzzText  = 1 << 3 // sends a command, whose frames are parted by NULs
	fuzzRaw   = 2 << 3 // sends a frame without the signature
	fuzzPass  = 3 << 3 // lets time pass
	fuzzGone  = 4 << 3 // is lost
	fuzzBlock = 5 << 3 // takes no more answers, or again
	fuzzRing  = 6 << 3 // spoils the ring that was made last
	fuzzLook  = 7 << 3 // has the broker look at its rings
)
