//go:build !core

package zpipes

import (
	"bytes"
	"cmp"
	"encoding/json"
	"runtime"
	"sync"
	"time"
)

// A report is the status on its way to one who has asked for it over a connection. It is
// written in pieces, as they are read, so that one who does not read holds no more than
// a piece.
type report struct {
	broker *Broker
	pipe   *pipe
	jobs   *chunkQueue // whose jobs it is about; nil: it is the status
	able   uint32      // what the reader is able to do

	// The rest is the reporter's goroutine's, but for posted.
	begun  bool
	tail   []byte // what comes behind the pipes
	survey survey
	some   bool   // there was a pipe, or a job
	after  uint64 // the number of the last job
	failed error  // why some jobs are left out

	posted bool // guarded by the reporter's mu
}

// report writes the status, or what there is to say of a queue's jobs, to a pipe, and ends it.
func (b *Broker) report(p *pipe, jobs *chunkQueue, able uint32) {
	r := &report{broker: b, pipe: p, jobs: jobs, able: able}
	p.mu.Lock()
	p.attach(writer, func() { b.reporter.post(r) })
	p.mu.Unlock()
	b.reporter.post(r)
}

// write adds a piece, if there is room, and says whether to go on at once.
func (r *report) write() bool {
	p := r.pipe
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.over():
		return false
	case p.room() == 0:
		p.await(writer, 1)
		return false
	}
	p.mu.Unlock()
	text, last, err := r.piece()
	p.mu.Lock()
	switch {
	case p.over():
		return false
	case err == errDeleted:
		p.leave(writer, cause{code: causeDeleted})
		return false
	case err != nil:
		p.leave(writer, cause{causeAborted, err.Error()})
		return false
	}
	p.fill(text)
	if last {
		p.leave(writer, cause{})
	} else {
		p.settle()
	}
	return !last
}

// piece is the next one, and whether it is the last.
func (r *report) piece() (text []byte, last bool, err error) {
	const pipes = `"pipes":[` // not within a string, which has no bare quotes
	switch {
	case r.jobs != nil:
		return r.jobsPiece()
	case !r.begun:
		r.begun = true
		s := r.broker.status()
		s.Pipes = []PipeInfo{}
		text, err = json.Marshal(s)
		head, tail, _ := bytes.Cut(text, []byte(pipes))
		r.tail = tail
		return append(head, pipes...), false, err
	case r.survey.over:
		return r.tail, true, nil
	}
	infos := r.survey.step(r.broker.pipes, time.Now(), nil)
	if len(infos) == 0 {
		return nil, false, nil
	}
	for i := range infos {
		infos[i].Mode = infos[i].Mode.knownTo(r.able)
	}
	text, err = r.items(inJSON(infos))
	return text, false, err
}

// knownTo is the mode as a client is told it that is able to do that: one of an earlier version
// would take nothing of a status with a mode that it does not know.
func (m Mode) knownTo(able uint32) Mode {
	if m == ModeListener && able&ableConnections == 0 || m == ModeBroadcast && able&ableBroadcast == 0 {
		return ModeStream
	}
	return m
}

// items are the next ones of an array, without its brackets.
func (r *report) items(infos any) ([]byte, error) {
	text, err := json.Marshal(infos)
	if err != nil {
		return nil, err
	}
	text = text[:len(text)-1]
	if text[0] = ','; !r.some {
		text = text[1:]
	}
	r.some = true
	return text, nil
}

// jobsPiece is piece for an array of jobs.
func (r *report) jobsPiece() (text []byte, last bool, err error) {
	if !r.begun {
		r.begun = true
		return []byte("["), false, nil
	}
	infos, next, err := jobInfos(r.jobs, r.after)
	r.after, r.failed = next, cmp.Or(r.failed, err)
	switch {
	case next == 0 && r.failed != nil:
		return nil, false, r.failed
	case next == 0:
		return []byte("]"), true, nil
	case len(infos) == 0:
		return nil, false, nil
	}
	text, err = r.items(infos)
	return text, false, err
}

// A reporter has a goroutine while there are reports to be written, which take turns.
type reporter struct {
	mu     sync.Mutex // guards what follows; taken under a pipe's, and no other under it
	turns  fifo[*report]
	done   chan struct{} // closed when the goroutine ends; nil: there is none
	closed bool
}

// post has a piece of r written. It may be called by anybody.
func (w *reporter) post(r *report) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.posted || w.closed {
		return
	}
	r.posted = true
	w.turns.push(r)
	if w.done == nil {
		w.done = make(chan struct{})
		go w.run(w.done)
	}
}

func (w *reporter) run(done chan struct{}) {
	defer close(done)
	for r := w.next(); r != nil; r = w.next() {
		if r.write() {
			w.post(r)
		}
		runtime.Gosched() // whoever has something small to do comes first
	}
}

func (w *reporter) next() *report {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.turns.len() == 0 || w.closed {
		w.done = nil
		return nil
	}
	r := w.turns.pop()
	r.posted = false
	return r
}

// close waits until the goroutine has ended.
func (w *reporter) close() {
	w.mu.Lock()
	w.closed = true
	done := w.done
	w.mu.Unlock()
	if done != nil {
		<-done
	}
}
