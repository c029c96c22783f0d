//go:build !core

package zpipes

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"syscall"
)

// There are no near doors on Windows, where Unix sockets do not say which user is at the other
// end; parseEndpoint refuses them.

var errNoNear = fmt.Errorf("%w: there are no near doors on Windows", errors.ErrUnsupported)

func dialDoor(context.Context, string) (*os.File, error) { return nil, errNoNear }

func newNear(*os.File, int, int) (transport, error) { return nil, errNoNear }

type nearDoor struct{ done chan struct{} }

func (b *Broker) openDoor(string) error { return errNoNear }

func (d *nearDoor) serve() {}
func (d *nearDoor) close() {}

func helloAt(string) []byte { return nil }

func closeDescriptors([]int) {}

// mostDescriptors would say how many there may be.
func mostDescriptors() int { return math.MaxInt }

// descriptorsLeft would say how many of them may be connections.
func descriptorsLeft(syscall.Conn) (most, left int) { return mostDescriptors(), mostDescriptors() }
