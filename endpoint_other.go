//go:build !linux && !windows

package zpipes

import (
	"os"
	"path/filepath"
)

// hasNear: there are near doors on this system.
const hasNear = true

// defaultEndpoint is where a broker of that name is found on this machine: a
// path in the user's temporary directory, since abstract sockets are Linux's.
func defaultEndpoint(name string) string {
	return "ipc://" + filepath.Join(os.TempDir(), "zpipes-"+name)
}
