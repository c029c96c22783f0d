//go:build !core

package zpipes

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

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
