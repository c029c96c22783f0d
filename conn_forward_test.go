//go:build !core

package zpipes

import "testing"

// The connection of a tunnel stays as long as something is open there, and not much longer.
func TestConnOfATunnelRests(t *testing.T) {
	s := newStage(t).able().session
	way := &tunnel{session: s, users: 1}
	k := &conn{tunnel: &tunnelLink{tunnel: way}}
	now := born
	for range 3 {
		if reason := k.rest(now); reason != "" {
			t.Fatalf("it ends while it is used: %s", reason)
		}
		now = now.Add(2 * restAfter)
	}
	k.rest(now)
	way.users = 0
	if reason := k.rest(now.Add(restAfter / 2)); reason != "" {
		t.Fatalf("it ends at once: %s", reason)
	}
	if way.join(); k.rest(now.Add(2*restAfter)) != "" {
		t.Fatal("it ends though it is used again")
	}
	way.users = 0
	if k.rest(now.Add(4*restAfter)) == "" || !k.leaves {
		t.Error("it does not end, or without a farewell")
	}
	if way.join() {
		t.Error("it can be used after its end")
	}
}
