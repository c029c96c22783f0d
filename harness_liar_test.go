//go:build cgo && !core

package zpipes

import (
	"sync"
	"testing"
	"time"

	"github.com/pebbe/zmq4"
)

// A liar is a broker that agrees to the extension and opens every pipe, and then
// says what a test wants it to.
type liar struct {
	*rig
	router *zmq4.Socket
	client []byte // routing id of who spoke last
	says   func(l *liar, m message)
	pinged func(m message) // nil: each PING is answered at once
	opens  bool            // each INPUT and OUTPUT is answered at once
	able   uint32          // its abilities

	mu   sync.Mutex // guards took
	took []byte     // what came in WRITEs
}

func startLiar(t *testing.T, says func(l *liar, m message)) *liar {
	router, endpoint := wireRouter(t)
	l := &liar{rig: &rig{T: t, broker: endpoint}, router: router, says: says, opens: true}
	keepListening(t, router, l.listen)
	l.rig.client = l.newClient(ClientConfig{Timeout: 2 * time.Second})
	return l
}

func (l *liar) listen() {
	frames, err := wireReceive(l.router, 10*time.Millisecond)
	if err != nil {
		return
	}
	l.client = frames[0]
	m, err := parse(frames[1])
	if err != nil {
		l.Error(err)
	}
	switch m.id {
	case msgPing:
		if l.pinged != nil {
			l.pinged(m)
		}
		l.say(message{id: msgPingOK, hello: hello{version: 1, session: 7, number: 1 << 20, pending: 1 << 20, total: 1 << 20, able: l.able}})
		return
	case msgInput:
		if l.opens && m.mode != modeDelete {
			l.say(message{id: msgInputOK, channel: m.channel})
		}
	case msgOutput:
		if l.opens {
			l.say(message{id: msgOutputOK, channel: m.channel})
		}
	case msgWrite:
		l.mu.Lock()
		l.took = append(l.took, m.chunk...)
		l.mu.Unlock()
	}
	l.says(l, m)
}

func (l *liar) say(m message) {
	m.block = hasBlock
	wireSend(l.router, l.client, m.append(nil))
}
