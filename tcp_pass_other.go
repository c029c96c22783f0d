//go:build !linux && !core

package zpipes

import (
	"errors"
	"net"
)

// sluices are for systems that can move pages from one connection to another.
type sluices struct{}

func newSluices() sluices { return sluices{} }

func (sluices) close() {}

func (sluices) pour(_, _ net.Conn, _ func()) error { return errors.ErrUnsupported }
