package zpipes

import "testing"

// Who leaves while it waits for a job gets none, and what it has goes to others.
func TestSessionJobsOfAWorkerThatVanishes(t *testing.T) {
	st := newStage(t)
	a := st.able().on(1).queue("q").opens(modeQueue)
	b := st.able().on(1).queue("q").opens(modeQueue)
	a.send(message{id: msgTake, count: 2})
	b.send(message{id: msgTake, count: 1})
	a.put("1")
	s := st.pipes.names.find(st.pipes.keyOf("q"), "q").queue
	if s.many[jobTaken] != 1 || s.demands.Len() != 2 || len(b.session.channels[1].open.(*queueMember).sender.has) > 0 {
		t.Fatalf("%d are taken, %d wait", s.many[jobTaken], s.demands.Len())
	}
	a.session.drop(cause{code: causeVanished}, nil)
	if s.many[jobTaken] != 1 || s.demands.Len() != 0 {
		t.Fatalf("%d are taken, %d wait", s.many[jobTaken], s.demands.Len())
	}
	for _, x := range s.aside {
		if x.holder == nil || x.deliveries != 2 || len(x.holder.has) != 1 || x.holder.left {
			t.Errorf("the job is %+v", x)
		}
	}
}
