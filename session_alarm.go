package zpipes

import "time"

// An alarm is a channel's place in the broker's alarms: at most one each,
// however often its deadline changes.
type alarm struct {
	at    time.Time
	place int // from 1; 0: it has none
}

// alarms are channels by the time they want to run at.
type alarms struct{ schedule[*channel] }

func (c *channel) earlier(than *channel) bool { return c.alarm.at.Before(than.alarm.at) }
func (c *channel) seat() *int                 { return &c.alarm.place }

// set enters, moves or, with a zero deadline, removes c.
func (h *alarms) set(c *channel) {
	switch {
	case c.deadline.IsZero():
		h.remove(c)
	case c.alarm.place == 0 || c.deadline.Before(c.alarm.at):
		c.alarm.at = c.deadline
		h.schedule.set(c)
	}
}

// due returns a channel whose deadline has passed, or nil. A deadline that
// was met or moved since is looked at when its first time comes, not before.
func (h *alarms) due(now time.Time) *channel {
	for h.len() > 0 && !now.Before(h.first().alarm.at) {
		c := h.first()
		h.remove(c)
		if c.deadline.IsZero() {
			continue
		}
		if !now.Before(c.deadline) {
			return c
		}
		h.set(c)
	}
	return nil
}
