//go:build !core

package zpipes

import (
	"sync/atomic"
	"time"
)

// A coarseClock tells the time to those who need it often, and not to the millisecond: asking the
// system takes a good part of what a Send does. Its zero value is right.
type coarseClock struct{ at atomic.Int64 } // 0: it is to be asked

const coarse = 5 * time.Millisecond

// stamp is the time in Unix nanoseconds, or a little earlier.
func (c *coarseClock) stamp() int64 {
	if at := c.at.Load(); at != 0 {
		return at
	}
	at := time.Now().UnixNano()
	c.at.Store(at)
	time.AfterFunc(coarse, func() { c.at.Store(0) })
	return at
}
