//go:build cgo && !core

package zpipes

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

// What the recorded channels of the real one hold is what makes this a stand-in.
func TestBaseBroker(t *testing.T) {
	t.Parallel()
	for _, path := range scriptPaths(t, "v2") {
		t.Run(scriptName(path), func(t *testing.T) {
			t.Parallel()
			scriptPlay(t, scriptSockets(t, startBaseBroker(t).endpoint), path, scriptRead(t, path))
		})
	}
}

// What holds on our broker, and not on the real one.
func TestBaseBrokerFaultsOfRecord(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct {
		line       int
		got        string
		crashed    bool
		violations []string
	}{
		"old/01-ping-behind-a-waiting-write": {7, "none: no message in time", true, []string{"a PING behind a WRITE that waits"}},
		"old/02-ping-behind-a-waiting-read":  {10, `READ_OK ""`, false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := startBaseBroker(t)
			steps, err := scriptParse(scriptRead(t, filepath.Join("testdata", "conformance", name+".txt")))
			if err != nil {
				t.Fatal(err)
			}
			p := newScriptPlayer(t, scriptSockets(t, b.endpoint))
			if want.crashed {
				p.wait = soon / 5 // which no answer comes after
			}
			defer p.close()
			line, got := 0, ""
			for i := 0; i < len(steps) && got == ""; i++ {
				line, got = steps[i].line, p.try(steps[i])
			}
			if line != want.line || got != want.got || b.crashed.Load() != want.crashed || !slices.Equal(b.violations(), want.violations) {
				t.Errorf("line %d: %s; crashed: %v; %q\nwant %+v", line, got, b.crashed.Load(), b.violations(), want)
			}
		})
	}
	if n := len(scriptPaths(t, "old")); n != 2 {
		t.Errorf("there are %d scripts of base brokers", n)
	}
}

// Its faults are there on purpose, so that a client can be shown to live with them.
func TestBaseBrokerFaults(t *testing.T) {
	t.Parallel()
	const open = `
r > INPUT "p"
r < INPUT_OK
w > OUTPUT "p"
w < OUTPUT_OK
`
	for name, test := range map[string]struct {
		script        string
		clientTimeout time.Duration // zero: the default
		crashed       bool
		violations    []string
	}{
		"no timeout with part of it there": {script: open + `
w > WRITE "abc" 0
w < WRITE_OK
r > READ 10 50
r < nothing 200ms
w > CLOSE
w < CLOSE_OK
r < READ_OK "abc"`},
		"no timeout once part of it has come": {script: open + `
r > READ 10 300
w > WRITE "abc" 0
w < WRITE_OK
r < nothing 500ms`},
		"no timeout after a PING": {script: open + `
r > READ 10 300
r > PING
r < PING_OK
r < nothing 500ms`},
		"a writer opens under a waiting READ": {crashed: true, script: `
r > INPUT "p"
r < INPUT_OK
r > READ 1 0
r > PING
r < PING_OK
w > OUTPUT "p"
w < nothing 100ms
w > PING
w < nothing 50ms
w gone
r gone`},
		"a silent reader's READ is never answered": {clientTimeout: 300 * time.Millisecond, script: `
r > INPUT "p"
r < INPUT_OK
r > READ 1 0
r < nothing 3s
r > READ 1 0
r < INVALID`},
		"a silent writer looks like a clean end": {clientTimeout: 4 * time.Second, script: open + `
w > WRITE "abc" 0
w < WRITE_OK
w gone
sleep 2s
r > READ 10 0
r < READ_OK "abc"
r > READ 10 0
r < READ_END`},
		"a second open leaves a dangling end": {script: `
r > INPUT "p"
r < INPUT_OK
r > INPUT "q"
r < INVALID
r > INPUT "p"
r < INPUT_FAILED`},
		"only the first READ behind a CLOSE is answered": {script: open + `
r > READ 1 0
r > READ 1 0
r > READ 1 0
r > CLOSE
r < READ_FAILED
r < CLOSE_OK
r < INVALID
r < nothing 50ms`},
		"the next pipe begins with the last one's leftovers": {violations: []string{"a second pipe on one connection"}, script: open + `
w > WRITE "left" 0
w < WRITE_OK
r > CLOSE
r < CLOSE_OK
r > INPUT "q"
r < INPUT_OK
r > READ 4 0
r < READ_OK "left"`},
		"trailing bytes are ignored": {violations: []string{"bytes behind the last field of CLOSE"}, script: `
r > RAW aaa013ffffff
r < PING_OK
r > RAW aaa010ff
r < INVALID`},
		"a CLOSE behind a WRITE is noted": {violations: []string{"a CLOSE while a WRITE is not answered"}, script: `
w > OUTPUT "p"
w < OUTPUT_OK
w > WRITE "abc" 0
w > CLOSE
w < WRITE_FAILED
w < CLOSE_OK`},
		"text makes it deaf": {crashed: true, violations: []string{`a message of several frames: ["OPEN" "B"]`}, script: `
a > TEXT "OPEN" "B"
a < nothing 50ms
b > PING
b < nothing 50ms
b gone`},
		"a READ behind which came a PING is answered with nothing, and the next as usual": {script: open + `
r > READ 1 0
r > READ 1 0
r > PING
r < PING_OK
w > WRITE "a" 0
w < WRITE_OK
r < READ_OK ""
r < READ_OK "a"`},
		"an empty WRITE waits for the reader, and is no data": {script: `
w > OUTPUT "p"
w < OUTPUT_OK
w > WRITE "" 100
w < nothing 20ms
w < WRITE_TIMEOUT
w > WRITE "" 5000
w < nothing 20ms
r > INPUT "p"
r < INPUT_OK
w < WRITE_OK
r > READ 1 0
w > WRITE "" 100
w < WRITE_OK
r < nothing 20ms
w > WRITE "a" 0
w < WRITE_OK
r < READ_OK "a"`},
		"a malformed frame ends it": {crashed: true, violations: []string{"a malformed frame: aaa000"}, script: `
a > RAW aaa000
a < nothing 50ms
a gone`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := startBaseBroker(t, func(b *baseBroker) {
				b.clientTimeout = cmp.Or(test.clientTimeout, b.clientTimeout)
			})
			scriptPlay(t, scriptSockets(t, b.endpoint), "script", test.script)
			// It need not have come to the last message yet.
			eventuallyWithin(t, 4*soon, fmt.Sprintf("crashed %v, with %q", test.crashed, test.violations), func() bool {
				return b.crashed.Load() == test.crashed && len(b.violations()) >= len(test.violations)
			})
			if got := b.violations(); !slices.Equal(got, test.violations) {
				t.Errorf("violations: got %q, want %q", got, test.violations)
			}
		})
	}
}

func TestConnBaseReadAheadIsBounded(t *testing.T) {
	t.Parallel()
	b := startBaseBroker(t)
	r := &rig{T: t, broker: b.endpoint}
	r.client = r.newClient(ClientConfig{Window: 100})
	rd, w := r.pipe("p")
	w.Write(make([]byte, 100))
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		w.Write(make([]byte, 100))
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := rd.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	// Another pipe's way there and back leaves time for what was asked too much.
	r.writer("q")
	rd.pipe.mu.Lock()
	defer rd.pipe.mu.Unlock()
	if n := rd.pipe.buf.n; n > 400 {
		t.Errorf("a window of 100 bytes holds %d, want at most 400", n)
	}
}

const baseBeat = 250 * time.Millisecond

// atBaseBroker is a client that beats each baseBeat, at a base broker that drops who is silent for many of them:
// a busy machine may hold both up for longer than a few.
func atBaseBroker(t *testing.T, cfg ClientConfig) (*rig, *baseBroker) {
	t.Helper()
	cfg.Heartbeat = baseBeat
	b := startBaseBroker(t, func(b *baseBroker) { b.clientTimeout = 12 * baseBeat })
	r := &rig{T: t, broker: b.endpoint, kill: b.Close}
	r.client = r.newClient(cfg)
	t.Cleanup(func() {
		for _, v := range b.violations() {
			t.Errorf("the client broke the base protocol: %s", v)
		}
	})
	return r, b
}

// zbroker aborts if a PING comes behind a WRITE that waits for its reader.
func TestConnBaseWriteWaitsForItsReader(t *testing.T) {
	t.Parallel()
	for _, data := range []string{"", "hello"} {
		t.Run(data, func(t *testing.T) {
			t.Parallel()
			r, b := atBaseBroker(t, ClientConfig{})
			w := r.writer("p")
			if _, err := w.WriteString(data); err != nil {
				t.Fatal(err)
			}
			time.Sleep(b.clientTimeout + 2*baseBeat) // who is silent is dropped, and who sends PINGs ends the broker
			rd := r.reader("p")
			read := inBackground(func() (int, error) {
				got, err := io.ReadAll(rd)
				if want := data + ", world"; err == nil && string(got) != want {
					err = fmt.Errorf("read %q, want %q", got, want)
				}
				return len(got), err
			})
			if _, err := w.WriteString(", world"); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if got := r.within(soon, read); got.err != nil {
				t.Error(got.err)
			}
		})
	}
}

func TestConnBaseBrokerDiesUnderAWriteThatWaits(t *testing.T) {
	r, _ := atBaseBroker(t, ClientConfig{})
	w := r.writer("p")
	w.WriteString("hello")
	r.kill()
	done := inBackground(func() (int, error) { return 0, w.Flush() })
	if got := r.within(soon, done); !errors.Is(got.err, ErrBrokerGone) {
		t.Errorf("Flush: %v", got.err)
	}
}

// At zbroker, a READ behind which came a PING is answered with nothing.
func TestConnBaseReadWaitsThroughBeats(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 3, 1 << 20} {
		t.Run(strconv.Itoa(size), func(t *testing.T) {
			t.Parallel()
			r, _ := atBaseBroker(t, ClientConfig{ReadSize: size})
			rd, w := r.pipe("p")
			data := noise(9, 3*maxBaseReads)
			done := inBackground(func() (int, error) {
				got, err := io.ReadAll(rd)
				if err == nil && string(got) != string(data) {
					err = errors.New("not what was written")
				}
				return len(got), err
			})
			for i := range 3 {
				time.Sleep(3 * baseBeat) // each beat empties a READ
				w.Write(data[i*maxBaseReads : (i+1)*maxBaseReads])
				if err := w.Flush(); err != nil {
					t.Fatal(err)
				}
			}
			w.Close()
			if got := r.within(soon, done); got.err != nil {
				t.Errorf("%d of %d bytes: %v", got.n, len(data), got.err)
			}
		})
	}
}

// An end that nothing was written to closes in order, and its name is free, if nobody
// came to read it.
func TestConnBaseWriterClosesUnused(t *testing.T) {
	t.Parallel()
	r, _ := atBaseBroker(t, ClientConfig{})
	for range 3 {
		w := r.writer("p")
		w.SetWriteDeadline(time.Now())
		var undelivered *UndeliveredError
		if err := w.Close(); !errors.As(err, &undelivered) {
			t.Error(err)
		}
	}
}

// A last record that is shorter than half of ReadSize.
func TestConnBaseShortLastRecord(t *testing.T) {
	for _, size := range []int{5, 600 << 10, 1 << 20, 3 << 20} {
		r, _ := atBaseBroker(t, ClientConfig{ReadSize: size, Timeout: 4 * soon})
		rd, w := r.pipe("p")
		go func() { w.WriteString("abc"); w.Close() }()
		rd.SetReadDeadline(time.Now().Add(4 * soon))
		if got, err := io.ReadAll(rd); string(got) != "abc" || err != nil {
			t.Errorf("with READs of %d: %q, %v", size, got, err)
		}
	}
}

func TestConnBaseReadSizeOfRecords(t *testing.T) {
	b := startBaseBroker(t)
	r := &rig{T: t, broker: b.endpoint}
	r.client = r.newClient(ClientConfig{ReadSize: 1000})
	rd, w := r.pipe("p")
	data := noise(9, 500_000)
	go func() { w.Write(data); w.Close() }()
	if got, err := io.ReadAll(rd); string(got) != string(data) || err != nil {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
}

func TestQueueAtABaseBroker(t *testing.T) {
	r := &rig{T: t, broker: startBaseBroker(t).endpoint}
	r.client = r.newClient(ClientConfig{})
	if _, err := r.client.OpenQueue(r.Context(), "q"); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	if err := r.client.DeleteQueue(r.Context(), "q"); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}

func TestStatusOfBaseBroker(t *testing.T) {
	r := &rig{T: t, broker: startBaseBroker(t).endpoint}
	r.client = r.newClient(ClientConfig{})
	if _, err := r.client.Status(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}

// Such a broker has no near door. A client that has its name goes on to where it is.
func TestConnBaseBrokerByName(t *testing.T) {
	name := uniqueName(t)
	b := startBaseBroker(t, func(b *baseBroker) { b.endpoint = defaultEndpoint(name) })
	r := &rig{T: t, broker: name}
	r.client = r.newClient(ClientConfig{})
	rd, w := r.pipe("p")
	if _, err := w.WriteString("met"); err != nil {
		t.Error(err)
	}
	got := make([]byte, 3)
	if _, err := io.ReadFull(rd, got); err != nil || string(got) != "met" {
		t.Errorf("%q, %v", got, err)
	}
	if at := r.client.Endpoint(); at != b.endpoint {
		t.Errorf("the client is at %s", at)
	}
}
