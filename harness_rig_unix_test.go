//go:build unix && !core

package zpipes

import "testing"

func init() {
	ways = append(ways,
		way{name: "near", apart: true, start: func(t testing.TB, cfg BrokerConfig) (string, func()) {
			name := uniqueName(t)
			c := startChild(t, childTask{Part: "broker", Broker: name, MaxPending: cfg.MaxPending, Backlog: cfg.Backlog}).ready()
			return name, c.kill
		}},
	)
}
