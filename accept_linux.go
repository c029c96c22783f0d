//go:build cgo

package zpipes

// accept_linux.c is linked into the program in place of libc's accept4.

// int zpipes_tells_peers(void);
import "C"

func init() { tellsPeers = C.zpipes_tells_peers() != 0 }
