//go:build cgo && !core

package zpipes

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"
)

// What a broker says of a queue out of turn ends the connection; it neither hangs a
// call nor ends up in somebody's data.
func TestConnQueueBrokerThatSpeaksOutOfTurn(t *testing.T) {
	t.Parallel()
	record := appendRecord(nil, []byte("EVIL"))
	for name, test := range map[string]struct {
		on   messageID // what the client says
		says []message // what it hears thereupon
	}{
		"records cut short":              {msgRead, []message{{id: msgReadOK, chunk: append(record, 0, 0, 0, 9, 1)}}},
		"a record of 4 GiB":              {msgRead, []message{{id: msgReadOK, chunk: []byte("\xff\xff\xff\xffEVIL")}}},
		"READ_OK without a record":       {msgRead, []message{{id: msgReadOK}}},
		"READ_OK unasked":                {msgWrite, []message{{id: msgReadOK, chunk: record}}},
		"READ_TIMEOUT unasked":           {msgRead, []message{{id: msgReadTimeout}}},
		"WRITE_OK unasked":               {msgInput, []message{{id: msgWriteOK, count: 2}}},
		"WRITE_OK that counts too much":  {msgWrite, []message{{id: msgWriteOK, count: 2}}},
		"WRITE_OK that counts very much": {msgWrite, []message{{id: msgWriteOK, count: 1<<32 - 1}}},
		"WRITE_OK that counts nothing":   {msgWrite, []message{{id: msgWriteOK}}},
		"WRITE_TIMEOUT":                  {msgWrite, []message{{id: msgWriteTimeout}}},
		"INPUT_OK again":                 {msgInput, []message{{id: msgInputOK, mode: modeQueue}}},
		"INPUT_FAILED after INPUT_OK":    {msgInput, []message{{id: msgInputFailed}}},
		"OUTPUT_OK":                      {msgInput, []message{{id: msgOutputOK}}},
		"CLOSE_OK unasked":               {msgInput, []message{{id: msgCloseOK}}},
		"a client's message":             {msgInput, []message{{id: msgRead}}},
		"INVALID":                        {msgRead, []message{{id: msgInvalid}}},
	} {
		t.Run(name, func(t *testing.T) {
			l := startLiar(t, func(l *liar, m message) {
				for _, says := range test.says {
					if says.channel = m.channel; m.id == test.on {
						l.say(says)
					}
				}
			})
			l.connected()
			q, err := l.rig.client.OpenQueue(t.Context(), "q")
			if err != nil {
				if !errors.Is(err, ErrBrokerGone) {
					t.Errorf("OpenQueue: %v", err)
				}
				return
			}
			sent := q.Send(t.Context(), []byte("good")) == nil
			flush := func() {
				err := l.within(soon, inBackground(func() (int, error) { return 0, q.Flush(t.Context()) })).err
				if sent && !errors.Is(err, ErrBrokerGone) {
					t.Errorf("Flush: %v", err)
				}
			}
			if test.on != msgRead {
				flush()
			}
			got := l.within(soon, inBackground(func() (int, error) {
				chunk, err := q.Receive(t.Context())
				return len(chunk), err
			}))
			if got.n != 0 || !errors.Is(got.err, ErrBrokerGone) {
				t.Errorf("received %d bytes, %v", got.n, got.err)
			}
			flush()
			var undelivered *UndeliveredError
			err = l.within(soon, inBackground(func() (int, error) { return 0, q.Close() })).err
			if sent != errors.As(err, &undelivered) {
				t.Errorf("Close: %v", err)
			}
		})
	}
}

// A Queue whose first open was lost with its connection is as good as any: that its sender was
// told so then, counts no more.
func TestConnQueueOpenedAtTheSecondTry(t *testing.T) {
	lost := false
	l := startLiar(t, func(l *liar, m message) {
		switch {
		case m.id == msgInput && !lost:
			lost = true
			l.say(message{id: msgInvalid, code: causeBrokerGone, cause: []byte("lost")})
		case m.id == msgInput:
			l.say(message{id: msgInputOK, channel: m.channel, mode: modeQueue})
		case m.id == msgWrite:
			l.say(message{id: msgWriteOK, channel: m.channel, count: 1})
		}
	})
	l.opens = false
	q, err := l.rig.client.OpenQueue(t.Context(), "q")
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Send(t.Context(), []byte("x")); err != nil {
		t.Errorf("Send: %v", err)
	}
	if err := q.Flush(t.Context()); err != nil {
		t.Errorf("Flush: %v", err)
	}
}

// A broker that answers nothing about a queue but the open hangs no call for longer
// than that may take.
func TestConnQueueBrokerThatAnswersNothing(t *testing.T) {
	t.Parallel()
	l := startLiar(t, func(*liar, message) {})
	q, err := l.rig.client.OpenQueue(t.Context(), "q")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := q.Send(ctx, []byte("x")); err != nil {
		t.Errorf("Send: %v", err)
	}
	if _, err := q.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Receive: %v", err)
	}
	if err := q.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Flush: %v", err)
	}
	waiting := l.begin(func() (int, error) { _, err := q.Receive(context.Background()); return 0, err })
	var undelivered *UndeliveredError
	if got := l.within(2*partingTime+soon, inBackground(func() (int, error) { return 0, q.Close() })); !errors.As(got.err, &undelivered) || undelivered.Bytes != 1 {
		t.Errorf("Close: %v", got.err)
	}
	l.within(soon, waiting)
	if got := l.within(2*partingTime+soon, inBackground(func() (int, error) { return 0, l.rig.client.Close() })); got.err != nil {
		t.Errorf("Client.Close: %v", got.err)
	}
}

// A Queue that has received more than it was asked for one by one has nothing left
// behind at the broker with which it would take a chunk that it does not want.
func TestConnQueueLeavesNoRequest(t *testing.T) {
	t.Parallel()
	overBothWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig, b *Broker) {
		x := r.texter(b)
		x.does("OPEN", "q")
		q := r.queue("q")
		chunks := []string{"one", "", string(noise(1, 300_000))}
		for range 20 {
			for _, c := range chunks {
				x.does("WRITE", "q", c)
			}
			r.receives(q, chunks...)
			r.send(q, chunks...)
			for _, c := range chunks {
				x.say("READ", "q")
				x.hears(c)
			}
		}
	})
}

// A job that came when its Take had given up, and that is taken away again before the broker has it back, was nobody's
// here, and no Flush says that it was lost. One that a Take has returned is, whichever comes first.
func TestConnQueueLosesOnlyWhatWasTaken(t *testing.T) {
	t.Parallel()
	said := make(chan message, 10)
	ctx, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	l := startLiar(t, func(l *liar, m message) {
		switch m.id {
		case msgTake:
			if m.count == 1 {
				giveUp()
			} else {
				l.say(message{id: msgJob, channel: m.channel, chunk: []byte("x"), job: wireJob{incarnation: 1, id: uint64(m.count + 1), delivery: 1}})
			}
		case msgSettle:
			lost := m.job
			if m.mode == byte(actReturn) {
				l.say(message{id: msgSettled, channel: m.channel, count: 1})
			} else {
				l.say(message{id: msgLost, channel: m.channel, mode: 1, job: lost})
			}
			said <- m
		}
	})
	l.able = ableJobs
	q, err := l.rig.client.OpenQueue(t.Context(), "q")
	check(t, err)
	settles := func(kind actKind, id uint64) {
		t.Helper()
		select {
		case m := <-said:
			if m.mode != byte(kind) || m.job.id != id {
				t.Fatalf("SETTLE %d of job %d, want %d of %d", m.mode, m.job.id, kind, id)
			}
		case <-time.After(soon):
			t.Fatal("there is no SETTLE")
		}
	}
	if _, err := q.Take(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("Take: %v", err)
	}
	settles(actUnseen, 1)
	for i, do := range []func(*Job) error{(*Job).Done, func(j *Job) error { return j.Return(0) }} {
		if err := q.Flush(t.Context()); err != nil {
			t.Errorf("Flush: %v", err)
		}
		j, err := q.Take(t.Context())
		check(t, err)
		check(t, do(j))
		settles([]actKind{actDone, actReturn}[i], uint64(i+3))
		if err := q.Flush(t.Context()); errors.Is(err, ErrLeaseLost) != (i == 0) {
			t.Errorf("Flush behind job %d: %v", i, err)
		}
	}
}

// What a client says of jobs is never more than a broker has answers for, which drops it otherwise: not where a job comes
// for a Take that has given up, either.
func TestConnQueueSaysNoMoreThanIsAnswered(t *testing.T) {
	t.Parallel()
	ctx, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	unanswered, takes := 0, 0
	back := make(chan int, 1)
	l := startLiar(t, func(l *liar, m message) {
		switch m.id {
		case msgSettle:
			if unanswered++; m.mode == byte(actUnseen) {
				back <- unanswered
				l.say(message{id: msgSettled, channel: m.channel, count: uint32(unanswered)})
			}
		case msgClose:
			l.say(message{id: msgCloseOK, channel: m.channel})
		case msgTake:
			switch takes++; takes {
			case 1:
				giveUp()
			case 2: // it is withdrawn, too late
				l.say(message{id: msgJob, channel: m.channel, chunk: []byte("x"), job: wireJob{incarnation: 1, id: maxActs + 1, delivery: 1}})
			case 3: // that is known there
				unanswered--
				l.say(message{id: msgSettled, channel: m.channel, count: 1})
			}
		}
	})
	l.able = ableJobs
	q, err := l.newClient(ClientConfig{Timeout: 4 * soon}).OpenQueue(t.Context(), "q")
	check(t, err)
	q.queue.mu.Lock()
	for i := range maxActs {
		q.act(jobRef{1, uint64(i + 1), 1}, act{kind: actDone})
	}
	q.queue.mu.Unlock()
	if _, err := q.Take(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("Take: %v", err)
	}
	select {
	case n := <-back:
		if n > maxQueued {
			t.Errorf("%d SETTLEs are not answered; a broker drops who has more than %d", n, maxQueued)
		}
	case <-time.After(4 * soon):
		t.Error("the job is not given back")
	}
}

// Chunks that have terms leave one by one, and no more of them are on their way than a broker holds behind each other
// when their queue is at another broker.
func TestConnQueueOfManyChunksWithTerms(t *testing.T) {
	t.Parallel()
	const many = 3 * maxQueued
	unanswered, channel := 0, uint32(0)
	l := startLiar(t, func(l *liar, m message) {
		switch m.id {
		case msgPut:
			channel = m.channel
			if unanswered++; unanswered == maxQueued+1 {
				t.Errorf("%d PUTs are not answered; a broker drops who has more than %d", unanswered, maxQueued)
			}
		case msgClose:
			l.say(message{id: msgCloseOK, channel: m.channel})
		}
	})
	l.able = ableJobs
	l.pinged = func(message) {
		if unanswered > 0 {
			l.say(message{id: msgWriteOK, channel: channel, count: uint32(unanswered)})
			unanswered = 0
		}
	}
	c := l.newClient(ClientConfig{Timeout: 4 * soon})
	q, err := c.OpenQueue(t.Context(), "q")
	check(t, err)
	for i := range many {
		check(t, q.SendOnce(t.Context(), strconv.Itoa(i), nil))
	}
	flushed := make(chan error, 1)
	go func() { flushed <- q.Flush(t.Context()) }()
	for {
		select {
		case err := <-flushed:
			check(t, err)
			return
		default:
			_, err := c.Ping(t.Context()) // what was sent before is answered
			check(t, err)
		}
	}
}
