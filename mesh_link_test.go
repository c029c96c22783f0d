//go:build !core

package zpipes

import (
	"testing"
	"time"
)

// Of two brokers that do nothing else one asks and the other one answers, which is a beat of both; now and then each
// of them asks.
func TestMeshLinkBeats(t *testing.T) {
	b := &Broker{log: newAsyncLog(nil)}
	m := &mesh{broker: b}
	now := time.Now()
	var asked [2]int
	var links [2]*meshLink
	for i := range links {
		f := &fellow{mesh: m}
		links[i] = &meshLink{mesh: m, fellow: f, far: &far{life: &f.life, deaf: true}, beatAt: now}
	}
	const seconds = 64
	for range seconds * int(time.Second/meshTick) {
		now = now.Add(meshTick)
		for i, l := range links {
			l.far.heard.note(now)
			l.far.life.note(now)
			l.look(now, slowBeat, slowDeath)
			if l.asked == now {
				asked[i]++
				l.pinged.Store(nil)
				links[1-i].spoke.note(now)
			}
		}
	}
	all, few := asked[0]+asked[1], min(asked[0], asked[1])
	if all < seconds*3/4 || all > seconds*5/4 || few < seconds/rarely/2 {
		t.Errorf("%v PINGs in %d s", asked, seconds)
	}
}
