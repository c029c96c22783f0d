//go:build cgo && !core

package zpipes

import (
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"sync"
	"testing"
	"time"
)

func TestConnBrokerThatNeverAnswersClose(t *testing.T) {
	t.Parallel()
	l := startLiar(t, func(*liar, message) {})
	rd, w := l.pipe("p")
	w.WriteString("x")
	for _, closer := range []io.Closer{rd, w, l.rig.client} {
		got := l.within(2*partingTime+soon, inBackground(func() (int, error) { return 0, closer.Close() }))
		if closer == w && !errors.Is(got.err, os.ErrDeadlineExceeded) {
			t.Errorf("Close of a Writer of whose end the broker says nothing: %v", got.err)
		}
	}
}

// What a broker says out of turn ends the connection; it neither hangs a call,
// nor fills memory, nor ends up in somebody's data.
func TestConnBrokerThatSpeaksOutOfTurn(t *testing.T) {
	t.Parallel()
	opened := func(m message) bool { return m.id == msgInput || m.id == msgOutput }
	for name, says := range map[string]func(l *liar, m message){
		"CLOSE_OK unasked": func(l *liar, m message) {
			if opened(m) {
				l.say(message{id: msgCloseOK, channel: m.channel})
			}
		},
		"INPUT_FAILED after INPUT_OK": func(l *liar, m message) {
			if opened(m) {
				l.say(message{id: msgInputFailed, channel: m.channel})
			}
		},
		"READ_OK to a writer": func(l *liar, m message) {
			switch m.id {
			case msgInput:
				l.say(message{id: msgWriteOK, channel: m.channel})
			case msgOutput:
				l.say(message{id: msgReadOK, channel: m.channel, chunk: []byte("EVIL")})
			}
		},
		"READ_OK with too much": func(l *liar, m message) {
			if m.id == msgRead {
				l.say(message{id: msgReadOK, channel: m.channel, chunk: make([]byte, m.size+1)})
			}
		},
		"WRITE_OK unasked": func(l *liar, m message) {
			if opened(m) {
				l.say(message{id: msgWriteOK, channel: m.channel})
			}
		},
		"READ_TIMEOUT": func(l *liar, m message) {
			if opened(m) {
				l.say(message{id: msgReadTimeout, channel: m.channel})
			}
		},
		"a client's message": func(l *liar, m message) {
			if opened(m) {
				l.say(message{id: msgPing, channel: m.channel})
			}
		},
		"no block": func(l *liar, m message) {
			if opened(m) {
				wireSend(l.router, l.client, (&message{id: msgReadEnd}).append(nil))
			}
		},
		"garbage": func(l *liar, m message) {
			if opened(m) {
				wireSend(l.router, l.client, []byte("garbage"))
			}
		},
		"the session is another": func(l *liar, m message) {
			if opened(m) {
				l.say(message{id: msgPingOK, hello: hello{version: 1, session: 8}})
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := startLiar(t, says)
			l.connected()
			rd, err := l.rig.client.OpenReader(t.Context(), "p")
			if err != nil && !errors.Is(err, ErrBrokerGone) {
				t.Fatal(err)
			}
			if err == nil {
				got := l.within(soon, inBackground(func() (int, error) {
					n, err := io.Copy(io.Discard, rd)
					return int(n), err
				}))
				if !errors.Is(got.err, ErrBrokerGone) || got.n > 0 {
					t.Errorf("read %d bytes, %v", got.n, got.err)
				}
			}
			w, err := l.rig.client.OpenWriter(t.Context(), "q")
			if err == nil {
				w.WriteString("good")
				l.within(2*partingTime+soon, inBackground(func() (int, error) { return 0, w.Close() }))
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			if string(l.took) != "good" && len(l.took) > 0 {
				t.Errorf("the broker got %q", l.took)
			}
		})
	}
}

func TestConnReadFailedIsNeverACleanEnd(t *testing.T) {
	l := startLiar(t, func(l *liar, m message) {
		switch m.id {
		case msgRead:
			l.say(message{id: msgReadFailed, channel: m.channel, text: []byte("disk on fire")})
		case msgClose:
			l.say(message{id: msgCloseOK, channel: m.channel})
		}
	})
	_, err := l.reader("p").Read(make([]byte, 1))
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Read: %v", err)
	}
}

// Each PING without a session begins one, and ends the one before with all that was
// opened in it. So a broker that takes its time for the answer gets no second one.
func TestConnFirstPingIsNotRepeated(t *testing.T) {
	t.Parallel()
	const heartbeat = 500 * time.Millisecond
	l := startLiar(t, func(l *liar, m message) {
		if m.id == msgClose {
			l.say(message{id: msgCloseOK, channel: m.channel})
		}
	})
	var mu sync.Mutex
	first := 0
	l.pinged = func(m message) {
		mu.Lock()
		defer mu.Unlock()
		if m.hello.session != 0 {
			return
		}
		if first++; first == 1 {
			time.Sleep(2 * heartbeat)
		}
	}
	l.rig.client = l.newClient(ClientConfig{Heartbeat: heartbeat})
	l.reader("p")
	if _, err := l.rig.client.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if first != 1 {
		t.Errorf("%d PINGs without a session", first)
	}
}

// The name that an open has taken on a connection that was lost is in the way of the
// next try until the broker has missed it.
func TestConnOpenThatMeetsItself(t *testing.T) {
	t.Parallel()
	tries := 0
	l := startLiar(t, func(l *liar, m message) {
		if m.id != msgOutput {
			return
		}
		switch tries++; {
		case tries == 1:
			l.say(message{id: msgInvalid, code: causeBrokerGone, cause: []byte("lost")})
		case tries < 4 || string(m.text) == "q":
			l.say(message{id: msgOutputFailed, channel: m.channel, code: causeBusy})
		default:
			l.say(message{id: msgOutputOK, channel: m.channel})
		}
	})
	l.opens = false
	l.rig.client = l.newClient(ClientConfig{Timeout: 4 * soon})
	if _, err := l.rig.client.OpenWriter(t.Context(), "p"); err != nil {
		t.Error(err)
	}
	if _, err := l.rig.client.OpenWriter(t.Context(), "q"); !errors.Is(err, ErrPipeBusy) || tries != 5 {
		t.Errorf("the open of a pipe that is another's: %v, after %d tries in all", err, tries)
	}
}

// A deletion whose answer is lost with the connection is tried again, and then there is
// no such queue any more. That is what was asked for.
func TestConnDeleteQueueWhoseAnswerWasLost(t *testing.T) {
	deleted := false
	l := startLiar(t, func(l *liar, m message) {
		switch {
		case m.id != msgInput || m.mode != modeDelete:
		case !deleted:
			deleted = true
			l.say(message{id: msgInvalid, code: causeBrokerGone, cause: []byte("lost")})
		default:
			l.say(message{id: msgInputFailed, channel: m.channel, code: causeNoQueue})
		}
	})
	if err := l.rig.client.DeleteQueue(t.Context(), "q"); err != nil {
		t.Errorf("DeleteQueue: %v", err)
	}
	if err := l.rig.client.DeleteQueue(t.Context(), "q"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("DeleteQueue of a queue that does not exist: %v", err)
	}
}

// A client that does not believe in its broker any more takes its leave all the same:
// should the broker have stood still only, the names are free before the client
// comes back.
func TestConnLeaveOfASilentBroker(t *testing.T) {
	t.Parallel()
	const heartbeat = 50 * time.Millisecond
	left := make(chan struct{}, 1)
	l := startLiar(t, func(l *liar, m message) {
		if m.id == msgClose && m.channel == 0 {
			left <- struct{}{}
		}
	})
	l.pinged = func(m message) {
		if m.hello.session != 0 {
			time.Sleep(2 * missedBeats * heartbeat) // it stands still
		}
	}
	l.rig.client = l.newClient(ClientConfig{Heartbeat: heartbeat})
	rd := l.reader("p")
	if got := l.within(soon, inBackground(func() (int, error) { return rd.Read(make([]byte, 1)) })); !errors.Is(got.err, ErrBrokerGone) {
		t.Error(got.err)
	}
	select {
	case <-left:
	case <-time.After(soon):
		t.Error("it did not take its leave")
	}
}

func TestConnChannelsWrapAround(t *testing.T) {
	k := &conn{session: 1, last: math.MaxUint32 - 1, links: map[uint32]channelLink{1: new(streamLink), 2: new(streamLink)}}
	for _, want := range []uint32{math.MaxUint32, 3, 4} { // 0 is the connection's own
		if got := k.newChannel(); got != want {
			t.Errorf("channel %d, want %d", got, want)
		}
	}
}
