package zpipes

import (
	"slices"
	"testing"

	"github.com/zpipes/zpipes/internal/ring"
)

// stageRings is what a stage has that can make rings, of plain memory.
type stageRings struct {
	made   []*stageRing
	atOnce bool
	full   bool // nothing can be given away now
	none   bool // none can be made

	offered []*session   // to whom, and
	given   []*stageRing // what
	crowded int
}

// A ringSays is what an end's client says on its channel.
type ringSays struct {
	role role
	message
}

// ringTalk is what the clients of a stream's ends say on its way into a ring, and out of it,
// to a broker that has all streams take one at once.
var ringTalk = func() []ringSays {
	hi := message{id: msgPing, hello: hello{version: 1, number: 100, able: abilities, window: stageWindow}}
	all := []ringSays{
		{writer, hi},
		{reader, hi},
		{writer, message{id: msgOutput, text: []byte("p")}},
		{writer, message{id: msgRead, flags: readHere}},
		{reader, message{id: msgInput, text: []byte("p")}},
		{reader, message{id: msgRead, flags: readAny | readStream, size: 1 << 20}},
		{writer, message{id: msgWrite, chunk: []byte("some")}},
		{reader, message{id: msgMove, mode: moveInto}},
		{writer, message{id: msgMove, mode: moveInto}},
		{writer, message{id: msgMove, mode: moveOut}},
		{writer, message{id: msgWrite, chunk: []byte("more")}},
		{reader, message{id: msgMove, mode: moveNot}},
		{writer, message{id: msgClose}},
	}
	for i := range all {
		if all[i].block = hasBlock; all[i].id != msgPing {
			all[i].channel = 1 + uint32(all[i].role)
		}
	}
	return all
}()

// ringPlaces are where a ring has something to be spoiled: its numbers, and the data.
var ringPlaces = [...]int{0, 8, 128, 256, 384, 512, ring.Header}

func (st *stage) newOwn(p *pipe, size int, _ role, t resumer) (brokerRing, []byte, func()) {
	g, ok := st.newRing(p, size).(*stageRing)
	if !ok {
		return nil, nil, nil
	}
	g.rings = func() { st.post(t); st.settle() }
	return g, g.memory, func() {
		if g.rung != nil {
			g.rung()
		}
	}
}

type stageRing struct {
	*ring.Keeper
	all      *stageRings
	rings    func() // the bell that the broker hears, where it has an end itself,
	rung     func() // and the one that it rings; nil: nobody listens
	memory   []byte
	gave     [2]bool
	released bool
}

func (st *stage) canGive() bool { return st.rings != nil }
func (st *stage) atOnce() bool  { return st.rings.atOnce }
func (st *stage) crowded()      { st.rings.crowded++ }

func (st *stage) newRing(_ *pipe, size int) brokerRing {
	if st.rings.none {
		return nil
	}
	g := &stageRing{all: st.rings, memory: make([]byte, ring.Header+size)}
	var err error
	if g.Keeper, err = ring.NewKeeper(g.memory, size); err != nil {
		st.t.Fatal(err)
	}
	st.rings.made = append(st.rings.made, g)
	return g
}

func (st *stage) give(s *session, frame []byte, descriptors []int) bool {
	if st.rings.full || st.callers[s].congested {
		return false
	}
	if !slices.Equal(descriptors, []int{1, 2}) {
		st.t.Errorf("descriptors %v", descriptors)
	}
	st.rings.offered = append(st.rings.offered, s)
	return st.reply(s, frame)
}

func (g *stageRing) descriptors(role) []int { return []int{1, 2} }
func (g *stageRing) given(r role) {
	g.gave[r] = true
	g.all.given = append(g.all.given, g)
}
func (g *stageRing) release() { g.released = true }

func (g *stageRing) bell() func() {
	if g.rings == nil {
		return func() {}
	}
	return g.rings
}

func (g *stageRing) writer(t *testing.T) *ring.Writer {
	w, err := ring.NewWriter(g.memory, g.bell())
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (g *stageRing) reader(t *testing.T) *ring.Reader {
	r, err := ring.NewReader(g.memory, g.bell(), func() {})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var moveNames = map[byte]string{moveInto: "into", moveOut: "out", moveNot: "not"}

const stageWindow = 300

// near returns a client that can take detours.
func (st *stage) near() *caller {
	st.t.Helper()
	c := st.call()
	c.agreed = true
	c.on(0).send(message{id: msgPing, hello: hello{version: 1, number: 100, able: abilities, window: stageWindow}}).gets("PING_OK")
	return c
}

func (l *line) move(mode byte, count uint32) *line {
	return l.send(message{id: msgMove, mode: mode, count: count})
}
