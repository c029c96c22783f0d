// libzmq 4.3.4 aborts the process when somebody connects over ipc while it has no
// file descriptor left: its list of what accept4 may fail with lacks EMFILE. It has
// ENFILE, which it takes as it should: the client waits until there are some again.
// So this stands in front of libc's accept4.

#define _GNU_SOURCE
#include <errno.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags) {
	int accepted = syscall(SYS_accept4, fd, address, size, flags);
	if (accepted < 0 && errno == EMFILE)
		errno = ENFILE;
	return accepted;
}
