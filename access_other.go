//go:build !linux

package zpipes

import "net"

// serverUID would be the user of the process that listens at the other end.
func serverUID(net.Conn) (uid int, ok bool) { return 0, false }

// lives says that the process may still be there.
func (a Access) lives() bool { return true }
