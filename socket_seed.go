//go:build cgo && !core

package zpipes

/*
#include <stdlib.h>

// libzmq takes the first of the routing ids that a ROUTER gives out from rand(), which
// it never seeds: everybody would know them, since they are consecutive, and a client may
// choose its own. One that takes the next of them would abort this process when somebody
// else connects. So rand() has another seed while a ROUTER is made.

#if defined(__GLIBC__)
// The state of rand() is set aside meanwhile, so that the program's own numbers stay
// what they were.
static char state[128], *others;
static void seed(unsigned number) { others = initstate(number, state, sizeof state); }
static void unseed(void) { setstate(others); }
#else
static void seed(unsigned number) { srand(number); }
static void unseed(void) {}
#endif
*/
import "C"

import (
	"crypto/rand"
	"encoding/binary"
	"runtime"
	"sync"

	"github.com/pebbe/zmq4"
)

var seeding sync.Mutex // held while rand() is not the program's own

// openSocket makes a socket; a ROUTER's routing ids are known to nobody.
func openSocket(ctx *zmq4.Context, kind zmq4.Type) (*zmq4.Socket, error) {
	if kind != zmq4.ROUTER {
		return ctx.NewSocket(kind)
	}
	var number [4]byte
	rand.Read(number[:])
	seeding.Lock()
	defer seeding.Unlock()
	runtime.LockOSThread() // on some systems each has a state of its own
	defer runtime.UnlockOSThread()
	C.seed(C.uint(binary.NativeEndian.Uint32(number[:])))
	defer C.unseed()
	return ctx.NewSocket(kind)
}
