//go:build unix

package zpipes

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// privateDir is where this user's private brokers have their sockets: in the directory
// that the login session gives each user, or in one of our own beside other temporary
// files, where somebody else may have taken the name.
func privateDir() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "zpipes")
	}
	return filepath.Join(os.TempDir(), "zpipes-"+strconv.Itoa(os.Geteuid()))
}

// privateEndpoint is where a private broker of that name is found by its own user. The
// directory must be there, and nobody else may be able to enter it.
func privateEndpoint(name string) (string, error) {
	endpoint, err := privatePath(name)
	if err != nil {
		return "", err
	}
	dir := privateDir()
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 || !ok || !ownUser(int(stat.Uid)) {
		return "", fmt.Errorf("%w: %s must be a directory of this user with mode 0700, for private sockets", fs.ErrPermission, dir)
	}
	return endpoint, nil
}

func privatePath(name string) (endpoint string, err error) {
	endpoint = "ipc://" + filepath.Join(privateDir(), name)
	_, _, err = dialAddress(endpoint, false)
	return endpoint, err
}

// makePrivate is privateEndpoint for a broker, which makes the directory. undo removes
// it, if it was made.
func makePrivate(name string) (endpoint string, undo func(), err error) {
	undo = func() {}
	if _, err := privatePath(name); err != nil {
		return "", undo, err
	}
	dir := privateDir()
	if err = os.Mkdir(dir, 0o700); err == nil {
		undo = func() { os.Remove(dir) } // unless another broker is there by now
	} else if !os.IsExist(err) {
		return "", undo, fmt.Errorf("a directory for private sockets, in $XDG_RUNTIME_DIR or where temporary files are: %w", err)
	}
	if endpoint, err = privateEndpoint(name); err != nil {
		undo()
	}
	return endpoint, undo, err
}
