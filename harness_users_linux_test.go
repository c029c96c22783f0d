//go:build !core

package zpipes

import (
	"os/exec"
	"syscall"
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
