//go:build !ringsteps

package ring

import "unsafe"

// step comes before each access to the memory; a test that tries all orders of the ends'
// steps has a use for it.
func step(unsafe.Pointer) {}
