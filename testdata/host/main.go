// A program with a broker, and with C code of its own that uses accept4 and rand: what the
// library does for libzmq is not for that one. The test is TestOtherCodeInC.
package main

/*
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static int listener;
static int waiting[2];

static int listening(void) {
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	listener = socket(AF_UNIX, SOCK_STREAM, 0);
	return bind(listener, (struct sockaddr *)&a, sizeof a.sun_family) || listen(listener, 5) || pipe(waiting);
}

static void *server(void *unused) {
	write(waiting[1], "x", 1);
	accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	return NULL;
}

// cancelled is 0 when a thread in accept4 can be cancelled, as POSIX has it.
static int cancelled(void) {
	pthread_t t;
	char c;
	int failed = pthread_create(&t, NULL, server, NULL);
	if (failed)
		return failed;
	read(waiting[0], &c, 1);
	pthread_cancel(t);
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 10;
	return pthread_timedjoin_np(t, NULL, &until);
}

// starved is what accept4 fails with when there are no descriptors.
static int starved(void) {
	struct sockaddr_un a;
	socklen_t size = sizeof a;
	int client = socket(AF_UNIX, SOCK_STREAM, 0);
	if (getsockname(listener, (struct sockaddr *)&a, &size) || connect(client, (struct sockaddr *)&a, size))
		return errno;
	struct rlimit limit;
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = 64;
	setrlimit(RLIMIT_NOFILE, &limit);
	while (dup(client) >= 0)
		;
	return accept4(listener, NULL, NULL, 0) < 0 ? errno : 0;
}
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/zpipes/zpipes"
)

func main() {
	C.srand(7)
	numbers := []C.int{C.rand(), C.rand(), C.rand()}
	C.srand(7)
	C.rand()
	b, err := zpipes.NewBroker("")
	if err == nil {
		defer b.Close()
		if C.rand() != numbers[1] || C.rand() != numbers[2] {
			err = errors.New("rand goes on with other numbers")
		}
		if failed := C.listening(); err == nil && failed != 0 {
			err = fmt.Errorf("no listener: %d", failed)
		}
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Printf("%q, %q\n", syscall.Errno(C.cancelled()), syscall.Errno(C.starved()))
}
