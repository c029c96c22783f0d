package seglog

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// An FS is what a log needs of a file system. Names are paths. Errors are those of the
// system, for errors.Is.
type FS interface {
	Open(name string) (File, error)      // of a file that is there, to read and write
	Create(name string) (File, error)    // of one that is not
	Remove(name string) error            // of a file, or of an empty directory
	Rename(from, to string) error        // within a directory
	Mkdir(name string) error             // and what it lies in
	List(dir string) ([]string, error)   // names within dir, sorted
	SyncDir(dir string) error            // has the names within dir survive a loss of power
	Lock(name string) (io.Closer, error) // a file that one process has, till it closes it or ends
}

// A File is read and written at offsets.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() (int64, error)
	Truncate(size int64) error
	Sync() error            // what was written, and the size, survive a loss of power
	Allocate(n int64) error // has room for n bytes, and leaves the size
}

// errUnsupported is of a file system that can't promise room.
var errUnsupported = errors.ErrUnsupported

// System is the file system of this machine.
var System FS = system{}

type system struct{}

func (system) Open(name string) (File, error) { return open(name, os.O_RDWR) }

func (system) Create(name string) (File, error) {
	return open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

func open(name string, flags int) (File, error) {
	f, err := os.OpenFile(name, flags, 0o600)
	if err != nil {
		return nil, err
	}
	return file{f}, nil
}

func (system) Remove(name string) error     { return os.Remove(name) }
func (system) Rename(from, to string) error { return os.Rename(from, to) }
func (system) Mkdir(name string) error      { return os.MkdirAll(name, 0o700) }

func (system) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

func (system) SyncDir(dir string) error {
	if !directoriesSync {
		return nil
	}
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (system) Lock(name string) (io.Closer, error) { return lock(name) }

type file struct{ *os.File }

func (f file) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// noRoom says that an operation may work later: when there is room on the disk, or
// fewer descriptors are open.
func noRoom(err error) bool {
	for _, e := range []error{ErrRefused, syscall.ENOSPC, errQuota, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
