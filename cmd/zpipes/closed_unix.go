//go:build unix && cgo

package main

/*
#include <fcntl.h>

// Go's runtime opens /dev/null in place of standard files that are closed, so that they
// look well: data would come from nowhere, and go there. This runs before it.
static unsigned closed_at_start;

__attribute__((constructor)) static void look_at_standard_files(void) {
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) == -1)
			closed_at_start |= 1u << fd;
}

static unsigned closed_files(void) { return closed_at_start; }
*/
import "C"

func closedAtStart(fd uintptr) bool { return C.closed_files()>>fd&1 == 1 }
