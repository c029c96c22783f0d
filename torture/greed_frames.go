package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Frames of all sizes and in all numbers: what is within the limits passes, what is not
// ends the connection that it came over, and nothing else is disturbed.

// The largest frame that a broker takes, by default.
const largestFrame = 16<<20 + 1024

func frames(ctx context.Context, b *bench) (outcome, error) {
	f, err := newFeastOf(ctx, b, errand{Kind: "shared context", Timeout: clientTimeout / 2})
	if err != nil {
		return outcome{}, err
	}
	defer f.end()
	// A frame is in libzmq's memory, in Go's, where one or two others are still garbage, and
	// in libzmq's again on its way to the reader.
	const most = 5*largestFrame + slack
	// libc keeps what it had for the largest, since something small is always behind it.
	f.stays = 2 * most
	// Inproc, the clients are in the broker's process, and so are the frames that they send
	// and receive.
	for _, transport := range []struct {
		name, endpoint string
		guest          *guest
		most           int64
	}{{"ipc", f.ipc(), nil, most}, {"near", f.near(), nil, most}, {"tcp", f.tcp(), nil, most}, {"inproc", f.inproc(), f.broker, 3 * most}} {
		e := errand{Do: "frames", Endpoint: transport.endpoint, Pipe: "frames", Count: b.size(20000)}
		err := f.course(transport.name, transport.most, func() (tally, error) {
			if transport.guest != nil {
				return f.ask(transport.guest, e)
			}
			return f.send(e)
		})
		if err != nil {
			return outcome{}, err
		}
	}
	cut := errand{Do: "cuts", Endpoint: f.near(), Count: b.size(30000), Seed: b.rand.Uint64()}
	// Where a length is damaged, memory is taken for what it announces, 256 KiB at most. Many
	// of those connections may not be quite over, and as much is garbage.
	const announced = 2 * 64 * 256 << 10
	if err := f.course("near, in pieces", announced+slack, func() (tally, error) { return f.send(cut) }); err != nil {
		return outcome{}, err
	}
	// libzmq hands a message over when it has all its frames, and has no limit for them
	// together; the broker drops them one by one.
	const many, each = 1 << 10, 64 << 10
	e := errand{Do: "many frames", Endpoint: f.ipc(), Count: many, Size: each}
	if err := f.course(fmt.Sprintf("%d frames of %d KiB in one message", many, each>>10), 2*many*each+slack, func() (tally, error) { return f.send(e) }); err != nil {
		return outcome{}, err
	}
	return f.outcome()
}

func init() {
	errands["frames"] = func(h *host, e errand) (t tally, err error) {
		if t, err = largeFrames(e); err == nil {
			err = oddFrames(e, &t)
		}
		return t, err
	}
	errands["many frames"] = func(h *host, e errand) (t tally, err error) {
		c, err := connect(e.Endpoint, oldDialect)
		if err != nil {
			return t, err
		}
		defer c.close()
		m := make([][]byte, e.Count)
		for i := range m {
			m[i] = make([]byte, e.Size)
		}
		a, err := c.ask(0, m)
		if err == nil && !a.refused() {
			err = fmt.Errorf("it was answered with %.80q", a)
		}
		t.Times, t.Found = 1, "refused"
		return t, err
	}
}

// largeFrames sends WRITEs around the limit, by clients of both kinds. Those that are
// too large can be sent at the same time, since they take no memory.
func largeFrames(e errand) (t tally, err error) {
	kinds := []bool{false, true}
	for _, extended := range kinds {
		for _, size := range []int{largestFrame - 1, largestFrame} {
			if err := largeFrame(e.Endpoint, e.Pipe, size, extended); err != nil {
				return t, err
			}
		}
	}
	sizes := []int{largestFrame + 1, largestFrame + 1<<20, 2 * largestFrame}
	errs := make([]error, len(kinds)*len(sizes))
	var wg sync.WaitGroup
	for i := range errs {
		extended, size := kinds[i/len(sizes)], sizes[i%len(sizes)]
		wg.Go(func() { errs[i] = largeFrame(e.Endpoint, fmt.Sprint(e.Pipe, i), size, extended) })
		if strings.HasPrefix(e.Endpoint, "inproc:") {
			wg.Wait() // there they do
		}
	}
	wg.Wait()
	t.Times = 4 + int64(len(errs))
	t.Found = fmt.Sprintf("4 within the limit passed, %d above it ended their connections", len(errs))
	return t, errors.Join(errs...)
}

// largeChunk has as many bytes as any frame of this trial.
var largeChunk = sync.OnceValue(func() []byte {
	return bytes.Repeat([]byte("0123456789abcdef"), 2*largestFrame/16)
})

func largeFrame(endpoint, name string, size int, extended bool) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("a frame of %d bytes (limit %d, extension %v): %w", size, largestFrame, extended, err)
		}
	}()
	r, err := connect(endpoint, newDialect)
	if err != nil {
		return err
	}
	defer r.leave()
	if _, err := r.ask(idInputOK, r.input(1, name, modeBytes)); err != nil {
		return err
	}
	// The message is made first: while it is, a client of the base protocol would be silent
	// for too long.
	d := dialect{extended: extended}
	chunk := largeChunk()[:size-len(d.write(1, nil)[0])]
	message := d.write(1, chunk)
	w, err := connect(endpoint, d)
	if err != nil {
		return err
	}
	defer w.close()
	if _, err := w.ask(idOutputOK, w.output(1, name)); err != nil {
		return err
	}
	if size > largestFrame {
		return tooLarge(w, r, message)
	}
	if _, err := w.ask(idWriteOK, message); err != nil {
		return err
	}
	if _, err := w.ask(idCloseOK, w.closing(1)); err != nil {
		return err
	}
	for len(chunk) > 0 {
		a, err := r.ask(idReadOK, r.read(1, 1<<20, readAny))
		if err != nil {
			return err
		}
		got := a.chunk()
		if !bytes.HasPrefix(chunk, got) {
			return errors.New("other bytes came out than went in")
		}
		chunk = chunk[len(got):]
	}
	_, err = r.ask(idReadEnd, r.read(1, 1, readAny))
	return err
}

// tooLarge sends a message that ends the writer's connection, and has the reader see that.
func tooLarge(w, r *rawClient, m [][]byte) error {
	if err := w.send(m); err != nil && err != errGone {
		return err
	}
	if _, err := r.ask(idReadFailed, r.read(1, 1, readAny)); err != nil {
		return err
	}
	for end := time.Now().Add(errandTime / 2); !w.lost(); {
		a, err := w.receive()
		if err == errGone {
			return nil
		}
		if err != nil {
			return err
		}
		if a != nil && a.id() == idInvalid {
			return nil // over inproc, where no connection can end
		}
		if a != nil && a.id() != idWriteFailed && !a.unasked() {
			return fmt.Errorf("it was answered with %.80q", a)
		}
		if time.Now().After(end) {
			return errors.New("the connection is still there")
		}
	}
	return nil
}

// oddFrames sends messages that mean nothing: each has one answer, and the client can go
// on afterwards.
func oddFrames(e errand, t *tally) error {
	c, err := connect(e.Endpoint, oldDialect)
	if err != nil {
		return err
	}
	defer c.close()
	for n := int64(0); n < e.Count; n++ {
		m := odd(int(n))
		if isNear(e.Endpoint) {
			m = m[:1] // a message has no more there
		}
		want := byte(idInvalid)
		if len(m) > 1 {
			want = 0
		}
		a, err := c.ask(want, m)
		if err == nil && want == 0 && !a.refused() {
			err = fmt.Errorf("%.80q was answered with %.80q", m, a)
		}
		if err != nil {
			return err
		}
		t.Times++
	}
	t.Found += fmt.Sprintf(", %s odd ones were refused", count(e.Count))
	_, err = c.ask(idPingOK, c.ping())
	return err
}

// odd is the nth of them: single frames that are empty, short or unknown, and messages of
// 2 to 1000 frames that are no commands, empty ones among them.
func odd(n int) (m [][]byte) {
	fill := byte(n / 8)
	switch n % 8 {
	case 0:
		return [][]byte{{}}
	case 1:
		return [][]byte{bytes.Repeat([]byte{fill}, 1+n/8%300)}
	case 2: // the signature alone, or a part of it
		return [][]byte{[]byte("\xaa\xa0")[:1+n/8%2]}
	case 3: // what only a broker sends
		return [][]byte{{0xaa, 0xa0, []byte{idInputOK, idOutputOK, idReadOK, idCloseOK, idPingOK, idInvalid}[n/8%6], 0}}
	case 4: // an id that does not exist, with something behind it
		return [][]byte{append([]byte{0xaa, 0xa0, 22 + fill%234}, make([]byte, n/8%64)...)}
	case 5: // cut short
		return [][]byte{[]byte("\xaa\xa0\x07\x00\x00\x00\x01\x00\x00\x00")[:3+n/8%7]}
	case 6:
		return make([][]byte, 2+n/8%999)
	}
	return append([][]byte{[]byte([]string{"OPEN", "READ", "WRITE", "CLOSE", "open", ""}[n/8%6])}, make([][]byte, 3+n/8%5)...)
}
