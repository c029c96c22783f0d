package zpipes

import (
	"fmt"
	"hash/fnv"
)

// hasNear: there are near doors on this system. Here are none: nobody would say which user
// comes to them.
const hasNear = false

// defaultEndpoint is where a broker of that name is found on this machine: a
// loopback port made from the name, since libzmq has no ipc on Windows.
func defaultEndpoint(name string) string {
	h := fnv.New32a()
	h.Write([]byte(name))
	const first, count = 49152, 16384 // the dynamic ports
	return fmt.Sprintf("tcp://127.0.0.1:%d", first+h.Sum32()%count)
}
