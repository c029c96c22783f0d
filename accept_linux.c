// libzmq 4.3.4 aborts the process when somebody connects over ipc while it has no
// file descriptor left: its list of what accept4 may fail with lacks EMFILE. It has
// ENFILE, which it takes as it should: the client waits until there are some again.
// So this stands in front of libc's accept4, for Unix sockets; it is weak, so that a
// program which does the same itself has its way. (Go's net package does not use libc.)

#define _GNU_SOURCE
#include <errno.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

__attribute__((weak)) int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags) {
	int accepted = syscall(SYS_accept4, fd, address, size, flags);
	if (accepted < 0 && errno == EMFILE) {
		int domain = 0;
		socklen_t length = sizeof domain;
		getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length);
		errno = domain == AF_UNIX ? ENFILE : EMFILE;
	}
	return accepted;
}

// libzmq asks getnameinfo about Unix sockets before it says who is at the other end.
// musl's knows nothing of them.
int zpipes_tells_peers(void) {
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char host[64];
	return getnameinfo((struct sockaddr *)&address, sizeof address, host, sizeof host, NULL, 0, NI_NUMERICHOST) == 0;
}
