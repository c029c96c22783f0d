//go:build !linux || !(amd64 || arm64 || loong64 || ppc64le || riscv64 || s390x)

package ring

import "errors"

// Supported says whether two processes can share a ring here.
const Supported = false

func Make(size int) (int, error)               { return -1, errors.ErrUnsupported }
func Map(fd, size int) (*Mapping, error)       { return nil, errors.ErrUnsupported }
func MapHeader(fd, size int) (*Mapping, error) { return nil, errors.ErrUnsupported }
func MakeBell() (a, b int, err error)          { return -1, -1, errors.ErrUnsupported }
func OpenBell(fd int) (*Bell, error)           { return nil, errors.ErrUnsupported }

// Nothing has these types here.
type (
	Mapping struct{}
	Bell    struct{}
)

func (*Mapping) Bytes() []byte    { return nil }
func (*Mapping) Retain()          {}
func (*Mapping) Release()         {}
func (*Bell) Ring()               {}
func (*Bell) Listen(func()) error { return errors.ErrUnsupported }
func (*Bell) Wait() bool          { return false }
func (*Bell) Interrupt()          {}
func (*Bell) Resume()             {}
func (*Bell) Close()              {}

func Pause() {}
