package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// At a near door messages are bytes behind each other: they may come in any pieces, end
// anywhere, and be damaged anywhere, lengths included.

func init() { errands["cuts"] = cuts }

// chat is all that a client says which writes something to itself, and how often it gets
// what answer.
func chat(name string) (said []byte, answers map[byte]int64) {
	d, chunk := newDialect, make([]byte, 100)
	for _, m := range [][][]byte{
		hello(rarely), d.output(1, name), d.input(2, name, modeBytes), d.write(1, chunk), d.read(2, uint32(len(chunk)), 0),
	} {
		said = append(said, framed(m[0])...)
	}
	return said, map[byte]int64{idPingOK: 1, idOutputOK: 1, idInputOK: 1, idWriteOK: 1, idReadOK: 1}
}

func cuts(h *host, e errand) (t tally, err error) {
	r := rand.New(rand.NewPCG(e.Seed, 0))
	for ; t.Times < e.Count && err == nil; t.Times++ {
		n := int(t.Times)
		kind := n % 3
		// No damage makes one name of another kind's.
		said, answers := chat(fmt.Sprint([]string{"cut ", "damaged ", "whole "}[kind], n))
		switch kind {
		case 0: // every place in turn
			said, answers = said[:n/3%len(said)], nil
		case 1:
			said[r.IntN(len(said))] ^= 1 << r.IntN(8)
			answers = nil
		}
		err = piecemeal(e.Endpoint, said, 1<<r.IntN(8), answers)
	}
	t.Found = fmt.Sprintf("a third of %s conversations was cut short, one damaged, and one whole and answered", count(e.Count))
	return t, err
}

// piecemeal says something in pieces of at most such a size, and hangs up when all answers
// have come.
func piecemeal(endpoint string, said []byte, size int, answers map[byte]int64) error {
	w, err := dialNear(endpoint)
	if err != nil {
		return err
	}
	defer w.hangUp(0)
	for piece := range slices.Chunk(said, size) {
		w.rest = piece
		for len(w.rest) > 0 && err == nil {
			if err = w.flush(); len(w.rest) > 0 {
				w.idle(tick, true, false)
			}
		}
	}
	c := &rawClient{newDialect, w}
	if answers == nil {
		_, err = c.receive()
	} else if err == nil {
		err = c.exchange(0, nil, answers)
	}
	if answers == nil && err == errGone {
		return nil
	}
	return err
}
