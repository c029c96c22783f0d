//go:build linux && (amd64 || arm64 || loong64 || ppc64le || riscv64 || s390x)

package ring

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// seals are what the memory's size, and the list of its seals, is held with: nobody can
// cut it under those who have mapped it.
const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// Make makes the memory of a ring with size bytes of data, and returns its descriptor.
func Make(size int) (int, error) {
	if size <= 0 || size > MaxSize {
		return -1, fmt.Errorf("%d bytes can't be a ring", size)
	}
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("zpipes", flags|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // Linux before 6.3
		fd, err = unix.MemfdCreate("zpipes", flags)
	}
	if err != nil {
		return -1, os.NewSyscallError("memfd_create", err)
	}
	if err = unix.Ftruncate(fd, int64(Header+size)); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("sealing memory", err)
	}
	return fd, nil
}

// A Mapping is a ring's memory in this process. It has one reference; the memory goes
// with the last.
type Mapping struct {
	mem  []byte
	refs atomic.Int64
}

// Map maps the memory of a ring with size bytes of data, once it has checked that it has
// just that size and will keep it. The descriptor stays the caller's.
func Map(fd, size int) (*Mapping, error) { return mapped(fd, size, Header+size) }

// MapHeader is Map for the keeper, who has no use for the data.
func MapHeader(fd, size int) (*Mapping, error) { return mapped(fd, size, Header) }

func mapped(fd, size, length int) (*Mapping, error) {
	if size <= 0 || size > MaxSize {
		return nil, fmt.Errorf("%d bytes can't be a ring", size)
	}
	got, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return nil, os.NewSyscallError("looking at the seals of a ring", err)
	}
	if got&seals != seals {
		return nil, fmt.Errorf("%w: its size is not sealed", ErrBroken)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	if st.Size != int64(Header+size) {
		return nil, fmt.Errorf("%w: it has %d bytes instead of %d", ErrBroken, st.Size, Header+size)
	}
	mem, err := unix.Mmap(fd, 0, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	m := &Mapping{mem: mem}
	m.refs.Store(1)
	return m, nil
}

// Bytes is the memory. It must not be touched by who has no reference.
func (m *Mapping) Bytes() []byte { return m.mem }

// Retain takes one more reference, for who has one or holds the lock under which the last
// is released.
func (m *Mapping) Retain() { m.refs.Add(1) }

// Release gives a reference back.
func (m *Mapping) Release() {
	if m.refs.Add(-1) == 0 {
		unix.Munmap(m.mem)
	}
}
