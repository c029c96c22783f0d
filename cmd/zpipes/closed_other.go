//go:build !unix

package main

func closedAtStart(uintptr) bool { return false }
