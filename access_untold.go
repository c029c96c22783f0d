//go:build !linux && !darwin && !freebsd

package zpipes

import "syscall"

// doorsTell: the system says who is at the other end of a near door.
var doorsTell = false

// peerCredentials would be what the system says of the process at the other end.
func peerCredentials(syscall.Conn) (who Access, told bool) { return who, false }
