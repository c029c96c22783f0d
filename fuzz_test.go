package zpipes

import (
	"bytes"
	"testing"
	"time"
)

// FuzzBroker has clients of all kinds send anything, in any order, to the core of a
// broker. It must not panic, must answer with messages that parse, and must have
// nothing left when all are gone. Each step of the input is the client and what it does
// (one byte), a length, and so many bytes.
func FuzzBroker(f *testing.F) {
	step := func(op byte, b []byte) []byte { return append([]byte{op, byte(len(b))}, b...) }
	var whole, old []byte
	for _, m := range everyMessage() {
		for channel := range uint32(3) {
			m.channel = channel
			whole = append(whole, step(fuzzFrame|1, m.append(nil)[2:])...)
			whole = append(whole, step(fuzzFrame|2, m.append(nil)[2:])...)
		}
		plain := bare(m)
		old = append(old, step(fuzzFrame, plain.append(nil)[2:])...)
	}
	f.Add(whole)
	f.Add(old)
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
			b = append(b, step(fuzzFrame|1, m.append(nil)[2:])...)
			b = append(b, step(fuzzFrame|2, m.append(nil)[2:])...)
			b = append(b, step(fuzzText, []byte("READ\x00q"))...)
		}
		f.Add(append(b, step(fuzzPass, []byte{10})...))
	}
	var text []byte
	for _, line := range []string{"OPEN\x00q", "WRITE\x00q\x00chunk", "READ\x00q", "READ\x00q", "CLOSE\x00q", "DANCE\x00q", "CLOSE\x00p"} {
		text = append(text, step(fuzzText, []byte(line))...)
		text = append(text, step(fuzzText|1, []byte(line))...)
	}
	f.Add(text)
	f.Add(append(text, append(step(fuzzBlock|4, nil), step(fuzzGone|4, nil)...)...))

	f.Fuzz(func(t *testing.T, data []byte) {
		st := newStage(t)
		binary := []*caller{st.old().caller, st.modern(), st.modern(), st.old().caller}
		text := []*caller{st.call(), st.call()}
		for len(data) >= 2 {
			op, n := data[0], int(data[1])
			data = data[2:]
			b := data[:min(n, len(data))]
			data = data[len(b):]
			c := binary[op%4]
			switch op & fuzzOps {
			case fuzzText:
				c := text[op%2]
				frames := bytes.Split(b, []byte{0})
				if len(frames) < 2 || len(frames) > maxFrames+1 {
					continue
				}
				if c.session.gone {
					c.connect()
				}
				c.texts = true
				c.session.handleText(frames, st.now)
				st.settle()
				c.lines = nil
			case fuzzRaw:
				c.deliver(b)
			case fuzzPass:
				if len(b) > 0 {
					st.pass(time.Duration(b[0]) * time.Millisecond)
				}
			case fuzzGone:
				c.gone()
			case fuzzBlock:
				if c.congested = !c.congested; !c.congested && !c.session.gone {
					c.relieve()
				}
			default:
				c.deliver(append([]byte(signature), b...))
			}
			c.heard = nil
		}
		for _, c := range binary {
			c.congested = false
		}
		st.violations = nil
		st.leavesNothing()
	})
}

// What a step of FuzzBroker does; the rest of the byte is who.
const (
	fuzzOps   = 7 << 3
	fuzzFrame = 0 << 3 // sends a message
	fuzzText  = 1 << 3 // sends a command, whose frames are parted by NULs
	fuzzRaw   = 2 << 3 // sends a frame without the signature
	fuzzPass  = 3 << 3 // lets time pass
	fuzzGone  = 4 << 3 // is lost
	fuzzBlock = 5 << 3 // takes no more answers, or again
)
