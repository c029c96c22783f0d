package seglog

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// A Key is what a job came with, so that it can be told from another one that is the same.
type Key struct {
	Key  string
	ID   uint64
	Sent int64
}

// keyed is a job's key, and which segment says so.
type keyed struct {
	key     string
	sent    int64
	segment uint32
}

// Keys are those of the latest jobs, as many as Options.KeyMost, that were sent no longer ago than
// Options.KeyFor says, by their ids, whether they are there or gone.
func (l *Log) Keys() []Key {
	l.mu.Lock()
	defer l.mu.Unlock()
	oldest := l.oldestKey()
	all := make([]Key, 0, len(l.keys))
	for id, k := range l.keys {
		if k.sent >= oldest {
			all = append(all, Key{k.key, id, k.sent})
		}
	}
	slices.SortFunc(all, func(a, b Key) int { return cmp.Compare(a.ID, b.ID) })
	return all[l.tooMany(len(all)):]
}

// tooMany is how many of n keys are more than there may be.
func (l *Log) tooMany(n int) int {
	if l.keyMost == 0 {
		return 0
	}
	return max(0, n-l.keyMost)
}

func (l *Log) oldestKey() int64 { return time.Now().UnixNano() - int64(l.keyFor) }

// remember keeps the key of a record, if it has one.
func (l *Log) remember(s *segment, r *record) {
	if r.Text == "" || l.keyFor == 0 {
		return
	}
	l.keys[r.ID] = keyed{r.Text, r.Sent, s.number}
	if len(l.keys) > 2*l.fewKeys+1000 {
		l.forgetKeys()
	}
}

// forgetKeys drops those that are old, and of too many the first.
func (l *Log) forgetKeys() {
	oldest := l.oldestKey()
	for id, k := range l.keys {
		if k.sent < oldest {
			delete(l.keys, id)
		}
	}
	if n := l.tooMany(len(l.keys)); n > 0 {
		for _, id := range slices.Sorted(maps.Keys(l.keys))[:n] {
			delete(l.keys, id)
		}
	}
	l.fewKeys = len(l.keys)
}

// keyBytes is what carryKeys appends at most.
func (l *Log) keyBytes() (n int64) {
	const beside = 1 + 8 + 8 + 1 // bytes of a Gone
	oldest := l.oldestKey()
	for _, k := range l.keys {
		if k.sent >= oldest {
			n += beside + int64(len(k.key))
		}
	}
	return n
}

// carryKeys appends the keys which only segments before this one know.
func (l *Log) carryKeys(b []byte, first uint32) []byte {
	oldest := l.oldestKey()
	for id, k := range l.keys {
		if k.segment < first && k.sent >= oldest && l.jobs.get(id) == nil {
			b = appendRecord(b, &Op{Kind: Gone, ID: id, Sent: k.sent, Text: k.key})
		}
	}
	return b
}
