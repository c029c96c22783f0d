package zpipes

import (
	"fmt"
	"testing"
)

// A client that has very much open leaves in steps, between which others have their turn.
func TestSessionThatHasMuchIsDroppedInSteps(t *testing.T) {
	const ends = 3*dropStep + 1
	name := func(channel uint32) string { return fmt.Sprint("p", channel) }
	dropAs := map[string]func(c *caller){
		"its connection is lost": func(c *caller) {
			c.session.drop(cause{code: causeVanished}, nil)
			c.session.gone = true
		},
		"it is told why": func(c *caller) {
			c.session.end(hasBlock, "it is tired")
			c.on(0).gets("INVALID broker gone")
		},
		"it was silent": func(c *caller) {
			if !c.session.expire(c.stage.now.Add(stageExpiry)) {
				t.Error("it may stay")
			}
			c.on(0).gets("INVALID broker gone")
		},
		"it begins anew": func(c *caller) { c.sayHello(100) },
	}
	for what, drop := range dropAs {
		t.Run(what, func(t *testing.T) {
			st := newStage(t)
			st.pipes = newRegistry(2*ends, stagePending, stageMessage)
			c, neighbour := st.modern(), st.modern()
			for channel := range uint32(ends) {
				c.on(channel+1).input(name(channel+1)).gets("INPUT_OK").readWith(readAny, 9, 0).waits()
			}
			for channel := range uint32(ends) {
				neighbour.on(channel + 1).output(name(channel + 1)).gets("OUTPUT_OK")
			}

			st.held = true
			drop(c)
			left := make(map[string]int)
			for channel := range uint32(ends) {
				neighbour.on(channel+1).write("x", 0)
			}
			for _, frame := range neighbour.heard {
				m, _ := parse(frame)
				left[shown(m)]++
			}
			if left["WRITE_FAILED vanished"] != dropStep || left["WRITE_OK"] != ends-dropStep {
				t.Errorf("the neighbour hears %v, want %d readers to have left", left, dropStep)
			}
			neighbour.heard, c.heard = nil, nil
			st.held = false
			st.resume()
			if len(c.heard) > 0 {
				t.Errorf("one who was dropped is answered % x", c.heard[0])
			}
			if n := c.session.account.ends; n != 0 {
				t.Errorf("%d ends are left", n)
			}
			for _, frame := range neighbour.heard {
				if m, _ := parse(frame); shown(m) != "WRITE_FAILED vanished" {
					t.Errorf("the neighbour hears %s", shown(m))
				}
			}
			if n := len(neighbour.heard); n != ends-dropStep {
				t.Errorf("the neighbour hears of %d ends, want %d", n, ends-dropStep)
			}
			st.leavesNothing()
		})
	}
}

// What such a client has of a queue comes back, step by step, all of it once.
func TestSessionQueueChunksOfOneWhoIsDroppedInSteps(t *testing.T) {
	st := newStage(t)
	st.pipes = newRegistry(2*dropStep+2, stagePending, stageMessage)
	c, q := st.modern(), st.member("q")
	for channel := range uint32(dropStep + 2) {
		c.on(channel + 1).queue("q").opens(modeQueue)
	}
	early, late := c.on(1).ask(2, 0), c.on(dropStep+2)
	q.put("1", "2").confirms(2)
	early.gets(bring("1", "2"))
	late.ask(2, 0)
	q.put("3", "4").confirms(2)
	late.gets(bring("3", "4")).ask(1, 0).waits()

	st.held = true
	c.session.drop(cause{code: causeVanished}, nil)
	c.session.gone = true
	heir := st.modern().on(1).queue("q").opens(modeQueue)
	st.held = false
	st.settle()
	heir.ask(4, 0)
	if m, _ := parse(heir.heard[0]); shown(m) != bring("1", "2", "3", "4") {
		heir.gets(bring("3", "4", "1", "2")) // who had what is in no order
	}
	heir.ask(0, 4)
	st.leavesNothing()
}
