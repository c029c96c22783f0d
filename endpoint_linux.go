package zpipes

// hasNear: there are near doors on this system.
const hasNear = true

// defaultEndpoint is where a broker of that name is found on this machine: an
// abstract Unix socket, zbroker's own (PROTOCOL.md).
func defaultEndpoint(name string) string { return "ipc://@/zpipes/" + name }
