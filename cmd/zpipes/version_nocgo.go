//go:build !cgo

package main

func zeroMQ() string { return "without ZeroMQ" }
