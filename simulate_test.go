package zpipes

import "testing"

// In a world of streams, base clients, clients of the extension and goroutines of the
// broker's process meet on a few pipes; wake-ups come late; libzmq is full at times; time
// passes; clients fall silent or vanish. Whatever happens,
//
//   - who was never there for sure changes nothing for others;
//   - the bytes that come out of a pipe are the first of those that went in, and
//     at its end all that were confirmed, also where they go through rings;
//   - each request has one answer, the right one, in its turn;
//   - nothing waits for what is there already;
//   - what pipes and queues hold is bounded;
//   - in the end nothing is left of anybody.
func TestSimulateStreams(t *testing.T) {
	count := make(map[string]int)
	for step := range beginnings { // so that each of them happens, before chance has a say
		for _, dies := range []bool{false, true} {
			w := newStreamWorld(newSim(uint64(step)), count)
			if !w.survives(func() { w.begin(step, dies); w.end() }) {
				t.Fatalf("%d steps into a ring: %s", step, w.said)
			}
		}
	}
	for _, what := range []string{"moved in", "moved out", "ended in a ring", "ended while moving", "died in a ring", "died while moving"} {
		if count[what] == 0 {
			t.Errorf("nobody %s", what)
		}
	}
	worlds := 0
	simulate(t, func(s *sim) world {
		worlds++
		w := newStreamWorld(s, count)
		w.begin(int(s.salt%beginnings), s.salt%2 > 0)
		return w
	})
	for id := msgInput; id <= msgInvalid; id++ {
		switch name := wireLayout[id].name; id {
		case msgInput, msgOutput, msgRead, msgWrite, msgClose, msgPing, msgCloseFailed:
			if count[name] > 0 {
				t.Errorf("the broker said %s", name)
			}
		default:
			if worlds >= enoughWorlds && count[name] == 0 {
				t.Errorf("%s occurred %d times; the simulation does not reach what it should", name, count[name])
			}
		}
	}
	for _, what := range []string{"taken back", "handed over"} {
		if worlds >= enoughWorlds && count[what] == 0 {
			t.Errorf("nothing was %s", what)
		}
	}
	t.Log(count)
}

// enoughWorlds is how many worlds should see everything happen.
const enoughWorlds = 100

// In a world of queues, all kinds of clients use a few of them: some send and receive
// whole chunks, some read or write bytes, some use the text interface, some are in the
// broker's process. A few names are streams, which get in the way. Whatever happens,
//
//   - each chunk that was taken is in one place, or was received once. It comes again
//     only if its receiver left before it said that it had it;
//   - a sender's chunks come in the order in which it sent them, but for those that came
//     back; who asks first is served first;
//   - each request has one answer, the right one, in its turn;
//   - what the queues count is what is there, and bounded;
//   - nothing waits for what is there already;
//   - in the end nothing is left of anybody.
func TestSimulateQueues(t *testing.T) {
	count := make(map[string]int)
	worlds := 0
	simulate(t, func(s *sim) world {
		worlds++
		return newQueueWorld(s, count)
	})
	for _, what := range queueEvents {
		if worlds >= enoughWorlds && count[what] == 0 {
			t.Errorf("%s: %d times; the simulation does not reach what it should", what, count[what])
		}
	}
	t.Log(count)
}

// queueEvents are what should happen in a world of queues.
var queueEvents = []string{
	"INPUT_OK", "INPUT_FAILED", "OUTPUT_OK", "OUTPUT_FAILED", "READ_OK", "READ_END", "READ_TIMEOUT", "READ_FAILED",
	"WRITE_OK", "WRITE_TIMEOUT", "WRITE_FAILED", "CLOSE_OK", "PING_OK", "INVALID",
	"OPEN OK", "OPEN ERROR", "READ chunk", "READ ERROR", "WRITE OK", "WRITE ERROR", "CLOSE OK", "CLOSE ERROR",
	"received inside", "came back", "dropped with its sender", "deleted", "forgotten", "shut down", "closed",
}

// A store behaves as its model.
func TestSimulateChunkQueue(t *testing.T) {
	count := make(map[string]int)
	worlds := 0
	simulate(t, func(s *sim) world {
		worlds++
		return &chunkQueueModel{
			sim: s, s: newChunkQueue("q", 250, 300, born), count: count,
			latest: make(map[int]int),
		}
	})
	for _, what := range []string{"came", "dropped", "returned"} {
		if worlds >= enoughWorlds && count[what] == 0 {
			t.Errorf("%d chunks %s; the simulation does not reach what it should", count[what], what)
		}
	}
	t.Log(count)
}

// In a world of jobs, workers take them, and say what becomes of them, or leave, or their
// leases end; at times a log keeps the queue, and commits late. Whatever happens,
//
//   - what the log was told is what is there, and each job in one place;
//   - a job is handed out only once its put is committed;
//   - who says something of a job that it does not have any more changes nothing;
//   - no job is delivered more often than it may be;
//   - what is not done comes out in the end.
func TestSimulateJobs(t *testing.T) {
	count := make(map[string]int)
	worlds := 0
	simulate(t, func(s *sim) world {
		worlds++
		return newJobsWorld(s, count)
	})
	for _, what := range []string{"done", "taken", "lost", "left", "purged", "redriven", "delayed", "said too late"} {
		if worlds >= enoughWorlds && count[what] == 0 {
			t.Errorf("%s: %d times; the simulation does not reach what it should", what, count[what])
		}
	}
	t.Log(count)
}

// In a world of desks, clients of the extension and of the text interface work on the jobs of a queue: they
// take them, and say of jobs that they have, had, or never had, what becomes of them; leases end; clients
// close, vanish, and do not take their answers. Whatever happens,
//
//   - each SETTLE, DONE and RETURN has one answer, the right one, in its turn;
//   - who has a job knows it, and who has lost it, too, or learns it when it says something;
//   - no job is with two, with nobody, or delivered more often than it may be;
//   - nobody waits for what is there;
//   - what is not done comes out in the end.
func TestSimulateDesks(t *testing.T) {
	count := make(map[string]int)
	worlds := 0
	simulate(t, func(s *sim) world {
		worlds++
		return newDeskWorld(s, count)
	})
	for _, what := range []string{"taken", "in lots", "said in time", "said too late", "done in lots", "lost", "closed", "vanished", "tended"} {
		if worlds >= enoughWorlds && count[what] == 0 {
			t.Errorf("%s: %d times; the simulation does not reach what it should", what, count[what])
		}
	}
	t.Log(count)
}

// In a world of broadcasts a writer, here or elsewhere, and readers come and go at one name.
// Whatever happens,
//
//   - each reader gets the bytes from the beginning of a Write on, all of them, in order;
//   - one that comes late begins with what is kept, and no earlier;
//   - the writer has room as long as the slowest reader is not too far behind, and for that
//     it is held up no longer than for its patience. Who is left behind has stood still, and
//     learns how much it has missed;
//   - what is held is what somebody has yet to read, or may have, and nothing else;
//   - nothing waits for what is there already;
//   - in the end nothing is left of anybody.
func TestSimulateBroadcasts(t *testing.T) {
	count := make(map[string]int)
	worlds := 0
	simulate(t, func(s *sim) world {
		worlds++
		return newBroadcastWorld(s, count)
	})
	for _, what := range []string{"kept", "left behind", "ended", "never there", "waited for the writer", "too many"} {
		if worlds >= enoughWorlds && count[what] == 0 {
			t.Errorf("%s: %d times; the simulation does not reach what it should", what, count[what])
		}
	}
	t.Log(count)
}
