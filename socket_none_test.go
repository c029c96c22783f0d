//go:build !cgo && !core

package zpipes

import (
	"errors"
	"strings"
	"testing"
)

// Who asks for what needs libzmq is told what to install.
func TestSocketNone(t *testing.T) {
	for _, endpoint := range []string{"ipc://@/zpipes/x", "ipc:///tmp/x", "tcp://127.0.0.1:5555"} {
		_, err := NewClient(endpoint)
		_, err2 := BrokerConfig{Endpoints: []string{endpoint}}.NewBroker("")
		for _, err := range []error{err, err2} {
			if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "libzmq3-dev") || !strings.Contains(err.Error(), "CGO_ENABLED=1") {
				t.Errorf("%s: %v", endpoint, err)
			}
		}
	}
	if _, err := (BrokerConfig{Context: new(ZeroMQContext)}).NewBroker(""); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a context: %v", err)
	}
	b := startBroker(t, BrokerConfig{})
	if _, err := b.Client().Ping(t.Context()); err != nil || b.Status().ZeroMQ != "" {
		t.Errorf("%v; the status is %+v", err, b.Status())
	}
}
