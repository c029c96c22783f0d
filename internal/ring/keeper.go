package ring

import "runtime/debug"

// A Keeper says where the stream ends. It sees the header alone.
type Keeper struct {
	memory
	wrote, took uint64 // what it has seen of the counts
}

// NewKeeper makes the keeper of a ring of size bytes, whose memory begins with header.
func NewKeeper(header []byte, size int) (*Keeper, error) {
	k := new(Keeper)
	return k, k.open(header[:min(len(header), Header)], size)
}

// Close ends the stream and returns behind how many bytes. All of them can be read, none
// behind them will be, and none behind them was or will be confirmed.
func (k *Keeper) Close() (final uint64, err error) {
	defer k.shield(debug.SetPanicOnFault(true), &err)
	k.closed.store(1)
	return k.written.load(), nil
}

// Counts says how many bytes were published and taken, as far as that can be.
func (k *Keeper) Counts() (written, read uint64, err error) {
	defer k.shield(debug.SetPanicOnFault(true), &err)
	w, r := k.written.load(), k.read.load()
	// The reader may have gone on since w was looked at.
	w = max(w, k.wrote)
	k.took = min(max(r, k.took), w)
	k.wrote = min(w, k.took+k.size)
	return k.wrote, k.took, nil
}
