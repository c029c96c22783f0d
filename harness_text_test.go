//go:build cgo && !core

package zpipes

import (
	"slices"
	"time"

	"github.com/pebbe/zmq4"
)

// A texter is a client of the text interface, or of the base protocol: a bare socket.
type texter struct {
	*rig
	socket *zmq4.Socket
}

func (r *rig) texter(b *Broker) *texter {
	return &texter{r, wireSocket(r, b.Endpoints()[1], "")}
}

func (x *texter) say(frames ...string) {
	x.Helper()
	var message [][]byte
	for _, f := range frames {
		message = append(message, []byte(f))
	}
	if err := wireSend(x.socket, message...); err != nil {
		x.Fatal(err)
	}
}

// hears checks the next message. Behind ERROR anything may stand.
func (x *texter) hears(want ...string) {
	x.Helper()
	got, err := wireReceive(x.socket, dead)
	if err != nil {
		x.Fatalf("want %.40q: %v", want, err)
	}
	var frames []string
	for _, f := range got {
		frames = append(frames, string(f))
	}
	if want[0] == "ERROR" && len(frames) == 2 {
		frames = frames[:1]
	}
	if !slices.Equal(frames, want) {
		x.Fatalf("heard %.200q, want %.40q", frames, want)
	}
}

// does says a command that is answered OK.
func (x *texter) does(frames ...string) {
	x.Helper()
	x.say(frames...)
	x.hears("OK")
}

func (x *texter) hearsNothing() {
	x.Helper()
	if got, err := wireReceive(x.socket, 20*time.Millisecond); err == nil {
		x.Errorf("heard %.100q", got)
	}
}
