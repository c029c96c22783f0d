package main

import (
	"fmt"
	"slices"
	"strings"
)

// A contender does a contest's work in its own way.
type contender struct {
	name      string
	transport string
	job       string
	processes int
}

// Work is what is done, and where.
type work struct {
	place string // where its writers, readers and what stands between them are
	what  string
	busy  bool // beside a process that uses a core all the time
}

// A contest is the same work done by several contenders.
type contest struct {
	work
	size       int // of a write
	streams    int // at once; or as many senders, and receivers, of one queue, or readers of one stream
	contenders []contender
}

func (c contest) title() string {
	title := c.place + ", " + c.what + ", " + sizeText(float64(c.size))
	if c.busy {
		title += ", beside a busy core"
	}
	return title
}

const (
	onePlace  = "one process"
	manyPlace = "processes"

	streaming = "stream"
	several   = "64 streams"
	pingPong  = "ping-pong"
	roundTrip = "round trip"

	connected = "connections"

	encrypted       = "stream over encrypted tcp"
	encryptedZpipes = "zpipes over tcp, encrypted"
	encryptedBare   = "DEALER/ROUTER, encrypted"
	betweenBrokers  = "zpipes, two brokers with a link"

	// inCluster is zpipes at a broker that has a link with another one, for which there is nothing
	// to do. It does the work of one that has none.
	inCluster = "zpipes, of a cluster"
	clustered = ", at a broker of a cluster"

	broadcasting = "broadcast to " // so many

	queuing = "queue"
	crowded = "queue, 4 and 4"
	fairly  = "queue, a light sender beside a heavy one"

	// idleQueue is zpipes without the heavy one.
	idleQueue = "zpipes, idle queue"
)

var (
	sizes      = []int{64, 1 << 10, 64 << 10, 1 << 20}
	chunkSizes = []int{64, 1 << 10}

	clusteredSizes = []int{64, 64 << 10}

	castSizes = []int{1 << 10, 64 << 10}
	audiences = []int{1, 4, 16}

	// unserved go from process to process with nothing in the middle.
	unserved = []string{"FIFO", "Unix socket", "loopback TCP", "DEALER/ROUTER", "Unix socket to each"}
	// quietOnly are left out beside a busy core: others like them are there.
	quietOnly = []string{"os.Pipe", "NATS", "zpipes, WriteTo"}
)

// audience is a broadcast to so many readers.
func audience(readers int) string {
	if readers == 1 {
		return broadcasting + "1 reader"
	}
	return fmt.Sprint(broadcasting, readers, " readers")
}

// contests returns all of them, in the order in which they are held.
func contests() []contest {
	var all []contest
	busy := false
	add := func(place, what string, size, streams int, contenders ...contender) {
		var in []contender
		for _, c := range contenders {
			if place == manyPlace && slices.Contains(unserved, c.transport) {
				c.processes = 2
			}
			if !busy || !slices.Contains(quietOnly, c.name) {
				in = append(in, c)
			}
		}
		all = append(all, contest{work{place, what, busy}, size, streams, in})
	}
	doing := func(job string, processes int, transports ...string) []contender {
		var c []contender
		for _, t := range transports {
			c = append(c, contender{t, t, job, processes})
		}
		return c
	}
	for _, busy = range []bool{false, true} {
		for _, size := range sizes {
			add(onePlace, streaming, size, 1, doing("stream", 1, "zpipes", "zpipes, WriteTo", "io.Pipe", "os.Pipe", "NATS")...)
		}
		for _, size := range sizes {
			add(manyPlace, streaming, size, 1, doing("stream", 3,
				"zpipes", "zpipes, WriteTo", "zpipes over ipc", "zmq.Proxy", "FIFO", "Unix socket", "NATS")...)
		}
		add(onePlace, pingPong, 64, 2, doing("ping-pong", 1, "zpipes", "io.Pipe", "os.Pipe", "NATS")...)
		add(manyPlace, pingPong, 64, 2, doing("ping-pong", 3,
			"zpipes", "zpipes over ipc", "zmq.Proxy", "FIFO", "Unix socket", "NATS")...)
		add(manyPlace, roundTrip, 64, 1,
			contender{"zpipes, Write and Flush", "zpipes", "flush", 3},
			contender{"zpipes, OpenWriter", "zpipes", "open", 3},
			contender{"zpipes, NewClient and Ping", "zpipes", "dial", 3},
			contender{"zpipes, Dial", "zpipes", "connect", 3},
			contender{"Unix socket", "Unix socket", "ping-pong", 2},
			contender{"zpipes over ipc, Write and Flush", "zpipes over ipc", "flush", 3},
			contender{"zpipes over ipc, Dial", "zpipes over ipc", "connect", 3},
			contender{"DEALER/ROUTER", "DEALER/ROUTER", "ping-pong", 2},
		)
	}
	busy = false
	for _, place := range []string{onePlace, manyPlace} {
		processes := 1
		if place == manyPlace {
			processes = 3
		}
		var c []contender
		for _, e := range exchanges {
			for _, t := range []string{"zpipes", "Unix socket", "loopback TCP"} {
				c = append(c, contender{over(t, e.name), t, e.job, processes})
			}
		}
		add(place, connected, 64, 1, c...)
	}
	for _, size := range sizes {
		add(manyPlace, encrypted, size, 1, doing("stream", 3, encryptedZpipes, betweenBrokers, encryptedBare)...)
	}
	for _, size := range clusteredSizes {
		add(onePlace, streaming+clustered, size, 1, doing("stream", 1, "zpipes", inCluster)...)
		add(manyPlace, streaming+clustered, size, 1, doing("stream", 3, "zpipes", inCluster)...)
	}
	add(manyPlace, roundTrip+clustered, 64, 1,
		contender{"zpipes, OpenWriter", "zpipes", "open", 3},
		contender{inCluster + ", OpenWriter", inCluster, "open", 3})
	for _, size := range []int{64, 64 << 10} {
		add(onePlace, several, size, 64, doing("stream", 1, "zpipes", "io.Pipe")...)
		add(manyPlace, several, size, 64, doing("stream", 3, "zpipes", "zpipes over ipc", "zmq.Proxy", "FIFO", "Unix socket")...)
	}
	cast := func(processes int, names ...string) (all []contender) {
		for _, name := range names {
			transport := name
			if !strings.HasSuffix(name, "to each") {
				transport += ", broadcast"
			}
			all = append(all, contender{name, transport, "broadcast", processes})
		}
		return all
	}
	for _, readers := range audiences {
		for _, size := range castSizes {
			what := audience(readers)
			add(onePlace, what, size, readers, cast(1, "zpipes", "io.Pipe to each", "NATS")...)
			add(manyPlace, what, size, readers, cast(3, "zpipes", "zpipes over ipc", "Unix socket to each", "NATS")...)
		}
	}
	for _, size := range chunkSizes {
		direct := doing("queue", 1, "zpipes, queue", "Go channel", "NATS queue group", "JetStream")
		between := doing("queue", 3, "zpipes, queue", "zmq.Proxy", "NATS queue group", "JetStream")
		direct[0].name, between[0].name = "zpipes", "zpipes"
		for _, w := range []struct {
			what string
			ends int
		}{{queuing, 1}, {crowded, 4}} {
			add(onePlace, w.what, size, w.ends, direct...)
			add(manyPlace, w.what, size, w.ends, between...)
		}
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
