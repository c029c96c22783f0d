//go:build cgo

package main

import (
	"fmt"

	"github.com/pebbe/zmq4"
)

func zeroMQ() string {
	major, minor, patch := zmq4.Version()
	return fmt.Sprintf("ZeroMQ %d.%d.%d", major, minor, patch)
}
