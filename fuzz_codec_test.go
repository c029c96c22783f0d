package zpipes

import (
	"bytes"
	"errors"
	"flag"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// fuzzSlack is what the broker may hold for each message beside its bytes: what it
// knows of a pipe, a request or a client.
const fuzzSlack = 4 << 10

// allocated is how many bytes f allocates. It includes what others allocate meanwhile.
func allocated(f func()) uint64 {
	runtime.ReadMemStats(&fuzzBefore)
	f()
	runtime.ReadMemStats(&fuzzAfter)
	return fuzzAfter.TotalAlloc - fuzzBefore.TotalAlloc
}

var fuzzBefore, fuzzAfter runtime.MemStats // too large to be allocated each time

// allocates wants f to allocate so many bytes at most; f can be called again.
func allocates(t *testing.T, most int, f func()) {
	t.Helper()
	var n uint64
	for range 3 {
		if n = allocated(f); n <= uint64(most) {
			return
		}
	}
	t.Errorf("%d bytes were allocated, want at most %d", n, most)
}

// FuzzCodec parses anything. What is read must lie in the frame, and written again give
// the bytes it was read from; a chunk that is sent on in its frame must stay the same;
// and so must the chunks of a queue. Nothing is allocated but for the latter: their
// bytes, and a slice for each.
func FuzzCodec(f *testing.F) {
	for _, frame := range wireFile(f) {
		f.Add(frame)
	}
	for _, m := range everyMessage() {
		frame := m.append(nil)
		f.Add(frame)
		f.Add(append(frame, "and more"...))
		f.Add(frame[:len(frame)-1])
	}
	for _, say := range castTalk {
		f.Add(say.append(nil))
	}
	for _, chunks := range [][]string{{""}, {"abc", "", "d"}, {string(noise(1, 3000)), "e"}} {
		f.Add((&message{id: msgWrite, block: hasBlock, channel: 1, chunk: packed(chunks...)}).append(nil))
		f.Add((&message{id: msgReadOK, chunk: packed(chunks...)}).append(nil))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		allocates(t, 0, func() { parse(frame) })
		if m, ok := checkFrame(t, frame); ok && layouts[m.id]&hasChunk != 0 {
			fuzzRecords(t, m.chunk)
			fuzzForward(t, frame, &m)
		}
	})
}

// checkFrame parses a frame, and writes it again.
func checkFrame(t *testing.T, frame []byte) (message, bool) {
	m, err := parse(frame)
	if err != nil {
		if !errors.Is(err, errSignature) && !errors.Is(err, errUnknownID) && !errors.Is(err, errShort) {
			t.Errorf("error %v", err)
		}
		return m, false
	}
	for _, part := range [][]byte{m.text, m.chunk, m.cause} {
		if !within(frame, part) {
			t.Errorf("%q was copied, or is not the frame's", part)
		}
	}
	again := m
	if m.block == badBlock {
		again = bare(m)
	}
	if m.cast.keep == math.MaxInt32 || m.cast.await == math.MaxInt32 {
		return m, true // it may have said more than there can be
	}
	var room [512]byte
	if again := again.append(room[:0]); !bytes.HasPrefix(frame, again) {
		t.Errorf("read from\n% x, but written as\n% x", frame, again)
	}
	return m, true
}

var storm = flag.Int("storm", 100_000, "how many `frames` TestCodecStorm makes")

// TestCodecStorm is FuzzCodec without guidance, and so a hundred times as fast: each frame is
// one of all messages, some of whose bytes have changed.
func TestCodecStorm(t *testing.T) {
	const part = 10_000
	var parts atomic.Int64
	var work sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		work.Go(func() {
			all := everyMessage()
			for n := parts.Add(part); n <= int64(*storm) && !t.Failed(); n = parts.Add(part) {
				r := scripted(uint64(n))
				for range part {
					m := all[r.IntN(len(all))]
					m.channel, m.size, m.block = r.Uint32(), r.Uint32(), hasBlock*blockState(r.IntN(2))
					frame := m.append(make([]byte, 0, 512))
					for range r.IntN(4) {
						frame[r.IntN(len(frame))] ^= byte(1 << r.IntN(8))
					}
					checkFrame(t, frame[:len(frame)-min(len(frame), max(0, r.IntN(20)-10))])
				}
			}
		})
	}
	work.Wait()
}

// fuzzRecords takes a queue's chunks apart, and puts them together again.
func fuzzRecords(t *testing.T, b []byte) {
	var chunks [][]byte
	var ok bool
	count := 0
	for f := (fields{rest: b}); len(f.rest) > 0 && !f.short; count++ {
		f.bytes(f.uint32())
	}
	// An allocation is rounded up to the next size that there is.
	allocates(t, len(b)+len(b)/8+40*count+fuzzSlack, func() { chunks, ok = recordsOf(b, count) })
	if !ok {
		return
	}
	var again []byte
	for _, c := range chunks {
		if c == nil {
			t.Error("an empty chunk is nil, which would be the end")
		}
		again = appendRecord(again, c)
	}
	if !bytes.Equal(again, b) {
		t.Errorf("chunks read from\n% x, but written as\n% x", b, again)
	}
	if _, ok := recordsOf(b, count-1); ok {
		t.Errorf("%d chunks are taken where one less is the most", count)
	}
}

// fuzzForward has a message's chunk sent on in the message's own frame.
func fuzzForward(t *testing.T, frame []byte, m *message) {
	want := bytes.Clone(m.chunk)
	for _, id := range []messageID{msgReadOK, msgWrite} {
		for _, block := range []blockState{noBlock, hasBlock} {
			c := adopt(bytes.Clone(frame), m)
			got, err := parse(c.frame(id, block, 0x01020304))
			if err != nil || got.id != id || got.block != block || got.timeout != 0 || !bytes.Equal(got.chunk, want) {
				t.Errorf("sent on as %+v, %v", got, err)
			}
			if block == hasBlock && got.channel != 0x01020304 {
				t.Errorf("sent on channel %#x", got.channel)
			}
		}
	}
}
