package main

import (
	"strconv"
	"strings"
)

// A goal is what zpipes is to reach: so many times what a peer does, or with no
// peer named, so much.
type goal struct {
	text string
	work
	size      int
	contender string
	peer      string
	figure    figure
	bounds
}

// bounds are what is to be reached at least, and what is aimed at.
type bounds struct {
	least, aim float64
	most       bool // they are upper limits
}

func goals() []goal {
	var all []goal
	add := func(text, place, what string, size int, contender, peer string, f figure, b bounds) {
		all = append(all, goal{text, work{place: place, what: what}, size, contender, peer, f, b})
	}
	most := func(least, aim float64) bounds { return bounds{least, aim, true} }
	// For each of sizes least and aim, or nothing.
	stream := func(way, place, contender, peer string, each [4][2]float64) {
		for i, size := range sizes {
			if b := each[i]; b[0] > 0 {
				add(way+", writes of "+sizeText(float64(size)), place, streaming, size, contender, peer, rate, bounds{b[0], b[1], false})
			}
		}
	}
	call := func(text, contender, peer string, least, aim float64) {
		add(text, manyPlace, roundTrip, 64, contender, peer, p50, most(least, aim))
	}
	stream("directly", onePlace, "zpipes", "io.Pipe", [4][2]float64{{14, 20}, {6, 10}, {.9, 1.05}, {.9, 1.05}})
	stream("directly, WriteTo", onePlace, "zpipes, WriteTo", "io.Pipe", [4][2]float64{2: {1, 1.3}, 3: {1, 1.3}})
	add("directly, ping-pong of 64 B", onePlace, pingPong, 64, "zpipes", "io.Pipe", p50, most(.65, .45))
	stream("between processes", manyPlace, "zpipes", "FIFO", [4][2]float64{{10, 20}, {7, 12}, {2.5, 4}, {2.5, 4}})
	stream("between processes", manyPlace, "zpipes", "zmq.Proxy", [4][2]float64{{10, 18}, {12, 20}, {7, 12}, {6, 10}})
	stream("between processes", manyPlace, "zpipes", "Unix socket", [4][2]float64{{15, 25}, {8, 14}, {1.7, 2.6}, {1.5, 2.3}})
	add("between processes, ping-pong of 64 B", manyPlace, pingPong, 64, "zpipes", "Unix socket", p50, most(1.5, 1))
	call("between processes, Write and Flush of 64 B", "zpipes, Write and Flush", "Unix socket", 1.5, 1.1)
	call("between processes, opening an end", "zpipes, OpenWriter", "Unix socket", 2, 1.3)
	call("between processes, dial of a fresh client", "zpipes, NewClient and Ping", "Unix socket", 4, 3)
	add("between processes, CPU for each GB in writes of 64 KiB", manyPlace, streaming, 64<<10, "zpipes", "FIFO", cpu, most(.5, .32))
	for _, e := range exchanges {
		own, peer := over("zpipes", e.name), over("Unix socket", e.name)
		add("directly, connections: "+e.name, onePlace, connected, 64, own, peer, p50, most(1, .5))
		if e.job != "connect" { // which a Unix socket's server has no part in
			add("between processes, connections: "+e.name, manyPlace, connected, 64, own, peer, p50, most(2, 1))
		}
	}
	for _, size := range []int{64, 64 << 10} {
		add("between processes, 64 streams in sum, writes of "+sizeText(float64(size)), manyPlace, several, size, "zpipes", "zpipes over ipc", rate, bounds{10, 10, false})
	}
	stream("over ZeroMQ", manyPlace, "zpipes over ipc", "zmq.Proxy", [4][2]float64{{6, 12}, {1.5, 3}, {.9, 1.5}, {.6, 1.2}})
	call("over ZeroMQ, Write and Flush of 64 B", "zpipes over ipc, Write and Flush", "DEALER/ROUTER", 1.4, 1.1)
	call("over ZeroMQ, a connection's dial", "zpipes over ipc, Dial", "DEALER/ROUTER", 2.5, 2)
	add("over encrypted tcp, writes of 64 KiB", manyPlace, encrypted, 64<<10, encryptedZpipes, encryptedBare, rate, bounds{.5, .7, false})
	add("between two brokers, writes of 64 KiB", manyPlace, encrypted, 64<<10, betweenBrokers, encryptedBare, rate, bounds{.5, .7, false})
	for _, size := range clusteredSizes {
		of := " at a broker of a cluster, writes of " + sizeText(float64(size))
		add("directly,"+of, onePlace, streaming+clustered, size, inCluster, "zpipes", rate, bounds{.9, 1, false})
		add("between processes,"+of, manyPlace, streaming+clustered, size, inCluster, "zpipes", rate, bounds{.9, 1, false})
	}
	add("between processes, opening an end at a broker of a cluster", manyPlace, roundTrip+clustered, 64, inCluster+", OpenWriter", "zpipes, OpenWriter", p50, most(1.1, 1))
	natural := [4][2]float64{{2, 5}, {2, 5}, {2, 5}, {2, 5}}
	stream("directly", onePlace, "zpipes", "NATS", natural)
	stream("between processes", manyPlace, "zpipes", "NATS", natural)
	for _, way := range []struct{ text, place string }{{"directly", onePlace}, {"between processes", manyPlace}} {
		for _, size := range chunkSizes {
			text := way.text + ", a queue's chunks of " + sizeText(float64(size))
			add(text, way.place, queuing, size, "zpipes", "JetStream", rate, bounds{1, 2, false})
			add(text+", 4 senders and 4 receivers", way.place, crowded, size, "zpipes", "JetStream", rate, bounds{1, 2, false})
		}
		add(way.text+", a light sender's chunk beside a heavy sender, p99", way.place, fairly, 64, "zpipes", idleQueue, p99, most(10, 2))
	}
	for _, size := range []int{64, 64 << 10} {
		of := ", allocations for a message of " + sizeText(float64(size))
		add("directly"+of, onePlace, streaming, size, "zpipes", "", mallocs, most(0, 0))
		add("between processes"+of, manyPlace, streaming, size, "zpipes", "", mallocs, most(0, 0))
		add("over ZeroMQ"+of, manyPlace, streaming, size, "zpipes over ipc", "", mallocs, most(6, 3))
	}
	return all
}

// mark says what a median, as it is written, reaches.
func (b bounds) mark(median float64) string {
	median, _ = strconv.ParseFloat(digits(median), 64)
	reaches := func(x float64) bool {
		if b.most {
			return median <= x
		}
		return median >= x
	}
	switch {
	case reaches(b.aim):
		return "aim"
	case reaches(b.least):
		return "yes"
	}
	return "**no**"
}

// goalTable says of each goal whether it was reached, and where a busy core was
// tried as well, what became of the median there.
func goalTable(all []*results) *table {
	t := newTable("what", "against", "at least", "aim", "median", "range", "reached", "beside a busy core")
	for _, g := range goals() {
		s, ok := g.over(all)
		if !ok {
			continue // by way of -only
		}
		text := ratioText
		if g.peer == "" {
			text = g.figure.text
		}
		least, beside := text(g.least), ""
		if g.most {
			least = "at most " + least
		}
		g.busy = true
		if b, ok := g.over(all); ok {
			beside = text(b.median)
		}
		t.row(g.text, g.peer, least, text(g.aim), "**"+text(s.median)+"**", s.text(text), g.mark(s.median), beside)
	}
	return t
}

// aheadTable has whoever does the same work faster than zpipes, goal or not.
func aheadTable(all []*results) *table {
	t := newTable("", "faster than zpipes", "by", "range")
	for _, r := range all {
		if r.busy || strings.HasPrefix(r.what, roundTrip) || r.what == fairly {
			continue // much as without, or not the same work
		}
		for _, c := range r.contenders {
			own, peer := r.rounds["zpipes"], r.rounds[c.name]
			if r.what == connected {
				_, exchange, _ := strings.Cut(c.name, ", ")
				own = r.rounds[over("zpipes", exchange)]
			}
			if strings.HasPrefix(c.name, "zpipes") || len(own) == 0 {
				continue
			}
			s := rate.ratio(peer, own)
			if r.what == pingPong || r.what == connected {
				s = p50.ratio(own, peer)
			}
			if s.median > 1 {
				t.row(r.title(), c.name, "**"+ratioText(s.median)+"**", s.text(ratioText))
			}
		}
	}
	return t
}

// over returns what the goal is about, over all rounds. false: not measured.
func (g goal) over(all []*results) (spread, bool) {
	for _, r := range all {
		if r.work != g.work || r.size != g.size {
			continue
		}
		of, to := r.rounds[g.contender], r.rounds[g.peer]
		switch {
		case len(of) > 0 && g.peer == "":
			return g.figure.over(of), true
		case len(of) > 0 && len(to) > 0:
			return g.figure.ratio(of, to), true
		}
	}
	return spread{}, false
}
