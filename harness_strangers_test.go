//go:build cgo && linux && !core

package zpipes

import (
	"fmt"
	"io"
	"net"
	"os"
	"testing"

	"github.com/pebbe/zmq4"
)

// asStranger has a child process run as another user.
func asStranger(t *testing.T, task childTask) *child {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can start a process of another user")
	}
	task.UID = stranger
	return startChild(t, task)
}

// playBare does without this library's client: it sends a PING and says what it hears.
func playBare(task childTask) int {
	ctx, err := zmq4.NewContext()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	s, err := ctx.NewSocket(zmq4.DEALER)
	if err == nil {
		err = s.Connect(task.Broker)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if task.Pipe != "" { // it waits for a queue
		wireSend(s, []byte(textOpen), []byte(task.Pipe))
		wireSend(s, []byte(textRead), []byte(task.Pipe))
		_, err := wireReceive(s, soon)
		fmt.Println(err)
		io.Copy(io.Discard, os.Stdin)
		return 0
	}
	wireSend(s, (&message{id: msgPing}).append(nil))
	frames, err := wireReceive(s, soon/2)
	fmt.Printf("%x, %v\n", frames, err)
	return 0
}

func init() { parts["bare"], parts["silent"] = playBare, playSilent }

// playSilent listens, and no more.
func playSilent(task childTask) int {
	l, err := net.Listen("unix", task.Broker)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer l.Close()
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	return 0
}
