package main

import (
	"testing"
	"time"
)

// soonest is how long what happens at once may take on a busy machine.
const soonest = 10 * time.Second

// eventually waits until something is so.
func eventually(t testing.TB, what string, so func() bool) {
	t.Helper()
	eventuallyWithin(t, soonest, what, so)
}

// eventuallyWithin is eventually for what may take so long, also in a script.
func eventuallyWithin(t interface{ Fatalf(string, ...any) }, d time.Duration, what string, so func() bool) {
	if t, ok := t.(testing.TB); ok {
		t.Helper()
	}
	for end := time.Now().Add(d); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", d, what)
		}
	}
}
