package seglog

import (
	"math/bits"
	"slices"
	"sort"
)

// An entry is where a job is on the disk, and what was last said of it.
type entry struct {
	segment, offset uint32
	size            uint32 // of its body
	mark            mark
}

// A mark is what was last said of a job (2 bits), the length of its record without the body (10)
// and its deliveries (20).
type mark uint32

const maxDeliveries = 1<<20 - 1

func newMark(last Kind, head int, deliveries uint32) mark {
	return mark(uint32(last-Put) | uint32(head)<<2 | min(deliveries, maxDeliveries)<<12)
}

func (m mark) last() Kind         { return Kind(m&3) + Put }
func (m mark) head() int          { return int(m >> 2 & 1023) }
func (m mark) deliveries() uint32 { return uint32(m >> 12) }

func (e entry) length() int64 { return int64(e.mark.head()) + int64(e.size) }

// A table has the entries of jobs by id: 16 bytes each, and one more where few are
// missing. Jobs come at its end and go anywhere.
type table struct {
	pages []page // by number; one without entries may stay for a while
	empty int    // how many have none
	count int
}

// A page has the entries of 64 ids that follow each other, packed.
type page struct {
	number  uint64
	used    uint64
	entries []entry
}

const pageBits = 6

// find says where the page of this number is or would be.
func (t *table) find(number uint64) (int, bool) {
	if n := len(t.pages); n > 0 {
		switch last := t.pages[n-1].number; {
		case number == last:
			return n - 1, true
		case number > last:
			return n, false
		}
	}
	i := sort.Search(len(t.pages), func(i int) bool { return t.pages[i].number >= number })
	return i, i < len(t.pages) && t.pages[i].number == number
}

// place is which bit of its page an id has, and before how many entries it stands.
func (p *page) place(id uint64) (bit uint64, rank int) {
	bit = 1 << (id & (1<<pageBits - 1))
	return bit, bits.OnesCount64(p.used & (bit - 1))
}

func (t *table) get(id uint64) *entry {
	i, ok := t.find(id >> pageBits)
	if !ok {
		return nil
	}
	p := &t.pages[i]
	bit, rank := p.place(id)
	if p.used&bit == 0 {
		return nil
	}
	return &p.entries[rank]
}

// put adds or replaces.
func (t *table) put(id uint64, e entry) {
	i, ok := t.find(id >> pageBits)
	if !ok {
		next := page{number: id >> pageBits}
		if i == len(t.pages) && i > 0 && len(t.pages[i-1].entries) == 1<<pageBits {
			next.entries = make([]entry, 0, 1<<pageBits) // as ids come
		}
		t.pages = slices.Insert(t.pages, i, next)
		t.empty++
	}
	p := &t.pages[i]
	bit, rank := p.place(id)
	if p.used&bit != 0 {
		p.entries[rank] = e
		return
	}
	if p.used == 0 {
		t.empty--
	}
	p.used |= bit
	p.entries = slices.Insert(p.entries, rank, e)
	t.count++
}

func (t *table) remove(id uint64) {
	i, ok := t.find(id >> pageBits)
	if !ok {
		return
	}
	p := &t.pages[i]
	bit, rank := p.place(id)
	if p.used&bit == 0 {
		return
	}
	p.used &^= bit
	t.count--
	if p.used == 0 {
		p.entries = nil
		t.empty++
		t.trim()
		return
	}
	p.entries = slices.Delete(p.entries, rank, rank+1)
	if n := len(p.entries); 4*n <= cap(p.entries) {
		p.entries = append(make([]entry, 0, 2*n), p.entries...)
	}
}

// trim lets pages without entries go: at the front at once, elsewhere when they are many.
func (t *table) trim() {
	for len(t.pages) > 0 && t.pages[0].used == 0 {
		t.pages = t.pages[1:]
		t.empty--
	}
	if 2*t.empty > len(t.pages) {
		full := make([]page, 0, len(t.pages)-t.empty+1)
		for _, p := range t.pages {
			if p.used != 0 {
				full = append(full, p)
			}
		}
		t.pages, t.empty = full, 0
	}
}

// each hands on all jobs, by id.
func (t *table) each(visit func(id uint64, e *entry)) {
	for i := range t.pages {
		p := &t.pages[i]
		for rest, rank := p.used, 0; rest != 0; rank++ {
			visit(p.number<<pageBits+uint64(bits.TrailingZeros64(rest)), &p.entries[rank])
			rest &= rest - 1
		}
	}
}

// next is the first job from this id on.
func (t *table) next(id uint64) (uint64, *entry) {
	i, ok := t.find(id >> pageBits)
	if ok {
		p := &t.pages[i]
		bit, rank := p.place(id)
		if rest := p.used &^ (bit - 1); rest != 0 {
			return p.number<<pageBits + uint64(bits.TrailingZeros64(rest)), &p.entries[rank]
		}
		i++
	}
	for ; i < len(t.pages); i++ {
		if p := &t.pages[i]; p.used != 0 {
			return p.number<<pageBits + uint64(bits.TrailingZeros64(p.used)), &p.entries[0]
		}
	}
	return 0, nil
}
