//go:build !core

package zpipes

import (
	"context"
	"time"
)

// A broker of a cluster that ends in good order, or leaves it, hands the queues over that it has in memory alone.

const (
	// handOverTime is how long that may take.
	handOverTime = 3 * time.Second
	// workTime is for how long of it those who have taken jobs may say what becomes of them. Then these come back, if
	// the broker ends; if it goes on, so do they.
	workTime = time.Second
	// handedAtOnce is how many queues are handed over at a time.
	handedAtOnce = 64
)

// handOver does so, once, if another broker is linked; ends says that it is the end. It returns when all is done,
// or ctx is, or there is no time left; and tells what remains.
func (b *Broker) handOver(ctx context.Context, ends bool) {
	if b.mesh == nil || !b.mesh.linked() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, handOverTime)
	defer cancel()
	h := b.meets
	h.pipes.beResigned(true)
	h.exchange.resigns(true)
	next := h.pipes.unkept()
	recall := time.NewTimer(workTime)
	defer recall.Stop()
	all := len(next)
	var under []*chunkQueue
	for ctx.Err() == nil {
		still := under[:0]
		for _, s := range under {
			if h.pipes.queueNamed(s.name) == s {
				still = append(still, s)
			}
		}
		for under = still; len(next) > 0 && len(under) < handedAtOnce; next = next[1:] {
			under = append(under, next[0])
			h.exchange.resign(next[0].name, 0)
		}
		if len(under) == 0 {
			break
		}
		select {
		case <-h.moved:
		case <-recall.C:
			if ends {
				h.exchange.do(func(time.Time) { h.movers.recall() })
			} else {
				cancel()
			}
		case <-ctx.Done():
		}
	}
	chunks, left := 0, append(under, next...)
	for _, s := range left {
		info, _ := s.info(time.Now())
		chunks += info.Chunks
	}
	switch {
	case chunks > 0:
		b.log.warn("queues were not handed over to other brokers in time", "queues", len(left), "of", all, "chunks", chunks)
	case all > 0:
		b.log.info("the queues that were in memory are handed over", "queues", all)
	}
}

// leaveCluster has the broker go on alone.
func (b *Broker) leaveCluster() {
	if b.mesh == nil {
		return
	}
	b.mesh.leave(func() {
		b.handOver(b.mesh.stop, false)
		b.mesh.close()
		b.pipes.beResigned(false)
		b.meets.exchange.resigns(false)
	})
}

// recall has jobs come back that others have taken of queues which are handed over; the exchange's owner's.
func (m *movers) recall() {
	m.recalls = true
	for _, x := range m.of {
		x.recalls.Store(true)
		x.ring()
	}
}
