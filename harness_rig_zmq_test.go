//go:build cgo && !core

package zpipes

import "testing"

// The ways over ZeroMQ.
func init() {
	ways = append(ways,
		way{name: "inproc", start: func(t testing.TB, cfg BrokerConfig) (string, func()) {
			b := startBroker(t, cfg)
			return b.Endpoints()[0], func() { b.Close() }
		}},
		way{name: "ipc", apart: true, start: func(t testing.TB, cfg BrokerConfig) (string, func()) {
			name := uniqueName(t)
			c := startChild(t, childTask{Part: "broker", Broker: name, MaxPending: cfg.MaxPending, Backlog: cfg.Backlog}).ready()
			return defaultEndpoint(name), c.kill
		}},
		way{name: "base", base: true, start: func(t testing.TB, cfg BrokerConfig) (string, func()) {
			b := startBaseBroker(t)
			t.Cleanup(func() {
				for _, v := range b.violations() {
					t.Errorf("the client broke the base protocol: %s", v)
				}
			})
			return b.endpoint, b.Close
		}},
	)
}
