package zpipes

import "time"

// A survey looks at all that there is, in steps. Its zero value is at the beginning.
type survey struct {
	next int
	over bool
}

// step appends what there is among the next few, in no order.
func (v *survey) step(g *registry, now time.Time, infos []PipeInfo) []PipeInfo {
	found := make([]*registration, 0, tablePage)
	g.mu.Lock()
	v.next, found = g.all.step(v.next, found)
	g.mu.Unlock()
	for _, r := range found {
		if r.of != nil {
			continue // it has no name
		}
		if info, ok := g.info(r, now); ok {
			infos = append(infos, info)
		}
	}
	if v.over = v.next == 0; v.over {
		for _, name := range g.exchange.awayNames() {
			if info, ok := g.exchange.awayInfo(name, now); ok {
				infos = append(infos, info)
			}
		}
	}
	return infos
}

// list says what there is, in no order.
func (g *registry) list(now time.Time) []PipeInfo {
	g.mu.Lock()
	n := g.names.n
	g.mu.Unlock()
	infos := make([]PipeInfo, 0, n)
	for v := (survey{}); !v.over; {
		infos = v.step(g, now, infos)
	}
	return infos
}

// lookUp says what there is of that name.
func (g *registry) lookUp(name string, now time.Time) (PipeInfo, bool) {
	key := g.keyOf(name)
	g.mu.Lock()
	r := g.names.find(key, name)
	g.mu.Unlock()
	if r == nil {
		return g.exchange.awayInfo(name, now)
	}
	return g.info(r, now)
}

func (g *registry) info(r *registration, now time.Time) (PipeInfo, bool) {
	switch {
	case r.queue != nil:
		return r.queue.info(now)
	case r.port != nil:
		return g.portInfo(r.port, now)
	}
	return r.stream.info(now)
}

// info is what there is to tell of a queue, unless it is gone.
func (s *chunkQueue) info(now time.Time) (PipeInfo, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept, unusable := s.kept(), ""
	if s.void && s.over.code == causeDenied { // see keeper.refused
		unusable = shortText(s.over.text)
	}
	return PipeInfo{
		Name:     s.name,
		Mode:     ModeQueue,
		HomeAt:   s.homeAt,
		Reads:    s.demands.Len() > 0,
		Writes:   s.full.len() > 0,
		Users:    s.users + s.senders.Len(),
		Queued:   s.bytes,
		Chunks:   s.count,
		Taken:    s.many[jobTaken],
		Delayed:  s.many[jobDelayed],
		Dead:     s.many[jobDead],
		Oldest:   s.oldestAge(now),
		Handed:   s.handed,
		Durable:  s.log != nil || unusable != "",
		Disk:     kept.size,
		Syncs:    kept.syncs,
		Syncing:  kept.syncing,
		Unusable: unusable,
		BytesIn:  s.in,
		BytesOut: s.out,
		Age:      now.Sub(s.created),
		Idle:     s.idle(now),
	}, !s.void || unusable != ""
}

// info is what there is to tell of a pipe, unless its name is free.
func (p *pipe) info(now time.Time) (PipeInfo, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.countDetour(now)
	return PipeInfo{
		Name:     p.name,
		Mode:     p.mode(),
		Reader:   p.hasReader(),
		Writer:   p.writer.open,
		ReaderAt: p.rendezvous.place(reader),
		WriterAt: p.rendezvous.place(writer),
		Readers:  p.audience(),
		Lag:      p.lag(),
		Reads:    p.reader.want > 0,
		Writes:   p.writer.want > 0 || p.unconfirmed > 0 || p.writer.open && (p.queued() >= p.limit || p.goesOver()), // in a ring it waits unseen
		Queued:   p.queued(),
		BytesIn:  p.in,
		BytesOut: p.out,
		Age:      now.Sub(started) - p.created,
	}, !p.over()
}

func (g *registry) stats() BrokerStats {
	in, out := g.moved.sums()
	g.mu.Lock()
	defer g.mu.Unlock()
	return BrokerStats{
		Pipes:      g.names.n + g.halves,
		Clients:    int(g.clients.Load()),
		Near:       int(g.near.Load()),
		Opened:     g.opened.Load(),
		Refused:    g.refused.Load(),
		Expired:    g.expired.Load(),
		Violations: g.violations.Load(),
		Denied:     g.denied.Load(),
		BytesIn:    in,
		BytesOut:   out,
	}
}
