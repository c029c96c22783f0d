//go:build cgo && !core

package zpipes

/*
#cgo LDFLAGS: -ldl

#include <netdb.h>
#include <sys/socket.h>
#include <sys/un.h>

// libzmq asks getnameinfo about Unix sockets before it says who is at the other end.
// musl's knows nothing of them.
static int tells_peers(void) {
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char host[64];
	return getnameinfo((struct sockaddr *)&address, sizeof address, host, sizeof host, NULL, 0, NI_NUMERICHOST) == 0;
}
*/
import "C"

// What stands in socket_accept_linux.c is linked into the program as well.

func init() { tellsPeers = C.tells_peers() != 0 }
