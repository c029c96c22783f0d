//go:build !core

package zpipes

import "time"

// restAfter is how long a connection between brokers stays that nobody uses.
const restAfter = 30 * time.Second

// rest ends a connection to another broker of the cluster that nobody has used for a while.
func (k *conn) rest(now time.Time) (reason string) {
	if len(k.links) > 0 || k.used.IsZero() || k.tunnel.busy() {
		k.used = now
	}
	if now.Sub(k.used) > restAfter && (k.tunnel != nil || !k.client.fellow.keeps(k)) && k.tunnel.rest() {
		k.leaves = true
		return "it was not used"
	}
	return ""
}

// abandon is Close for a client of another broker, whose ends have users of their own: its
// connections end now.
func (c *Client) abandon() {
	c.cancel()
	c.mu.Lock()
	c.closed = true
	conns := make([]*conn, 0, len(c.conns))
	for k := range c.conns {
		conns = append(conns, k)
	}
	c.mu.Unlock()
	for _, k := range conns {
		k.kill("the broker has left the cluster")
	}
	for _, k := range conns {
		<-k.done
	}
	c.log.close()
}
