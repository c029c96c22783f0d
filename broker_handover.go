//go:build !core

package zpipes

import (
	"context"
	"slices"
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

// endsHandingOver hands over what there is, and is the end of it: the one that has begun already, where the broker is just
// leaving its cluster.
func (b *Broker) endsHandingOver(ctx context.Context) {
	b.ending.Do(func() {
		if b.meets != nil {
			b.meets.ends <- ctx
			b.meets.handing.Lock()
			defer b.meets.handing.Unlock()
			b.handOver(ctx)
		}
	})
}

// handOver does so, if another broker is linked. It returns when all is done, or ctx is, or there is no time left, or
// nobody to hand it to any more; and tells what remains. The handing mutex is held.
func (b *Broker) handOver(ctx context.Context) {
	if !b.mesh.linked() {
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
	look := time.NewTicker(retryWay)
	defer look.Stop()
	ends, all := false, len(next)
	var under []*chunkQueue
	gone := func(s *chunkQueue) bool { // or kept on the disk by now
		return h.pipes.queueNamed(s.name) != s || s.isKept()
	}
	for ctx.Err() == nil {
		for under = slices.DeleteFunc(under, gone); len(next) > 0 && len(under) < handedAtOnce; next = next[1:] {
			under = append(under, next[0])
			h.exchange.resign(next[0].name, 0, false)
		}
		if len(under) == 0 {
			break
		}
		select {
		case <-h.moved:
		case end := <-h.ends:
			ends = true
			defer context.AfterFunc(end, cancel)()
		case <-recall.C:
			if ends || len(h.ends) > 0 {
				h.exchange.do(func(time.Time) { h.movers.recall() })
			} else {
				cancel()
			}
		case <-look.C:
			if !b.mesh.mayLink() {
				cancel()
			}
			for _, s := range under { // where nobody was linked just then, it is here still
				h.exchange.resign(s.name, 0, false)
			}
		case <-ctx.Done():
		}
	}
	chunks, left := 0, slices.DeleteFunc(append(under, next...), gone)
	for _, s := range left {
		info, _ := s.info(time.Now())
		chunks += info.Chunks
	}
	switch {
	case len(left) > 0:
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
		b.meets.handing.Lock() // until the mesh is closed, so that who ends then has nothing to do
		defer b.meets.handing.Unlock()
		b.handOver(b.mesh.stop)
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
		x.wake.ring()
	}
}
