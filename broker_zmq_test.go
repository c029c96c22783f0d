//go:build cgo && !core

package zpipes

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBrokerEndpoints(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b.sock")
	b := startBroker(t, BrokerConfig{Endpoints: []string{"ipc://" + path, "tcp://127.0.0.1:*"}})
	endpoints := b.Endpoints()
	if len(endpoints) != 4 || endpoints[0] != inprocEndpoint(b.Name()) || strings.Contains(endpoints[2], "*") || endpoints[3] != "unix://"+path+".near" {
		t.Errorf("the endpoints are %q", endpoints)
	}
	for _, endpoint := range endpoints {
		c, err := NewClient(endpoint)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Ping(t.Context()); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	if b, err := (BrokerConfig{Endpoints: []string{"ipc://" + path}}).NewBroker(""); !errors.Is(err, ErrBrokerExists) {
		t.Errorf("second broker on a path: %v", err)
		b.Close()
	}
	file := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for endpoint, want := range map[string]error{
		"ipc://" + file:                     os.ErrExist,
		"ipc://" + strings.Repeat("p", 200): ErrBadName,
		"tcp://0.0.0.0:5555":                ErrBadName,
		"tcp://192.0.2.1:5555":              ErrBadName,
		"tcp://example.org:5555":            ErrBadName,
		"tcp://nonsense":                    ErrBadName,
		"udp://127.0.0.1:5555":              ErrBadName,
		"nonsense":                          ErrBadName,
		"tcp://127.0.0.1:65536":             ErrBadName,
		"tcp://127.0.0.1:http":              ErrBadName,
		"tcp://127.0.0.1:":                  ErrBadName,
		"ipc://@":                           ErrBadName,
		"ipc://a\x00b":                      ErrBadName,
		endpoints[2]:                        ErrBrokerExists,
	} {
		if b, err := (BrokerConfig{Endpoints: []string{endpoint}}).NewBroker(""); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", endpoint, err, want)
			b.Close()
		}
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("a file that was no socket is gone: %v", err)
	}
}
