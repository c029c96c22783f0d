//go:build !core

package zpipes

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What a client that hangs up has not taken comes to nobody else, and the door has as many pipes as before.
func TestPassLeavesNoRest(t *testing.T) {
	d := &tcpDoor{broker: new(Broker), sluices: newSluices()}
	for range 2 * mostSluices {
		client, inner, done := passedOn(t, d)
		for { // until nobody takes more, and something is in a pipe
			inner.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
			if _, err := inner.Write(make([]byte, 1<<20)); errors.Is(err, os.ErrDeadlineExceeded) && len(d.sluices) < mostSluices {
				break
			} else if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
		}
		client.(*net.TCPConn).SetLinger(0)
		client.Close()
		inner.Close()
		<-done
	}
	var all []*sluice
	for range mostSluices {
		s := d.sluices.take()
		if s == nil {
			t.Fatal("there is none")
		}
		if n, err := unix.Read(s.out, make([]byte, 1)); err != unix.EAGAIN {
			t.Error("something is left of another connection: ", n, err)
		}
		all = append(all, s)
	}
	if d.sluices.take() != nil {
		t.Error("there are more than there may be")
	}
	for _, s := range all {
		d.sluices <- s
	}
	d.sluices.close()
}
