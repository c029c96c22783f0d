//go:build !cgo && !core

package zpipes

import (
	"errors"
	"fmt"
)

// What stands here is for a program that is built without cgo, and so without libzmq: it has
// no sockets, and says so to who wants one.

const haveZeroMQ = false

// A ZeroMQContext is zmq4.Context in a program that has libzmq. This one is built without
// cgo, and has none.
type ZeroMQContext struct{}

var errNoZeroMQ = fmt.Errorf("%w: this program was built without libzmq; "+
	"for ipc:// and tcp:// install a C compiler, pkg-config and libzmq3-dev (Debian's names), and build with CGO_ENABLED=1",
	errors.ErrUnsupported)

type zmqContext struct{ shared bool }

func newContext(*ZeroMQContext) (*zmqContext, error) { return nil, errNoZeroMQ }

func (*zmqContext) close() {}

func zmqVersion() string { return "" }

type socket struct {
	transport
	asks func(id []byte) (string, []string)
}

func newRouter(*zmqContext, int) (*socket, error) { return nil, errNoZeroMQ }

func newDealer(*zmqContext, string, int, *badge) (*socket, error) { return nil, errNoZeroMQ }

func (*socket) watchHandshake(func(handshakeFailure)) {}

func (*socket) bind(string) error { return errNoZeroMQ }

func (*socket) bound() (string, error) { return "", errNoZeroMQ }

func (*socket) unbind(string) {}

func (*socket) useZap(string) error { return errNoZeroMQ }

func (*socket) bindKeyed(string, secret) (string, error) { return "", errNoZeroMQ }

func checkCurve() error { return errNoZeroMQ }

type zapRequest struct {
	door               string
	address, mechanism string
	credentials        []byte
}

type zapHandler struct{}

func newZapHandler(*zmqContext, func(zapRequest) (string, error)) (*zapHandler, error) {
	return nil, errNoZeroMQ
}

func (*zapHandler) close() {}
