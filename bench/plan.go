package main

import "strconv"

// A contender does a contest's work in its own way.
type contender struct {
	name      string
	transport string
	job       string
	processes int
}

// A contest is the same work done by several contenders.
type contest struct {
	place      string // where its writers, readers and what stands between them are
	what       string // the work
	size       int    // of a write
	streams    int    // at once; or as many senders, and receivers, of one queue
	contenders []contender
}

const (
	onePlace  = "one process"
	manyPlace = "processes"

	streaming = "stream"
	several   = "4 streams"
	pingPong  = "ping-pong"
	roundTrip = "round trip"

	queuing = "queue"
	crowded = "queue, 4 and 4"
	fairly  = "queue, a light sender beside a heavy one"

	// idleQueue is zpipes without the heavy one.
	idleQueue = "zpipes, idle queue"
)

var (
	sizes      = []int{64, 1 << 10, 64 << 10, 1 << 20}
	chunkSizes = []int{64, 1 << 10}
)

// contests returns all of them, in the order in which they are held.
func contests() []contest {
	var all []contest
	add := func(place, what string, size, streams int, contenders ...contender) {
		all = append(all, contest{place, what, size, streams, contenders})
	}
	doing := func(job string, processes int, transports ...string) []contender {
		var c []contender
		for _, t := range transports {
			n := processes
			if t == "Unix socket" {
				n = 2
			}
			c = append(c, contender{t, t, job, n})
		}
		return c
	}
	for _, size := range sizes {
		add(onePlace, streaming, size, 1, doing("stream", 1, "zpipes", "zpipes, WriteTo", "io.Pipe", "os.Pipe", "NATS")...)
	}
	for _, size := range sizes {
		add(manyPlace, streaming, size, 1, doing("stream", 3, "zpipes", "zpipes, WriteTo", "zmq.Proxy", "NATS", "Unix socket")...)
	}
	for _, size := range []int{64, 64 << 10} {
		add(onePlace, several, size, 4, doing("stream", 1, "zpipes", "io.Pipe")...)
		add(manyPlace, several, size, 4, doing("stream", 3, "zpipes", "zmq.Proxy")...)
	}
	add(onePlace, pingPong, 64, 2, doing("ping-pong", 1, "zpipes", "io.Pipe", "os.Pipe", "NATS")...)
	add(manyPlace, pingPong, 64, 2, doing("ping-pong", 3, "zpipes", "zmq.Proxy", "NATS", "Unix socket")...)
	add(manyPlace, roundTrip, 64, 1,
		contender{"zpipes, Write and Flush", "zpipes", "flush", 3},
		contender{"zpipes, OpenWriter", "zpipes", "open", 3},
		contender{"DEALER/ROUTER", "DEALER/ROUTER", "round trip", 2},
	)
	for _, size := range chunkSizes {
		direct := doing("queue", 1, "zpipes, queue", "Go channel", "NATS queue group", "JetStream")
		between := doing("queue", 3, "zpipes, queue", "zmq.Proxy", "NATS queue group", "JetStream")
		direct[0].name, between[0].name = "zpipes", "zpipes"
		add(onePlace, queuing, size, 1, direct...)
		add(manyPlace, queuing, size, 1, between...)
		add(onePlace, crowded, size, 4, direct...)
		add(manyPlace, crowded, size, 4, between...)
	}
	light := func(place string, processes int, peers ...string) {
		c := []contender{
			{idleQueue, "zpipes, queue", "light", processes},
			{"zpipes", "zpipes, queue", "light, busy", processes},
		}
		add(place, fairly, 64, 1, append(c, doing("light, busy", processes, peers...)...)...)
	}
	light(onePlace, 1, "Go channel", "JetStream")
	light(manyPlace, 3, "zmq.Proxy", "JetStream")
	return all
}

// A goal is what zpipes is to reach: so many times what a peer does, or with no
// peer named, so much.
type goal struct {
	text        string
	place, what string
	size        int
	contender   string
	peer        string
	figure      figure
	least, aim  float64
	most        bool // least and aim are upper limits
}

func goals() []goal {
	var all []goal
	fast := func(text, place, what string, size int, peer string, least, aim float64) {
		all = append(all, goal{text, place, what, size, "zpipes", peer, rate, least, aim, false})
	}
	few := func(text, place, what string, size int, contender, peer string, f figure, least, aim float64) {
		all = append(all, goal{text, place, what, size, contender, peer, f, least, aim, true})
	}
	fast("directly, streaming 64 B writes", onePlace, streaming, 64, "io.Pipe", 8, 18)
	fast("directly, streaming 1 KiB writes", onePlace, streaming, 1<<10, "io.Pipe", 5, 10)
	fast("directly, 64 KiB writes", onePlace, streaming, 64<<10, "os.Pipe", 5, 7)
	fast("directly, 1 MiB writes", onePlace, streaming, 1<<20, "os.Pipe", 2.5, 5)
	few("directly, ping-pong of 64 B, p50", onePlace, pingPong, 64, "zpipes", "io.Pipe", p50, .8, .45)
	fast("over ipc, streaming 64 B writes", manyPlace, streaming, 64, "zmq.Proxy", 6, 12)
	fast("over ipc, 1 KiB writes", manyPlace, streaming, 1<<10, "zmq.Proxy", 1.5, 3)
	fast("over ipc, 64 KiB writes", manyPlace, streaming, 64<<10, "zmq.Proxy", .8, 1.5)
	fast("over ipc, 1 MiB writes", manyPlace, streaming, 1<<20, "zmq.Proxy", .6, 1.2)
	few("Write and Flush over ipc, 64 B, p50", manyPlace, roundTrip, 64, "zpipes, Write and Flush", "DEALER/ROUTER", p50, 1.4, 1.1)
	few("the same, p99", manyPlace, roundTrip, 64, "zpipes, Write and Flush", "DEALER/ROUTER", p99, 1.4, 1.1)
	few("opening an end over ipc, p50", manyPlace, roundTrip, 64, "zpipes, OpenWriter", "DEALER/ROUTER", p50, 2, 1.2)
	for _, size := range sizes {
		fast("directly, "+sizeText(float64(size))+" writes", onePlace, streaming, size, "NATS", 1, 2)
	}
	for _, size := range []int{64, 1 << 10} {
		fast("over ipc, "+sizeText(float64(size))+" writes", manyPlace, streaming, size, "NATS", 1, 2)
	}
	for _, size := range []int{64, 64 << 10} {
		few("allocations for a message of "+sizeText(float64(size))+", directly", onePlace, streaming, size, "zpipes", "", mallocs, 1, 0)
		few("the same through the broker", manyPlace, streaming, size, "zpipes", "", mallocs, 8, 6)
	}
	for _, way := range []struct{ text, place string }{{"directly", onePlace}, {"over ipc", manyPlace}} {
		for _, size := range chunkSizes {
			of := "a queue's chunks of " + sizeText(float64(size))
			fast(way.text+", "+of, way.place, queuing, size, "JetStream", 1, 2)
			fast("the same, 4 senders and 4 receivers", way.place, crowded, size, "JetStream", 1, 2)
		}
	}
	few("directly, a light sender's chunk of 64 B beside a heavy sender, p99", onePlace, fairly, 64, "zpipes", idleQueue, p99, 10, 2)
	few("the same over ipc", manyPlace, fairly, 64, "zpipes", idleQueue, p99, 10, 2)
	return all
}

// mark says what a median, as it is written, reaches.
func (g goal) mark(median float64) string {
	median, _ = strconv.ParseFloat(digits(median), 64)
	reaches := func(x float64) bool {
		if g.most {
			return median <= x
		}
		return median >= x
	}
	switch {
	case reaches(g.aim):
		return "aim"
	case reaches(g.least):
		return "yes"
	}
	return "**no**"
}
