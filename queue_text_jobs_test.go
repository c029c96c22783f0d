//go:build cgo && !core

package zpipes

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

// takes wants TAKE to be answered with this job, and returns its id.
func (x *texter) takes(queue, chunk string, deliveries int) (id string) {
	x.Helper()
	x.say("TAKE", queue)
	frames, err := wireReceive(x.socket, 2*soon)
	if err != nil || len(frames) != 3 || string(frames[1]) != fmt.Sprint(deliveries) || string(frames[2]) != chunk {
		x.Fatalf("TAKE was answered %q, %v; want %q for the %d. time", frames, err, chunk, deliveries)
	}
	return string(frames[0])
}

func TestQueueJobsByText(t *testing.T) {
	t.Parallel()
	overBothWays(t, BrokerConfig{}, ClientConfig{}, func(r *rig, b *Broker) {
		x, y := r.texter(b), r.texter(b)
		q := r.queue("q")
		r.send(q, "1", "2")
		r.flush(q)
		one, two := x.takes("q", "1", 1), y.takes("q", "2", 1)
		if infos := r.peeks("q", "taken 1 1", "taken 2 1"); infos[0].ID != one || infos[1].ID != two {
			r.Errorf("the ids are %s and %s, and by a look %+v", one, two, infos)
		}
		x.does("DONE", "q", one)
		x.say("DONE", "q", two)
		x.hears("ERROR")
		y.socket.Close() // which gives its job back
		j := r.takes(q, "2", 2)
		x.say("DONE", "q", two+".1")
		x.hears("ERROR")
		r.ok(j.Return(0))
		r.flush(q)
		x.does("RETURN", "q", x.takes("q", "2", 3), "1")
		x.does("DONE", "q", x.takes("q", "2", 4))
		r.peeks("q")
	})
}

// A worker is not taken for dead because it works: it has nothing to say meanwhile.
func TestQueueJobsByTextOfAWorkerThatIsSilent(t *testing.T) {
	t.Parallel()
	r, b := overWire(t, BrokerConfig{ClientTimeout: 100 * time.Millisecond}, ClientConfig{})
	x := r.texter(b)
	q := r.queue("q")
	r.send(q, "1")
	r.flush(q)
	id := x.takes("q", "1", 1)
	r.takesNothing(q, 500*time.Millisecond)
	x.does("DONE", "q", id)
}

// What was answered with OK is kept; and whoever had a job before a restart can still say that it is done.
func TestQueueJobsByTextAreKept(t *testing.T) {
	k := newKept(t, BrokerConfig{Endpoints: []string{"ipc://" + filepath.Join(t.TempDir(), "broker")}})
	k.queue("q", QueueConfig{})
	dial := func() *texter { return &texter{&rig{T: t}, wireSocket(t, scriptEndpoint(t, k.broker), "")} }
	x := dial()
	x.does("OPEN", "q")
	for _, chunk := range []string{"done", "taken", "waits"} {
		x.does("WRITE", "q", chunk)
	}
	x.does("DONE", "q", x.takes("q", "done", 1))
	id := x.takes("q", "taken", 1)
	k.restart()
	y := dial()
	y.say("DONE", "q", id) // which delivery?
	y.hears("ERROR")
	y.say("DONE", "q", id+".2")
	y.hears("ERROR")
	y.does("DONE", "q", id+".1")
	y.does("OPEN", "q")
	y.does("CLOSE", "q") // which deletes no queue that is kept
	y.does("DONE", "q", y.takes("q", "waits", 1))
	if info := k.info("q"); info.Chunks != 0 {
		t.Errorf("there is %+v", info)
	}
}
