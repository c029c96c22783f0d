//go:build !core

package zpipes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// inBubbles runs a test in a bubble for each way to a broker in memory: directly, and over a
// connection. In a bubble, nothing takes time but waiting for it; and all that the library
// does has to wait in ways that a bubble knows of, and to end.
func inBubbles(t *testing.T, broker BrokerConfig, test func(r *rig, b *Broker)) {
	broker.Endpoints = []string{}
	for i, name := range []string{"direct", "memory"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := startBroker(t, broker)
				r := &rig{T: t, broker: []string{b.Name(), b.Endpoints()[0]}[i]}
				r.client = r.newClient(ClientConfig{})
				test(r, b)
			})
		})
	}
}

func TestBubbleStream(t *testing.T) {
	inBubbles(t, BrokerConfig{}, func(r *rig, b *Broker) {
		rd, w := r.pipe("p")
		data := noise(1, 5<<20)
		done := inBackground(func() (int, error) { n, err := w.Write(data); return n, errors.Join(err, w.Close()) })
		got, err := io.ReadAll(rd)
		if err != nil || string(got) != string(data) {
			t.Errorf("read %d bytes, %v", len(got), err)
		}
		if got := <-done; got.err != nil {
			t.Error(got.err)
		}
	})
}

// A deadline is met to the moment.
func TestBubbleDeadline(t *testing.T) {
	inBubbles(t, BrokerConfig{}, func(r *rig, b *Broker) {
		rd, w := r.pipe("p")
		begin := time.Now()
		rd.SetReadDeadline(begin.Add(time.Hour))
		if _, err := rd.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		if took := time.Since(begin); took != time.Hour {
			t.Errorf("a Read took %v", took)
		}
		if _, err := w.WriteString("x"); err != nil {
			t.Error(err)
		}
		rd.SetReadDeadline(time.Time{})
		if n, err := rd.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Errorf("after an hour of heartbeats: %d, %v", n, err)
		}
	})
}

func TestBubbleQueue(t *testing.T) {
	inBubbles(t, BrokerConfig{ForgetQueues: time.Minute}, func(r *rig, b *Broker) {
		ctx, q := r.Context(), r.queue("q")
		for i := range 100 {
			if err := q.Send(ctx, fmt.Append(nil, i)); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 100 {
			if c, err := q.Receive(ctx); err != nil || string(c) != fmt.Sprint(i) {
				t.Fatalf("number %d is %q, %v", i, c, err)
			}
		}
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if _, err := q.Receive(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute + time.Minute/8 + sweepEvery)
		if n := b.Stats().Pipes; n != 0 {
			t.Errorf("%d queues after their time", n)
		}
	})
}

// The bytes of a queue's chunks, for which also a direct client needs a session.
func TestBubbleQueuesBytes(t *testing.T) {
	inBubbles(t, BrokerConfig{}, func(r *rig, b *Broker) {
		q := r.queue("q")
		rd, w := r.pipe("q")
		if err := q.Send(r.Context(), []byte("one")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 6)
		if _, err := w.WriteString("two"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(rd, got); err != nil || string(got) != "onetwo" && string(got) != "twoone" {
			t.Errorf("%q, %v", got, err)
		}
		time.Sleep(time.Hour) // of heartbeats
		if n := b.Stats().Clients; n != 1 {
			t.Errorf("%d clients", n)
		}
		done := inBackground(func() (int, error) { return rd.Read(got) })
		synctest.Wait()
		b.Close()
		if got := <-done; !errors.Is(got.err, ErrBrokerGone) {
			t.Error(got.err)
		}
		if n := b.Stats().Clients; n != 0 {
			t.Errorf("%d clients after the end", n)
		}
	})
}

func TestBubbleShutdown(t *testing.T) {
	inBubbles(t, BrokerConfig{}, func(r *rig, b *Broker) {
		rd, w := r.pipe("p")
		if _, err := w.WriteString("the last"); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		down := inBackground(func() (int, error) { return 0, b.Shutdown(context.Background()) })
		time.Sleep(time.Hour)
		if _, err := w.WriteString("x"); !errors.Is(err, ErrBrokerGone) {
			t.Errorf("a Write: %v", err)
		}
		got, err := io.ReadAll(rd)
		if string(got) != "the last" || !errors.Is(err, ErrBrokerGone) {
			t.Errorf("%q, %v", got, err)
		}
		if got := <-down; got.err != nil {
			t.Error(got.err)
		}
	})
}

// A client that says nothing any more is dropped when it has missed four beats, and one
// that never says what it is after five seconds.
func TestBubbleSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBroker(t, BrokerConfig{Endpoints: []string{}})
		c := joined(t, b)
		c.says(t, message{id: msgPing, block: hasBlock, hello: hello{version: protocolVersion, number: 500, able: abilities}})
		c.hears(t, msgPingOK)
		c.says(t, message{id: msgOutput, block: hasBlock, channel: 1, text: []byte("p")})
		c.hears(t, msgOutputOK)
		begin := time.Now()
		c.hears(t, msgInvalid)
		if took := time.Since(begin); took != missedBeats*500*time.Millisecond {
			t.Errorf("dropped after %v", took)
		}
		c.ends(t)
		if s := b.Stats(); s.Expired != 1 || s.Clients != 0 {
			t.Errorf("%+v", s)
		}
		c = joined(t, b)
		begin = time.Now()
		c.ends(t)
		if took := time.Since(begin); took != helloTime {
			t.Errorf("one that says nothing is dropped after %v", took)
		}
		if s := b.Stats(); s.Expired != 1 || s.Violations != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// Its connection's end is a client's death: at once.
func TestBubbleDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startBroker(t, BrokerConfig{Endpoints: []string{}})
		r := &rig{T: t, broker: b.Name()}
		r.client = r.newClient(ClientConfig{})
		rd := r.reader("p")
		c := joined(t, b)
		c.says(t, message{id: msgPing, block: hasBlock, hello: hello{version: protocolVersion, number: 500, able: abilities}})
		c.hears(t, msgPingOK)
		c.says(t, message{id: msgOutput, block: hasBlock, channel: 1, text: []byte("p")})
		c.hears(t, msgOutputOK)
		for _, word := range []string{"its ", "last ", "words"} {
			c.says(t, message{id: msgWrite, block: hasBlock, channel: 1, chunk: []byte(word)})
		}
		c.close()
		begin := time.Now()
		got, err := io.ReadAll(rd)
		if string(got) != "its last words" || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q, %v", got, err)
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("known after %v", took)
		}
		synctest.Wait()
		if s := b.Stats(); s.Expired != 1 || s.Clients != 0 {
			t.Errorf("%+v", s)
		}
	})
}
