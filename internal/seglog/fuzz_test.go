package seglog

import (
	"path/filepath"
	"testing"
)

// FuzzLoad loads what nobody should have written: it must end, and with no panic. What it
// loads can be read or is corrupt, and repaired.
func FuzzLoad(f *testing.F) {
	fs, _, err := played(1, func(fs FS) FS { return fs }, true)
	if err != nil {
		f.Fatal(err)
	}
	run, err := findSegments(fs, "/d/2")
	if err != nil {
		f.Fatal(err)
	}
	file := func(number uint32) []byte { return fs.dirs["/d/2"].now[filepath.Base(segmentPath("", number))].now }
	for _, n := range run[1:] {
		f.Add(file(n-1), file(n), []byte(nil), n, true)
		f.Add(file(n-1), file(n), []byte(indexMagic), n, false)
	}
	f.Fuzz(func(_ *testing.T, first, second, index []byte, number uint32, seal bool) {
		loadAnything(first, second, index, number, seal)
	})
}

func loadAnything(first, second, index []byte, number uint32, seal bool) {
	fs := newMemFS()
	fs.Mkdir("/d/2")
	write := func(name string, b []byte) {
		h, err := fs.Create(name)
		if err != nil {
			return
		}
		h.WriteAt(b, 0)
		h.Close()
	}
	if seal {
		first, second = resealed(first), resealed(second)
	}
	write(segmentPath("/d/2", number-1), first)
	write(segmentPath("/d/2", number), second)
	write(indexPath("/d/2", number-1), index)
	s, err := testStore(fs, 2048)
	if err != nil {
		return
	}
	defer s.Close()
	for _, q := range s.Queues() {
		if q.Err == nil {
			l, err := s.Load(q.Name, newHistory(nil), noAccount{})
			if err == nil {
				read(l)
				l.Append(Op{Kind: Put, ID: l.NextID()})
				l.Close()
			}
		}
		s.Repair(q)
	}
	for _, q := range s.Queues() {
		if q.Err == nil {
			s.Load(q.Name, newHistory(nil), noAccount{})
		}
	}
}

// resealed has the checksums of its header and its batches right, so that what is in
// them is looked at.
func resealed(b []byte) []byte {
	b = append([]byte(nil), b...)
	if len(b) < headerSize {
		return b
	}
	copy(b, headerMagic)
	sealHeader(b[:headerSize])
	salt := le.Uint64(b[20:])
	for at := headerSize; at+batchHead <= len(b); {
		n := min(int(le.Uint32(b[at+4:])), len(b)-at-batchHead)
		h := batch{salt: salt, at: uint32(at), synced: le.Uint32(b[at+20:]), needs: le.Uint32(b[at+24:])}
		h.seal(b[at : at+batchHead+n])
		at += batchHead + n
	}
	return b
}
