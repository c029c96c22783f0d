package zpipes

// adopt takes in a queue that is there already, in place of another one of its name that is over.
// Without one there, it takes the name. It says whether it has: not where the broker closes, or
// the other one was deleted.
func (g *registry) adopt(s, old *chunkQueue) (adopted bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed != nil || old != nil && !old.named {
		return false
	}
	if old != nil {
		g.drop(&old.registration, &old.counter)
	}
	s.mu.Lock() // it has an alarm, and may have failed by now
	defer s.mu.Unlock()
	s.join(&g.moved, &s.mu)
	s.queue = s
	g.add(&s.registration, g.keyOf(s.name))
	return true
}

// queueNamed is the queue of that name, ceded or not; nil: there is none.
func (g *registry) queueNamed(name string) *chunkQueue {
	key := g.keyOf(name)
	g.mu.Lock()
	defer g.mu.Unlock()
	if r := g.names.find(key, name); r != nil {
		return r.queue
	}
	return nil
}

var causeResigned = cause{causeBrokerGone, "it is shutting down, or leaves its cluster"}

// beResigned says whether the broker hands its queues over: nobody opens or makes one here any more.
func (g *registry) beResigned(is bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.resigned = is
}

// unkept are the queues that are in memory alone, and in which there is something, or that somebody has open.
func (g *registry) unkept() (queues []*chunkQueue) {
	g.steps(func(r *registration) {
		s := r.queue
		if s == nil {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.log == nil && !s.void && !(s.bare() && s.once.order.len() == 0 && s.unused()) {
			queues = append(queues, s)
		}
	})
	return queues
}

// handedOver forgets a ceded queue in which nothing is any more, or with anyway set, in any case. It says
// whether it has.
func (g *registry) handedOver(s *chunkQueue, anyway bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	gone := s.ceded && (anyway || s.bare())
	if gone && s.named {
		g.end(s)
	}
	return gone
}

// unkeep ends a queue that was to be kept, and can't be. Nobody has deleted it: a home that hands over to
// it keeps what it has.
func (g *registry) unkeep(s *chunkQueue) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.named {
		s.keepBy(nil)
		s.end(cause{causeBrokerGone, "the broker can't keep the queue; see its log"}, false)
		g.end(s)
	}
}

// keepBy has queues kept by k if they are to be durable.
func (g *registry) keepBy(k func(*chunkQueue) *cause) { g.keep = k }

var (
	causeNoDir   = cause{causeMode, "the broker keeps no queues; it needs a directory (BrokerConfig.Dir)"}
	causeNotKept = cause{causeMode, "it exists, and is not durable"}
)

// kind is what the queue is good for.
func (s *chunkQueue) kind() homeKind {
	switch {
	case s.log != nil:
		return isDurable
	case s.void: // see keeper.refused
		return isUnread
	}
	return inMemory
}

func (s *chunkQueue) isKept() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log != nil
}

// endure makes a queue durable, if nothing was ever in it. Its mu is held.
func (g *registry) endure(s *chunkQueue) *cause {
	switch {
	case s.log != nil:
		return nil
	case s.over != nil:
		return s.over
	case g.keep == nil:
		return &causeNoDir
	case s.lastID > 0:
		return &causeNotKept
	}
	room := s.room
	if room == s.limit { // else somebody has said how much it is to hold
		s.setRules(s.rules, durableRoom)
	}
	why := g.keep(s)
	if why != nil { // it stays in memory, which has no room for so much
		s.setRules(s.rules, room)
	} else {
		g.exchange.has(s.name, isDurable)
	}
	return why
}

// shape makes a queue as it is to be, if that can be. Its mu is held.
func (g *registry) shape(s *chunkQueue, set queueSettings) *cause {
	if set.durable {
		if why := g.endure(s); why != nil {
			return why
		}
	}
	s.configure(set)
	return nil
}
