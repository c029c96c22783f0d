package seglog

import (
	"errors"
	"fmt"
)

var (
	// ErrLocked is of a directory that another process uses, or another Store.
	ErrLocked = errors.New("in use by another process")
	// ErrNone is of a queue that is not in the directory.
	ErrNone = errors.New("there is none")
	// ErrClosed is of a Log or Store that was closed.
	ErrClosed = errors.New("closed")
	// ErrCorrupt is of a queue that was changed on the disk behind the log's back. Repair
	// saves what is left.
	ErrCorrupt = errors.New("corrupt")
	// ErrRefused says that a queue's Account had no room.
	ErrRefused = errors.New("no more disk allowed")
	// errUnconfirmed is of a Close with operations left that had no room on the disk.
	errUnconfirmed = errors.New("not everything is on the disk")
)

// A CorruptError says where a queue is corrupt. It is ErrCorrupt.
type CorruptError struct {
	Path   string
	Offset int64
	What   string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s is corrupt at %d: %s", e.Path, e.Offset, e.What)
}

func (*CorruptError) Is(target error) bool { return target == ErrCorrupt }

var errNonsense = errors.New("a batch with a good checksum has records that are none")

// A syncError is final: what was not synced may be lost, though it can be read. To sync
// again would succeed and prove nothing.
type syncError struct{ error }

func (e syncError) Unwrap() error { return e.error }

// Passing says that an operation that failed may work later: there was no room, or no descriptor.
func Passing(err error) bool {
	var sync syncError
	return noRoom(err) && !errors.As(err, &sync)
}
