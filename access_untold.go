//go:build !linux && !darwin && !freebsd

package zpipes

import "net"

// doorsTell: the system says who is at the other end of a near door.
var doorsTell = false

// peerCredentials would be what the system says of the process at the other end.
func peerCredentials(net.Conn) (who Access, told bool) { return who, false }
