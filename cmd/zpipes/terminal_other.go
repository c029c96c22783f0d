//go:build !linux && !darwin

package main

import "os"

func background(int) bool { return false }

// readable is not known here.
func readable(*os.File) bool { return false }

// hangup is not known here before the next write.
func hangup(*os.File, func()) (stop func()) { return func() {} }
