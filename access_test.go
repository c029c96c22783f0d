package zpipes

import (
	"os"
	"testing"
)

func TestAccessOfWhoHasAPlaceInAUserNamespace(t *testing.T) {
	for text, all := range map[string]bool{
		"         0          0 4294967295\n": true,
		"0 0 1000\n1000 1000 4294966295\n":   true,
		"0 100000 65536\n":                   false,
		"0 1000 1\n1 100000 65536\n":         false,
		"65534 165534 1\n":                   false, // somebody is that one here, and all others look like them
		"":                                   false,
		"a b c\n":                            false,
	} {
		if got := mapsAll(text); got != all {
			t.Errorf("%q: %v", text, got)
		}
	}
	if anybody(stranger) {
		t.Skip("this is a user namespace itself")
	}
	if anybody(-1) || trusted(stranger, nil) || !trusted(stranger, []int{stranger}) || !trusted(0, nil) {
		t.Error("where all have their places, each is himself")
	}
}

func TestAccessPeersAddresses(t *testing.T) {
	defer func(tells bool) { tellsPeers = tells }(tellsPeers)
	for _, tellsPeers = range []bool{true, false} {
		for _, test := range []struct {
			address string
			uid     int
			ok      bool
		}{
			{"", os.Getuid(), true},
			{"localhost:7:8:9", 7, true},
			{"localhost", -1, !tellsPeers},
			{"localhost:7:8", -1, !tellsPeers},
			{"localhost:x:8:9", 0, false},
			{"localhost:-1:8:9", 0, false},
			{"127.0.0.1", -1, true},
			{"::1", -1, true},
		} {
			if who, ok := peerOf(test.address); ok != test.ok || who.UID != test.uid {
				t.Errorf("%q where peers are told: %v: %+v, %v", test.address, tellsPeers, who, ok)
			}
		}
	}
}

// stranger is a user who is neither root nor the one who runs the tests.
const stranger = 65534
