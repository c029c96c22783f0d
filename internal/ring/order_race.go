//go:build race

package ring

import "sync/atomic"

// order shows the race detector what it can't see: that bytes are published before they
// are taken. It knows nothing of memory that is not Go's, and where both ends are in one
// process it would report what the writer's goroutine did before a Write, and the
// reader's does after the Read.
var order atomic.Uint64

func orderStore() { order.Add(1) }
func orderLoad()  { order.Load() }
