//go:build !linux

package zpipes

import "os"

// anybody would say that many users appear as that one here.
func anybody(uid int) bool { return false }

func rootHere() bool { return os.Geteuid() == 0 }

// admitAll lets all users connect to a socket at a path.
func admitAll(path string) error { return os.Chmod(path, 0o666) }
