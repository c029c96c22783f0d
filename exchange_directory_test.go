package zpipes

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/zpipes/zpipes/internal/meet"
)

// A searcher writes down what it is told.
type searcher struct{ told [][]offering }

func (s *searcher) found(_ time.Time, all []offering) { s.told = append(s.told, slices.Clone(all)) }

// wants wants so many to have been found the last time, and that it was told so often.
func (s *searcher) wants(t *testing.T, times int, last ...offering) {
	t.Helper()
	if len(s.told) != times || times > 0 && !slices.Equal(s.told[times-1], last) {
		t.Errorf("told %v, want %d times and %v at last", s.told, times, last)
	}
}

// newDirectoryStage is a stage on which both brokers have had time to say what they know.
func newDirectoryStage(t *testing.T) *meetingStage {
	ms := newMeetingStage(t)
	ms.goes(settleTime)
	return ms
}

// says has the other broker answer the search for what is called q.
func (ms *meetingStage) says(id messageID, k thing, other uint64, at memberID, over ...byte) {
	m := message{id: id, block: hasBlock, text: []byte("q"), flags: byte(k)<<thingShift | thingSought, other: other, at: at}
	for _, o := range over {
		m.flags |= o
	}
	if s := ms.sought[soughtKey{k, "q"}]; s != nil {
		m.token = uint64(s.token)
	}
	ms.received(2, &m)
	ms.turns()
}

func TestWhoSeeksIsTold(t *testing.T) {
	ms := newDirectoryStage(t)
	var first, second searcher
	stop := ms.seek(thingQueue, "q", first.found)
	ms.records("REGISTER q")
	first.wants(t, 0)
	ms.says(msgFound, thingQueue, 0, 0)
	first.wants(t, 1) // this broker knows of none either
	ms.says(msgFound, thingQueue, 7, 2)
	first.wants(t, 2, offering{2, 7, true})
	stopSecond := ms.seek(thingQueue, "q", second.found) // knows at once what the other one knows
	ms.records()
	second.wants(t, 1, offering{2, 7, true})
	stop()
	const here = 33
	ms.offer(thingQueue, "q", here)
	ms.offer(thingListener, "q", 34) // is something else
	ms.records("REGISTER q", "REGISTER q")
	second.wants(t, 1, offering{2, 7, true}) // the other one has yet to say that it knows
	ms.says(msgFound, thingQueue, here, 1)
	if second.wants(t, 2, second.told[1]...); len(second.told[1]) != 2 || !slices.Contains(second.told[1], offering{1, here, true}) {
		t.Errorf("told %v", second.told)
	}
	ms.says(msgGone, thingQueue, 7, 0, thingOver)
	second.wants(t, 3, offering{1, here, true})
	ms.withdraw(here)
	ms.records("UNREGISTER q")
	second.wants(t, 4)
	stopSecond()
	ms.records("UNREGISTER q")
	first.wants(t, 2, offering{2, 7, true})
	if len(ms.sought)+len(ms.seeks) > 0 {
		t.Error("somebody still seeks")
	}
	ms.leavesNothing()
}

// What a member asks is answered, and it hears what changes.
func TestMembersThatSeekAreTold(t *testing.T) {
	ms := newDirectoryStage(t)
	asks := message{id: msgRegister, block: hasBlock, text: []byte("q"), flags: byte(thingListener)<<thingShift | thingSought, token: 5}
	ms.received(2, &asks)
	ms.records("FOUND q")
	ms.offer(thingListener, "q", 34)
	ms.offer(thingQueue, "q", 35)
	ms.records("REGISTER q", "FOUND q", "REGISTER q")
	ms.withdraw(34)
	ms.turns()
	slices.Sort(ms.sent)
	ms.records("GONE q", "UNREGISTER q")
	asks.id = msgUnregister
	ms.received(2, &asks)
	ms.offer(thingListener, "q", 36)
	ms.records("REGISTER q")
	ms.leavesNothing()
}

// A member of an earlier version is told nothing of things, and nobody waits for its answer.
func TestThingsAreNotToldToOldMembers(t *testing.T) {
	ms := newDirectoryStage(t)
	ms.linkDown(2)
	ms.linkUp(2, 0)
	ms.turns()
	ms.goes(settleTime)
	var s searcher
	ms.seek(thingQueue, "q", s.found)
	ms.offer(thingListener, "q", 36)
	ms.records()
	s.wants(t, 1)
	const here = 33
	ms.offer(thingQueue, "q", here)
	ms.records()
	s.wants(t, 2, offering{1, here, true})
	p := ms.base().input("p")
	ms.turns()
	p.gets("INPUT_OK")
	ms.records("REGISTER p") // it is told of ends
	ms.leavesNothing()
}

// A broker that has just started has not met those who may have what nobody else has.
func TestNobodyIsSaidWhenTheOthersHaveBeenMet(t *testing.T) {
	ms := newDirectoryStage(t)
	ms.met = false
	var s searcher
	ms.seek(thingQueue, "q", s.found)
	ms.turns()
	ms.says(msgFound, thingQueue, 0, 0)
	s.wants(t, 0)
	ms.says(msgFound, thingQueue, 7, 2)
	s.wants(t, 1, offering{2, 7, true}) // who is known is told
	ms.says(msgGone, thingQueue, 7, 0, thingOver)
	s.wants(t, 1, offering{2, 7, true})
	ms.settled()
	ms.turns()
	s.wants(t, 2)
	ms.leavesNothing()
}

// Who seeks can ask whether somebody is missing, who may have it, and is told when that is over.
func TestNobodyMayBeSaidWhileSomebodyIsMissing(t *testing.T) {
	ms := newDirectoryStage(t)
	missing := func(want bool) {
		t.Helper()
		if ms.turns(); ms.missing() != want {
			t.Errorf("missing: %v", !want)
		}
	}
	missing(false)
	ms.linkDown(2)
	ms.viewChanged([]memberID{1})
	missing(true)
	var s searcher
	ms.seek(thingQueue, "q", s.found)
	ms.turns()
	s.wants(t, 1)
	ms.goes(ms.patience() - time.Millisecond)
	missing(true)
	s.wants(t, 1)
	ms.goes(time.Millisecond)
	missing(false)
	s.wants(t, 2)
	ms.linkUp(2, ableDirectory)
	ms.linkDown(2)
	missing(true)
	s.wants(t, 2)
	ms.linkUp(2, ableDirectory)
	missing(false)
	s.wants(t, 2) // it may have yet to say that it has one
	ms.goes(settleTime)
	s.wants(t, 3)
	ms.linkDown(2)
	missing(true)
	ms.left(2)
	missing(false)
	s.wants(t, 4)
	ms.leavesNothing()
}

// Whether a name is a queue's at another broker is waited for where the answer is late, and where a link was lost just
// now, so that those who are asked may not know of it yet; and that there is none is known at once else.
func TestBytesElsewhereAreFound(t *testing.T) {
	ms := newMeetingStage(t)
	ms.linkUp(3, ableDirectory)
	ms.viewChanged([]memberID{1, 2, 3})
	ms.turns()
	ms.goes(settleTime)
	names := 0
	named := func(own bool) string { // a new one that this broker is asked for, or the two others
		for {
			names++
			if told, _ := ms.meet.Knows(meet.Thing(thingQueue), fmt.Sprint(names)); told == own {
				return fmt.Sprint(names)
			}
		}
	}
	asks := func(name string) *inquiry {
		i := ms.inquireBytes(name, func() {})
		ms.turns()
		return i
	}
	found := func(i *inquiry, at memberID) {
		t.Helper()
		if i.given.Load() {
			t.Fatalf("it is answered too early: at %v, %v", i.at, i.why)
		}
		m := message{id: msgFound, block: hasBlock, text: []byte(i.name), flags: byte(thingQueue)<<thingShift | thingSought,
			token: uint64(ms.sought[soughtKey{thingQueue, i.name}].token), other: 7, at: at}
		ms.received(2, &m)
		m.other, m.at = 0, 0 // that is all
		ms.received(2, &m)
		ms.turns()
		if !i.given.Load() || i.at != at {
			t.Errorf("answered %t: at %v, %v", i.given.Load(), i.at, i.why)
		}
	}
	isNone := func(i *inquiry) {
		t.Helper()
		if !i.given.Load() || i.why != &causeIsNoQueue {
			t.Errorf("answered %t: at %v, %v", i.given.Load(), i.at, i.why)
		}
	}
	isNone(asks(named(true)))
	late := asks(named(false))
	ms.goes(time.Second)
	found(late, 3)

	ms.linkDown(3)
	ms.viewChanged([]memberID{1, 2})
	ms.turns()
	found(asks(named(true)), 2)
	none := asks(named(true))
	if none.given.Load() {
		t.Error("that there is none is known while a link is being lost")
	}
	ms.goes(retryWay)
	isNone(none)
	ms.goes(settleTime)
	isNone(asks("another"))
	ms.left(3)
	ms.sent = nil
	ms.leavesNothing()
}

// Members that come all the time, or again and again, do not hold up for long who looks for what is nowhere.
func TestWhoSeeksIsToldWhileOthersCome(t *testing.T) {
	ms := newDirectoryStage(t)
	comes := func() {
		ms.do(func(now time.Time) { ms.exchange.meets(2, now) })
		ms.turns()
	}
	comes()
	var s searcher
	ms.seek(thingQueue, "q", s.found)
	ms.turns()
	ms.says(msgFound, thingQueue, 0, 0)
	s.wants(t, 0)
	for waited := settleTime / 2; len(s.told) == 0; waited += settleTime / 2 {
		if waited > mostSettling {
			t.Fatalf("nothing is told for %v", waited)
		}
		ms.goes(settleTime / 2)
		comes()
	}
}
