//go:build !core

package zpipes

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"
)

// Ends of one name at different brokers, whichever comes first.
func TestStreamBetweenBrokers(t *testing.T) {
	c := newTestCluster()
	brokers := c.meshed(t, 3)
	for i, first := range []role{reader, writer} {
		name := "pipe of " + first.String()
		var r *Reader
		var w *Writer
		open := func(x role) {
			var err error
			if x == reader {
				r, err = brokers[0].Client().OpenReader(t.Context(), name)
			} else {
				w, err = brokers[1+i].Client().OpenWriter(t.Context(), name)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		open(first)
		open(1 - first)
		sent := noise(1, 3<<20)
		done := inBackground(func() (int, error) {
			n, err := w.Write(sent)
			return n, errors.Join(err, w.Close())
		})
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
		if wrote := <-done; wrote.err != nil || wrote.n != len(sent) {
			t.Errorf("wrote %d, %v", wrote.n, wrote.err)
		}
		r.Close()
	}
	for _, b := range brokers {
		eventually(t, "nothing is left", func() bool {
			return len(b.pipes.allPipes()) == 0 && len(b.pipes.far) == 0
		})
	}
}

// Nothing is confirmed before the reader's broker has it.
func TestFlushBetweenBrokers(t *testing.T) {
	c := newTestCluster()
	brokers := c.meshed(t, 2)
	w, err := brokers[0].Client().OpenWriter(t.Context(), "pipe")
	if err != nil {
		t.Fatal(err)
	}
	defer w.CloseWithError(errors.New("the test is over"))
	w.WriteString("hello")
	w.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	var undelivered *UndeliveredError
	if err := w.Flush(); !errors.As(err, &undelivered) || undelivered.Bytes != 5 {
		t.Errorf("Flush without a reader: %v", err)
	}
	w.SetWriteDeadline(time.Time{})
	r, err := brokers[1].Client().OpenReader(t.Context(), "pipe")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := w.Flush(); err != nil {
		t.Error(err)
	}
	c.cut(brokers[0], brokers[1])
	b := make([]byte, 10)
	if n, err := r.Read(b); string(b[:n]) != "hello" {
		t.Errorf("%q, %v", b[:n], err)
	}
	w.WriteString("more")
	w.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	if err := w.Flush(); !errors.As(err, &undelivered) || undelivered.Bytes != 4 {
		t.Errorf("Flush while they are cut off: %v", err)
	}
	w.SetWriteDeadline(time.Time{})
	c.heal(brokers[0], brokers[1])
	if err := w.Flush(); err != nil {
		t.Error(err)
	}
	if n, err := r.Read(b); string(b[:n]) != "more" {
		t.Errorf("%q, %v", b[:n], err)
	}
}
