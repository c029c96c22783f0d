package zpipes

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// sameMessage has cmp compare messages by value; empty bytes may be nil.
var sameMessage = cmp.Options{cmp.AllowUnexported(message{}, hello{}, broadcastConfig{}, wireJob{}, wireRules{}, wireFellow{}), cmpopts.EquateEmpty()}

// wireSamples are the messages whose bytes testdata/conformance/wire.txt has,
// as the C codec writes them.
var wireSamples = map[string]message{
	"INPUT":             {id: msgInput, text: []byte("test pipe")},
	"INPUT_OK":          {id: msgInputOK},
	"INPUT_FAILED":      {id: msgInputFailed, text: []byte("busy")},
	"OUTPUT":            {id: msgOutput, text: []byte("test pipe")},
	"OUTPUT_OK":         {id: msgOutputOK},
	"OUTPUT_FAILED":     {id: msgOutputFailed, text: []byte("busy")},
	"READ":              {id: msgRead, size: 65536, timeout: 1500},
	"READ_OK":           {id: msgReadOK, chunk: []byte("Hello, World")},
	"READ_END":          {id: msgReadEnd},
	"READ_TIMEOUT":      {id: msgReadTimeout},
	"READ_FAILED":       {id: msgReadFailed, text: []byte("pipe closed")},
	"WRITE":             {id: msgWrite, chunk: []byte("Hello, World"), timeout: 250},
	"WRITE_OK":          {id: msgWriteOK},
	"WRITE_TIMEOUT":     {id: msgWriteTimeout},
	"WRITE_FAILED":      {id: msgWriteFailed, text: []byte("no reader")},
	"CLOSE":             {id: msgClose},
	"CLOSE_OK":          {id: msgCloseOK},
	"CLOSE_FAILED":      {id: msgCloseFailed, text: []byte("x")},
	"PING":              {id: msgPing},
	"PING_OK":           {id: msgPingOK},
	"INVALID":           {id: msgInvalid},
	"WRITE-empty":       {id: msgWrite},
	"INPUT-empty":       {id: msgInput},
	"READ_FAILED-empty": {id: msgReadFailed},
}

func TestCodecMessagesOfTheWireFile(t *testing.T) {
	met := make(map[string]bool)
	for name, frame := range wireFile(t) {
		want, ok := wireSamples[name]
		if !ok {
			t.Errorf("%s: no sample of it here", name)
		}
		met[name] = true
		checkBothWays(t, name, want, frame)
	}
	for name := range wireSamples {
		if !met[name] {
			t.Errorf("%s is not in the file", name)
		}
	}
}

// wireFile reads the frames of wire.txt by their names.
func wireFile(t testing.TB) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile("testdata/conformance/wire.txt")
	if err != nil {
		t.Fatal(err)
	}
	frames := make(map[string][]byte)
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		words := strings.Fields(line)
		if len(words) != 2 {
			t.Fatalf("not a name and a frame: %q", line)
		}
		frames[words[0]] = unhex(t, words[1])
	}
	return frames
}

// unhex reads a frame written as hex digits with blanks between them.
func unhex(t testing.TB, digits string) []byte {
	t.Helper()
	frame, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
	if err != nil {
		t.Fatalf("%q: %v", digits, err)
	}
	return frame
}

// checkBothWays wants m to be written as frame, and frame to be read as m.
func checkBothWays(t *testing.T, name string, m message, frame []byte) {
	t.Helper()
	// Bytes that are there already are not touched.
	if got := m.append([]byte("before")); string(got) != "before"+string(frame) {
		t.Errorf("%s: written as\n% x, want\n% x", name, got[len("before"):], frame)
	}
	got, err := parse(frame)
	if err != nil {
		t.Errorf("%s: %v", name, err)
	} else if diff := cmp.Diff(m, got, sameMessage); diff != "" {
		t.Errorf("%s: not read as it was written (-want +got):\n%s", name, diff)
	}
}

// The extension is ours, so nobody else's bytes can say what it looks like.
func TestCodecBlocksByteForByte(t *testing.T) {
	for _, test := range []struct {
		name  string
		m     message
		frame string
	}{
		{
			"DIAL",
			message{id: msgDial, text: []byte("web"), block: hasBlock, channel: 1, count: 2},
			"aaa019 03 776562 5a50 00000001 00000002",
		}, {
			"ACCEPT",
			message{id: msgAccept, size: 1, block: hasBlock, channel: 2, count: 3},
			"aaa01c 00000001 5a50 00000002 00000003",
		}, {
			"ACCEPT_OK",
			message{id: msgAcceptOK, block: hasBlock, channel: 2, who: wireWho{1000, 100, -1}},
			"aaa01d 5a50 00000002 000003e8 00000064 ffffffff",
		}, {
			"first PING",
			message{id: msgPing, block: hasBlock, hello: hello{version: 1, number: 500}},
			"aaa013 5a50 00000000 01 0000000000000000 000001f4",
		}, {
			"PING_OK",
			message{id: msgPingOK, block: hasBlock, hello: hello{1, 0x0123456789abcdef, 2 << 20, 1 << 20, 3 << 20, 0, 0}},
			"aaa014 5a50 00000000 01 0123456789abcdef 00200000 00100000 00300000",
		}, {
			"first PING with abilities",
			message{id: msgPing, block: hasBlock, hello: hello{version: 1, number: 500, able: ableHere}},
			"aaa013 5a50 00000000 01 0000000000000000 000001f4 5a41 00000001",
		}, {
			"PING_OK with abilities",
			message{id: msgPingOK, block: hasBlock, hello: hello{1, 0x0123456789abcdef, 2 << 20, 1 << 20, 3 << 20, ableHere, 0}},
			"aaa014 5a50 00000000 01 0123456789abcdef 00200000 00100000 00300000 5a41 00000001",
		}, {
			"READ that shows that the open has returned",
			message{id: msgRead, flags: readHere, block: hasBlock, channel: 2},
			"aaa007 00000000 00000000 5a50 00000002 08 00000000",
		}, {
			"OUTPUT",
			message{id: msgOutput, text: []byte("hello"), block: hasBlock, channel: 0x01020304},
			"aaa004 05 68656c6c6f 5a50 01020304",
		}, {
			"INPUT_FAILED",
			message{id: msgInputFailed, text: []byte("full"), block: hasBlock, channel: 3, code: causeTooMany, cause: []byte("65536")},
			"aaa003 04 66756c6c 5a50 00000003 08 05 3635353336",
		}, {
			"READ",
			message{id: msgRead, size: 65536, timeout: 9, block: hasBlock, channel: 2, flags: readAny | readStream},
			"aaa007 00010000 00000009 5a50 00000002 03 00000000",
		}, {
			"READ_OK",
			message{id: msgReadOK, chunk: []byte("abc"), block: hasBlock, channel: 2},
			"aaa008 00000003 616263 5a50 00000002",
		}, {
			"WRITE",
			message{id: msgWrite, chunk: []byte("abc"), timeout: 7, block: hasBlock, channel: 1},
			"aaa00c 00000003 616263 00000007 5a50 00000001",
		}, {
			"CLOSE",
			message{id: msgClose, block: hasBlock, channel: 1, code: causeAborted, cause: []byte("disk full")},
			"aaa010 5a50 00000001 01 09 6469736b2066756c6c 00000000",
		}, {
			"CLOSE of a queue's reader",
			message{id: msgClose, block: hasBlock, channel: 1, count: 0x0a0b0c0d},
			"aaa010 5a50 00000001 00 00 0a0b0c0d",
		}, {
			"INPUT of a queue",
			message{id: msgInput, text: []byte("jobs"), block: hasBlock, channel: 1, mode: modeQueue},
			"aaa001 04 6a6f6273 5a50 00000001 01",
		}, {
			"INPUT_OK of a queue",
			message{id: msgInputOK, block: hasBlock, channel: 1, mode: modeQueue},
			"aaa002 5a50 00000001 01",
		}, {
			"READ of a queue",
			message{id: msgRead, size: 8, block: hasBlock, channel: 2, flags: readReturn, count: 0x01020304},
			"aaa007 00000008 00000000 5a50 00000002 04 01020304",
		}, {
			"WRITE of a queue",
			message{id: msgWrite, chunk: packed("abc", "", "d"), block: hasBlock, channel: 1},
			"aaa00c 00000010 00000003 616263 00000000 00000001 64 00000000 5a50 00000001",
		}, {
			"WRITE_OK",
			message{id: msgWriteOK, block: hasBlock, channel: 1, count: 0x01020304},
			"aaa00d 5a50 00000001 01020304",
		}, {
			"INVALID",
			message{id: msgInvalid, block: hasBlock},
			"aaa015 5a50 00000000 00 00",
		},
	} {
		checkBothWays(t, test.name, test.m, unhex(t, test.frame))
	}
}

// Programs that were built long ago know these numbers.
func TestCodecNumbersOfTheWire(t *testing.T) {
	pinned := map[string][2]int{
		"INPUT": {1, int(msgInput)}, "INPUT_OK": {2, int(msgInputOK)}, "INPUT_FAILED": {3, int(msgInputFailed)},
		"OUTPUT": {4, int(msgOutput)}, "OUTPUT_OK": {5, int(msgOutputOK)}, "OUTPUT_FAILED": {6, int(msgOutputFailed)},
		"READ": {7, int(msgRead)}, "READ_OK": {8, int(msgReadOK)}, "READ_END": {9, int(msgReadEnd)},
		"READ_TIMEOUT": {10, int(msgReadTimeout)}, "READ_FAILED": {11, int(msgReadFailed)},
		"WRITE": {12, int(msgWrite)}, "WRITE_OK": {13, int(msgWriteOK)},
		"WRITE_TIMEOUT": {14, int(msgWriteTimeout)}, "WRITE_FAILED": {15, int(msgWriteFailed)},
		"CLOSE": {16, int(msgClose)}, "CLOSE_OK": {17, int(msgCloseOK)}, "CLOSE_FAILED": {18, int(msgCloseFailed)},
		"PING": {19, int(msgPing)}, "PING_OK": {20, int(msgPingOK)}, "INVALID": {21, int(msgInvalid)},

		"closed": {0, int(causeClosed)}, "aborted": {1, int(causeAborted)}, "vanished": {2, int(causeVanished)},
		"undelivered": {3, int(causeUndelivered)}, "broker gone": {4, int(causeBrokerGone)},
		"busy": {5, int(causeBusy)}, "mode": {6, int(causeMode)}, "bad name": {7, int(causeBadName)},
		"too many": {8, int(causeTooMany)}, "deleted": {9, int(causeDeleted)}, "no queue": {10, int(causeNoQueue)},

		"any": {1, readAny}, "stream": {2, readStream}, "return": {4, readReturn},
		"mode stream": {0, modeStream}, "mode queue": {1, modeQueue}, "mode delete": {2, modeDelete},
		"version": {1, protocolVersion},
	}
	for name, n := range pinned {
		if n[0] != n[1] {
			t.Errorf("%s is %d on the wire, and %d here", name, n[0], n[1])
		}
	}
}

// everyMessage has each of the messages, with all fields and extras that it can have.
func everyMessage() []message {
	var all []message
	for id := msgInput; int(id) < len(wireLayout); id++ {
		if wireLayout[id].name == "" {
			continue
		}
		m := message{
			id:      id,
			text:    []byte("some text"),
			size:    0x01020304,
			chunk:   []byte("some bytes"),
			timeout: 0x05060708,
			block:   hasBlock,
			channel: 0x090a0b0c,
			flags:   readAny | readStream,
			code:    causeAborted,
			cause:   []byte("disk full"),
			hello:   hello{1, 0x0d0e0f1011121314, 0x15161718, 0x191a1b1c, 0x1d1e1f20, 0, 0},
			mode:    modeDelete,
			count:   0x1d1e1f20,
			who:     wireWho{0x21222324, -1, 0x25262728},
			job:     wireJob{0x2122232425262728, 0x292a2b2c2d2e2f30, 0x31323334, 0x3536373839404142},
			cast:    broadcastConfig{0x23242526, 0x2728292a, 0x2b2c2d2e * time.Millisecond},
			rules:   wireRules{1, 0x43444546, 0x4748494a, 0x4b4c4d4e4f505152},
			token:   0x535455565758595a,
			other:   0x5b5c5d5e5f606162,
			at:      0x636465666768696a,
			fellow:  wireFellow{0x6b6c6d6e6f707172, 0x737475767778797a, 0x7b7c7d7e, []byte("host:7900")},
		}
		if id == msgFeed {
			m.mode = modeBroadcast // as it always is
		}
		all = append(all, carried(m))
	}
	return all
}

// carried is what of m gets over: the fields of its id, and the extras, if it
// has a block.
func carried(m message) message {
	layout := layouts[m.id]
	c := message{id: m.id, block: m.block}
	if layout&hasText != 0 {
		c.text = m.text[:min(len(m.text), maxString)]
	}
	if layout&hasSize != 0 {
		c.size = m.size
	}
	if layout&hasChunk != 0 {
		c.chunk = m.chunk
	}
	if layout&hasTimeout != 0 {
		c.timeout = m.timeout
	}
	if m.block == noBlock {
		return c
	}
	c.channel = m.channel
	if layout&hasFlags != 0 {
		c.flags = m.flags
	}
	if layout&hasCause != 0 {
		c.code, c.cause = m.code, m.cause[:min(len(m.cause), maxString)]
	}
	if layout&hasHello != 0 {
		c.hello = m.hello
		if layout&hasPending == 0 {
			c.hello.pending, c.hello.total = 0, 0
		}
		if m.id != msgPing || m.hello.able&ableRings == 0 {
			c.hello.window = 0
		}
	}
	if layout&hasMode != 0 {
		c.mode = m.mode
	}
	if layout&hasCount != 0 {
		c.count = m.count
	}
	if layout&hasWho != 0 {
		c.who = m.who
	}
	if layout&hasJob != 0 {
		c.job = m.job
	}
	if layout&hasRules != 0 {
		c.rules = m.rules
	}
	if layout&hasKey != 0 {
		c.text = m.text[:min(len(m.text), maxString)]
	}
	if layout&hasBroadcast != 0 && m.mode == modeBroadcast {
		c.mode, c.cast = modeBroadcast, m.cast
	}
	if layout&hasToken != 0 {
		c.token = m.token
	}
	if layout&hasOther != 0 {
		c.other = m.other
	}
	if layout&hasAt != 0 {
		c.at = m.at
	}
	if layout&hasFellow != 0 {
		c.fellow = m.fellow
	}
	return c
}

// bare is m without its block.
func bare(m message) message {
	m.block = noBlock
	return carried(m)
}

// frameName names a message in a test's complaint.
func frameName(m message) string { return wireLayout[m.id].name }

func TestCodecExtrasRoundTrip(t *testing.T) {
	extras := map[messageID]int{ // bytes after the channel
		msgInput: 1, msgInputOK: 1, msgRead: 5, msgWriteOK: 4,
		msgPing: 13, msgPingOK: 21, msgOffer: 4, msgMove: 5, msgMoved: 5,
		msgDial: 4, msgAccept: 4, msgDialOK: 12, msgAcceptOK: 12, msgAccepted: 12,
		msgTake: 4, msgJob: 28, msgSettle: 5 + 28, msgSettled: 4, msgLost: 1 + 28, msgRules: 17,
		msgPut: 4 + 1 + len("some text"), msgTend: 1, msgTended: 4, msgJobs: 8, msgDone: 8,
		msgRegister: 1 + 8, msgUnregister: 1 + 8, msgMatch: 3 * 8, msgConflict: 1 + 2*8, msgAttach: 2 * 8, msgTaken: 4 + 8,
		msgFeed: 1 + 3*4 + 2*8, msgAudience: 4, msgHeld: 8,
		msgLink: 1 + 2*8 + 4 + 1 + len("host:7900"), msgLinkOK: 2*8 + 4 + 1 + len("host:7900"),
		msgFound: 1 + 3*8, msgGone: 1 + 2*8, msgCall: 2 * 8,
	}
	for _, id := range []messageID{
		msgInputFailed, msgOutputFailed, msgReadFailed, msgWriteFailed, msgClose, msgInvalid, msgDialFailed, msgAcceptFailed,
		msgRulesFailed, msgCallFailed, msgHand,
	} {
		extras[id] = 2 + len("disk full")
	}
	extras[msgHand] += 1 + 4 + 28 + 1 + len("some text")
	extras[msgClose] += 4
	for _, m := range everyMessage() {
		plain := bare(m)
		without, with := plain.append(nil), m.append(nil)
		checkBothWays(t, frameName(m), plain, without)
		checkBothWays(t, frameName(m)+" with a block", m, with)
		if got := len(with) - len(without) - blockBytes; got != extras[m.id] {
			t.Errorf("%s: %d bytes of extras, want %d", frameName(m), got, extras[m.id])
		}
	}
}

// A message of whose block only the end is missing can still be answered on its
// channel. What is too short for a channel is no block at all.
func TestCodecBlockCutShort(t *testing.T) {
	for _, m := range everyMessage() {
		plain := bare(m)
		begin := len(plain.append(nil))
		frame := m.append(nil)
		for end := begin; end < len(frame); end++ {
			got, err := parse(frame[:end])
			if err != nil {
				t.Errorf("%s cut at %d of %d: %v", frameName(m), end, len(frame), err)
				continue
			}
			if end < begin+blockBytes {
				if diff := cmp.Diff(plain, got, sameMessage); diff != "" {
					t.Errorf("%s cut at %d of %d is not the message without a block:\n%s", frameName(m), end, len(frame), diff)
				}
			} else if got.block != badBlock || got.channel != m.channel {
				t.Errorf("%s cut at %d of %d: block %d on channel %#x, want %d on %#x",
					frameName(m), end, len(frame), got.block, got.channel, badBlock, m.channel)
			}
		}
	}
}

func TestCodecTruncatedFrames(t *testing.T) {
	for _, m := range everyMessage() {
		plain := bare(m)
		frame := plain.append(nil)
		for end := range frame {
			want := errShort
			if end < headerBytes {
				want = errSignature
			}
			if _, err := parse(frame[:end]); err != want {
				t.Errorf("%s cut at %d of %d: error %v, want %v", frameName(m), end, len(frame), err, want)
			}
		}
	}
}

func TestCodecFramesThatAreNoMessage(t *testing.T) {
	for _, test := range []struct {
		name, frame string
		want        error
	}{
		{"another signature", "aaa1 13", errSignature},
		{"the signature the wrong way round", "a0aa 13", errSignature},
		{"id 0", "aaa0 00", errUnknownID},
		{"the first id that is not known", fmt.Sprintf("aaa0 %02x", len(layouts)), errUnknownID},
		{"the last id", "aaa0 ff", errUnknownID},
		{"a chunk as long as can be said", "aaa0 0c ffffffff 6162", errShort},
		// A machine whose int has 32 bits must not take it for a negative one.
		{"a chunk with a length of 2 GiB", "aaa0 08 80000000 6162", errShort},
	} {
		if m, err := parse(unhex(t, test.frame)); err != test.want {
			t.Errorf("%s: error %v (%+v), want %v", test.name, err, m, test.want)
		}
	}
}

func TestCodecIgnoresBytesAfterAMessage(t *testing.T) {
	behind := []string{
		"x", "Z", "ZP", "ZP\x00\x00\x00", // too short for a block
		"zp\x00\x00\x00\x01", "ZQ\x00\x00\x00\x01", strings.Repeat("\x00", 99), // no block
	}
	for _, m := range everyMessage() {
		plain := bare(m)
		for _, rest := range behind {
			for _, want := range []message{plain, m} {
				got, err := parse(append(want.append(nil), rest...))
				if err != nil {
					t.Errorf("%s with %q after it: %v", frameName(m), rest, err)
				} else if diff := cmp.Diff(want, got, sameMessage); diff != "" {
					t.Errorf("%s with %q after it is read as another message:\n%s", frameName(m), rest, diff)
				}
			}
		}
	}
}

func TestCodecCutsLongTexts(t *testing.T) {
	long := bytes.Repeat([]byte("0123456789"), 30)
	m := message{id: msgReadFailed, text: long, block: hasBlock, code: causeAborted, cause: long}
	got, err := parse(m.append(nil))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(carried(m), got, sameMessage); diff != "" {
		t.Errorf("not cut at %d bytes (-want +got):\n%s", maxString, diff)
	}
}

func TestCodecRecords(t *testing.T) {
	large := strings.Repeat("l", 1000)
	for _, chunks := range [][]string{{""}, {"a"}, {"a", "", "bcd"}, {"", ""}, {large}, {large, "s"}, {"s", large, large}} {
		b := packed(chunks...)
		got, ok := recordsOf(b, 1<<20)
		if !ok || len(got) != len(chunks) {
			t.Fatalf("%d chunks were read as %d, %v", len(chunks), len(got), ok)
		}
		for i, c := range got {
			// To a receiver nil would be the end.
			if string(c) != chunks[i] || c == nil {
				t.Errorf("chunk %d of %d is %.20q", i, len(chunks), c)
			}
		}
		// A few bytes do not keep a large message alive.
		small := got[len(got)-1]
		clear(b)
		if n := len(small); n > 0 && n < len(b)/2 && string(small) != chunks[len(chunks)-1] {
			t.Errorf("a chunk of %d bytes lies in a message of %d", n, len(b))
		}
	}
	whole := packed("abc", "de")
	for end := range whole {
		if _, ok := recordsOf(whole[:end], 1<<20); ok != (end == len(packed("abc"))) {
			t.Errorf("cut at %d of %d: %v", end, len(whole), ok)
		}
	}
	if _, ok := recordsOf(append(packed("a", "b"), packed("c")...), 2); ok {
		t.Error("three chunks are taken where two are the most")
	}
	if _, ok := recordsOf([]byte{0xff, 0xff, 0xff, 0xff, 1}, 1<<20); ok {
		t.Error("a chunk of 4 GiB was found in five bytes")
	}
}

func TestCodecChunksThatFit(t *testing.T) {
	empty := make([]byte, chunkOffset)
	if !fits(empty, make([]byte, 2*maxRecords)) {
		t.Error("a chunk that is too large for all messages has to go alone")
	}
	frame := appendRecord(empty, nil)
	most := maxRecords - len(frame) - recordHead
	if !fits(frame, make([]byte, most)) || fits(frame, make([]byte, most+1)) {
		t.Errorf("a second chunk of %d bytes should be the largest", most)
	}
	if n := len(appendRecord(frame, make([]byte, most))); n != maxRecords {
		t.Errorf("a full message has %d bytes", n)
	}
}

func TestCodecDoesNotAllocate(t *testing.T) {
	buf := make([]byte, 0, 256)
	var sink int
	for _, m := range everyMessage() {
		frame := m.append(nil)
		if n := testing.AllocsPerRun(100, func() { sink += len(m.append(buf)) }); n != 0 {
			t.Errorf("appending %s into a buffer with room for it allocates %v times", frameName(m), n)
		}
		if n := testing.AllocsPerRun(100, func() {
			got, err := parse(frame)
			if err != nil {
				t.Error(err)
			}
			sink += len(got.text) + len(got.chunk)
		}); n != 0 {
			t.Errorf("parsing %s allocates %v times", frameName(m), n)
		}
	}
}

// within says whether part is memory of whole, and cannot grow over what is
// behind it.
func within(whole, part []byte) bool {
	if len(part) == 0 {
		return cap(part) == 0
	}
	for i := range whole {
		if &whole[i] == &part[0] {
			return i+len(part) <= len(whole) && cap(part) == len(part)
		}
	}
	return false
}

// FuzzRoundTrip writes any message and wants to read the same.
func FuzzRoundTrip(f *testing.F) {
	for _, m := range everyMessage() {
		for _, able := range []uint32{0, ableHere, abilities} {
			f.Add(byte(m.id), m.text, m.size, m.chunk, m.timeout, true,
				m.channel, m.flags, byte(m.code), m.cause, m.hello.version, m.hello.session, m.hello.number, m.hello.pending, able)
		}
	}
	f.Fuzz(func(t *testing.T, id byte, text []byte, size uint32, chunk []byte, timeout uint32, block bool,
		channel uint32, flags, code byte, why []byte, version byte, session uint64, number, pending, able uint32) {
		m := message{
			id:   everyMessage()[int(id)%len(everyMessage())].id,
			text: text, size: size, chunk: chunk, timeout: timeout,
			channel: channel, flags: flags, code: causeCode(code), cause: why,
			hello: hello{version, session, number, pending, ^pending, able, ^number},
			mode:  flags, count: size,
		}
		if m.id == msgFeed {
			m.mode = modeBroadcast
		}
		if block {
			m.block = hasBlock
		}
		got, err := parse(m.append(nil))
		if err != nil {
			t.Fatalf("%s: %v", frameName(m), err)
		}
		if diff := cmp.Diff(carried(m), got, sameMessage); diff != "" {
			t.Errorf("%s: not read as it was written (-want +got):\n%s", frameName(m), diff)
		}
	})
}
