//go:build cgo && linux && !core

package zpipes

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
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

// asUser has a command run as a user, for whom the path to it may be barred.
func asUser(cmd *exec.Cmd, uid uint32) {
	if uid != 0 {
		cmd.Path = "/proc/self/exe"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
}

// inNamespace has a command run in a user namespace, as a container runtime makes it:
// its users are others outside, from namespace on.
func inNamespace(cmd *exec.Cmd) {
	places := []syscall.SysProcIDMap{{ContainerID: 0, HostID: namespace, Size: 65536}}
	cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
	cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = places, places
}

const namespace = 100_000

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

// ownRuntimeDir has private sockets in a directory of the test's own.
func ownRuntimeDir(t *testing.T) (dir string) {
	t.Helper()
	runtime, err := os.MkdirTemp("", "zp") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(runtime) })
	t.Setenv("XDG_RUNTIME_DIR", runtime)
	return filepath.Join(runtime, "zpipes")
}
