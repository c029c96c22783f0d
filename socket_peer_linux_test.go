//go:build cgo && linux

package zpipes

import (
	"os"
	"testing"
)

func TestSocketPeerAddresses(t *testing.T) {
	for _, test := range []struct {
		address string
		uid     int
		ok      bool
	}{
		{"", os.Getuid(), true},
		{"localhost:7:8:9", 7, true},
		{"localhost", -1, false},
		{"localhost:7:8", -1, false},
		{"localhost:x:8:9", 0, false},
		{"localhost:-1:8:9", 0, false},
		{"127.0.0.1", -1, true},
		{"::1", -1, true},
	} {
		if who, ok := peerOf(test.address); ok != test.ok || who.UID != test.uid {
			t.Errorf("%q: %+v, %v", test.address, who, ok)
		}
	}
}
