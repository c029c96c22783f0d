package seglog

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

// A memFS is a file system in memory that keeps apart what would survive a loss of power. It
// can fail, be full, and lie.
type memFS struct {
	mu      sync.Mutex
	dirs    map[string]*memDir
	ops     int                             // operations so far
	fault   func(op int, what opKind) error // what becomes of an operation; guarded by mu
	hook    func()                          // is called when an operation is done, but nothing of it is synced
	locked  map[string]bool
	open    int
	used    int64
	size    int64 // of the disk; 0: there is no end
	noRoom  bool  // Allocate is not supported
	lies    bool  // Sync does nothing
	dirLies bool  // SyncDir does nothing
	order   int   // of what is pending
}

type opKind int

const (
	opCreate opKind = iota
	opOpen
	opRemove
	opRename
	opWrite
	opTruncate
	opAllocate
	opSync
	opSyncDir
	opRead
)

// errShort is a fault: half of it is written, and then the disk is full.
var errShort = errors.New("short")

type memDir struct {
	now, safe map[string]*memFile
	pending   []change
}

// A memFile is a file, or a directory.
type memFile struct {
	dir       *memDir
	now, safe []byte
	alloc     int64
	pending   []change
}

// A change is not synced yet.
type change struct {
	order  int
	at     int64
	data   []byte // nil: at is the new size
	remove string
	add    string
	file   *memFile
}

func newMemFS() *memFS {
	return &memFS{dirs: map[string]*memDir{"/": newMemDir()}, locked: make(map[string]bool)}
}

// do begins an operation. mu is locked.
func (m *memFS) do(what opKind) error {
	m.ops++
	if m.fault != nil {
		return m.fault(m.ops, what)
	}
	return nil
}

// done ends one that has changed something.
func (m *memFS) done() {
	if hook := m.hook; hook != nil {
		m.mu.Unlock()
		hook()
		m.mu.Lock()
	}
}

// setFault sets what becomes of operations.
func (m *memFS) setFault(fault func(op int, what opKind) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = fault
}

func (m *memFS) dir(name string) *memDir { return m.dirs[filepath.Dir(name)] }

func (d *memDir) change(m *memFS, c change) {
	m.order++
	c.order = m.order
	d.pending = append(d.pending, c)
	c.apply(d.now)
}

func (c change) apply(names map[string]*memFile) {
	if c.remove != "" {
		delete(names, c.remove)
	}
	if c.add != "" {
		names[c.add] = c.file
	}
}

func (f *memFile) change(m *memFS, c change) {
	m.order++
	c.order = m.order
	f.pending = append(f.pending, c)
	before := f.space()
	f.now = c.write(f.now)
	if c.data == nil {
		f.alloc = min(f.alloc, c.at)
	}
	m.used += f.space() - before
}

func (f *memFile) space() int64 { return max(f.alloc, int64(len(f.now))) }

func (c change) write(b []byte) []byte {
	if c.data == nil {
		return resize(b, c.at)
	}
	if end := c.at + int64(len(c.data)); end > int64(len(b)) {
		b = resize(b, end)
	}
	copy(b[c.at:], c.data)
	return b
}

func resize(b []byte, n int64) []byte {
	if n <= int64(len(b)) {
		return b[:n]
	}
	return append(b, make([]byte, n-int64(len(b)))...)
}

func (m *memFS) Open(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.do(opOpen); err != nil {
		return nil, err
	}
	d := m.dir(name)
	if d == nil || d.now[filepath.Base(name)] == nil || m.dirs[name] != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.ENOENT}
	}
	m.open++
	return &memHandle{fs: m, f: d.now[filepath.Base(name)]}, nil
}

func (m *memFS) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.do(opCreate); err != nil {
		return nil, err
	}
	d, base := m.dir(name), filepath.Base(name)
	if d == nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: syscall.ENOENT}
	}
	if d.now[base] != nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: syscall.EEXIST}
	}
	f := &memFile{}
	d.change(m, change{add: base, file: f})
	m.open++
	m.done()
	return &memHandle{fs: m, f: f}, nil
}

func (m *memFS) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base := m.dir(name), filepath.Base(name)
	if sub := m.dirs[name]; sub != nil {
		if len(sub.now) > 0 {
			return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOTEMPTY}
		}
		delete(m.dirs, name)
	} else if d == nil || d.now[base] == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOENT}
	}
	if err := m.do(opRemove); err != nil {
		return err
	}
	if f := d.now[base]; f != nil {
		m.used -= f.space()
	}
	d.change(m, change{remove: base})
	m.done()
	return nil
}

// Rename is of directories alone.
func (m *memFS) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.do(opRename); err != nil {
		return err
	}
	d := m.dirs[from]
	if d == nil || m.dirs[to] != nil {
		return &fs.PathError{Op: "rename", Path: from, Err: syscall.ENOENT}
	}
	delete(m.dirs, from)
	m.dirs[to] = d
	above := m.dir(from)
	above.change(m, change{remove: filepath.Base(from), add: filepath.Base(to), file: above.now[filepath.Base(from)]})
	m.done()
	return nil
}

func (m *memFS) Mkdir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mkdir(name)
	m.done()
	return nil
}

func (m *memFS) mkdir(name string) *memDir {
	if d := m.dirs[name]; d != nil {
		return d
	}
	above := m.mkdir(filepath.Dir(name))
	d := newMemDir()
	m.dirs[name] = d
	above.change(m, change{add: filepath.Base(name), file: &memFile{dir: d}})
	return d
}

func newMemDir() *memDir {
	return &memDir{now: make(map[string]*memFile), safe: make(map[string]*memFile)}
}

func (m *memFS) List(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.dirs[dir]
	if d == nil {
		return nil, &fs.PathError{Op: "list", Path: dir, Err: syscall.ENOENT}
	}
	names := slices.Collect(maps.Keys(d.now))
	slices.Sort(names)
	return names, nil
}

func (m *memFS) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.do(opSyncDir); err != nil {
		return err
	}
	m.done()
	d := m.dirs[dir]
	if d == nil || m.dirLies {
		return nil
	}
	for _, c := range d.pending {
		c.apply(d.safe)
	}
	d.pending = nil
	return nil
}

func (m *memFS) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locked[name] {
		return nil, ErrLocked
	}
	m.locked[name] = true
	return unlocker(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.locked, name)
	}), nil
}

type unlocker func()

func (u unlocker) Close() error { u(); return nil }

type memHandle struct {
	fs *memFS
	f  *memFile
}

func (h *memHandle) ReadAt(b []byte, at int64) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.fs.do(opRead); err != nil {
		return 0, err
	}
	if at >= int64(len(h.f.now)) {
		return 0, io.EOF
	}
	n := copy(b, h.f.now[at:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (h *memHandle) WriteAt(b []byte, at int64) (int, error) {
	m := h.fs
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.do(opWrite)
	n := len(b)
	if err == errShort {
		n, err = n/2, syscall.ENOSPC
	} else if err != nil {
		n = 0
	}
	if over := at + int64(n) - h.f.space(); m.size > 0 && over > 0 && m.used+over > m.size {
		n, err = max(0, n-int(m.used+over-m.size)), syscall.ENOSPC
	}
	if n > 0 {
		h.f.change(m, change{at: at, data: append([]byte{}, b[:n]...)})
	}
	m.done()
	return n, err
}

func (h *memHandle) Close() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	h.fs.open--
	return nil
}

func (h *memHandle) Size() (int64, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	return int64(len(h.f.now)), nil
}

func (h *memHandle) Truncate(size int64) error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.fs.do(opTruncate); err != nil {
		return err
	}
	h.f.change(h.fs, change{at: size})
	h.fs.done()
	return nil
}

// Sync that fails has lost what it should have synced, though it can still be read; and the next one
// knows nothing of it.
func (h *memHandle) Sync() error {
	m := h.fs
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.do(opSync); err != nil {
		h.f.pending = nil
		return err
	}
	m.done()
	if m.lies {
		return nil
	}
	for _, c := range h.f.pending {
		h.f.safe = c.write(h.f.safe)
	}
	h.f.pending = nil
	return nil
}

func (h *memHandle) Allocate(n int64) error {
	m := h.fs
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.noRoom {
		return errUnsupported
	}
	if err := m.do(opAllocate); err != nil {
		return err
	}
	before := h.f.space()
	if over := n - before; m.size > 0 && over > 0 && m.used+over > m.size {
		return syscall.ENOSPC
	}
	h.f.alloc = max(h.f.alloc, n)
	m.used += h.f.space() - before
	return nil
}

// A survival says what of the changes that were not synced is on the disk.
type survival int

const (
	survivesNothing survival = iota
	survivesAll
	survivesPrefix  // the first changes
	survivesSectors // any part of any of them
	survivals

	survivesKill = survivals // the process was killed: the system has all that it wrote
)

const sector = 64

// crash is what a loss of power leaves.
func (m *memFS) crash(what survival, r *rand.Rand) *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	until := 0
	if what == survivesPrefix {
		until = r.IntN(m.order + 1)
		if r.IntN(2) == 0 {
			until = m.order - r.IntN(min(m.order, 8)+1)
		}
	}
	keep := func(c change) bool {
		switch what {
		case survivesAll:
			return true
		case survivesPrefix:
			return c.order <= until
		case survivesSectors:
			return r.IntN(2) == 0
		}
		return false
	}
	after := newMemFS()
	after.order = m.order
	copies := make(map[*memFile]*memFile)
	var build func(path string, d *memDir) *memDir
	copied := func(path string, f *memFile) *memFile {
		if copies[f] == nil {
			if f.dir != nil {
				copies[f] = &memFile{dir: build(path, f.dir)}
			} else {
				copies[f] = f.crash(what, keep, r)
			}
		}
		return copies[f]
	}
	build = func(path string, d *memDir) *memDir {
		nd := &memDir{safe: maps.Clone(d.safe)}
		if what == survivesKill {
			nd.pending = slices.Clone(d.pending)
			for i, c := range nd.pending {
				if c.file != nil {
					nd.pending[i].file = copied(filepath.Join(path, c.add), c.file)
				}
			}
		} else {
			for _, c := range d.pending {
				if keep(c) {
					c.apply(nd.safe)
				}
			}
		}
		for name, f := range nd.safe {
			nd.safe[name] = copied(filepath.Join(path, name), f)
		}
		nd.now = maps.Clone(nd.safe)
		for _, c := range nd.pending {
			c.apply(nd.now)
		}
		after.dirs[path] = nd
		return nd
	}
	build("/", m.dirs["/"])
	return after
}

func (f *memFile) crash(what survival, keep func(change) bool, r *rand.Rand) *memFile {
	if what == survivesKill {
		return &memFile{now: slices.Clone(f.now), safe: slices.Clone(f.safe), pending: slices.Clone(f.pending)}
	}
	b := slices.Clone(f.safe)
	for _, c := range f.pending {
		if what != survivesSectors || c.data == nil {
			if keep(c) {
				b = c.write(b)
			}
			continue
		}
		if r.IntN(3) == 0 { // the size is on the disk, whatever else is
			b = resize(b, max(int64(len(b)), c.at+int64(len(c.data))))
		}
		for at := c.at; at < c.at+int64(len(c.data)); {
			end := min(c.at+int64(len(c.data)), at-at%sector+sector)
			if keep(c) {
				b = change{at: at, data: c.data[at-c.at : end-c.at]}.write(b)
			}
			at = end
		}
	}
	return &memFile{now: b, safe: slices.Clone(b)}
}
