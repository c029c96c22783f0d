package cluster

import (
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/zpipes/zpipes"
)

// What date a host believes it is does not matter to others: a clock may be wrong, or jump.
func TestClocksOfHostsDoNotMatter(t *testing.T) {
	k, err := readKeys(keyFile(t, zpipes.NewKey()))
	if err != nil {
		t.Fatal(err)
	}
	at := func(year int) *tls.Config {
		c := k.all[0].config.Clone()
		c.Time = func() time.Time { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC) }
		return c
	}
	for _, years := range [][2]int{{1970, 2026}, {2026, 1970}, {2400, 1970}, {1, 9999}} {
		a, b := net.Pipe()
		server, client := tls.Server(a, at(years[0])), tls.Client(b, at(years[1]))
		done := make(chan error, 1)
		go func() { done <- server.Handshake() }()
		if err := client.Handshake(); err != nil {
			t.Errorf("the server in %d, the client in %d: %v", years[0], years[1], err)
		}
		if err := <-done; err != nil {
			t.Errorf("the server in %d, the client in %d: the server: %v", years[0], years[1], err)
		}
		a.Close()
		b.Close()
	}
}
