package zpipes

import (
	"fmt"
	"time"
)

// openBroadcast opens the writer of a broadcast. It is the writer of a stream to the channel,
// and its readers are those of streams.
func (c *channel) openBroadcast(name string, cfg broadcastConfig, now time.Time) *cause {
	s := c.session
	if room := s.account.room(); cfg.keep > room {
		why := &cause{causeTooMany, fmt.Sprintf("this client has room for %d bytes more in pipes, less than the broadcast is to keep", room)}
		s.pipes.counted(why)
		return why
	}
	p, why := s.pipes.proposeBroadcast(name, cfg, &s.account, c.recheck, now)
	if why == nil {
		e := &streamWriter{streamEnd: streamEnd{channelEnd: channelEnd{c}, pipe: p, role: writer}}
		if c.open = e; s.able&ableDraws != 0 && s.window <= mostDetour {
			p.mu.Lock()
			e.mayDetour()
			p.mu.Unlock()
		}
	}
	return why
}
