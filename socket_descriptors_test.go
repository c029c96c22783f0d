//go:build cgo && !core

package zpipes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"testing"
	"time"
)

func init() { parts["starving"] = playStarving }

// starve uses up all descriptors that this process may have but so many, and returns
// how to give them back.
func starve(but int) (feed func()) {
	var taken []int
	for {
		fd, err := syscall.Open("/", syscall.O_RDONLY, 0)
		if err != nil {
			break
		}
		taken = append(taken, fd)
	}
	for range but {
		syscall.Close(taken[0])
		taken = taken[1:]
	}
	return func() {
		for _, fd := range taken {
			syscall.Close(fd)
		}
	}
}

// playStarving is for a process that has few descriptors. As a client or with a broker
// of its own it finds out what can be done with how many; or it has a broker, and none
// left from one SIGUSR1 to the next.
func playStarving(task childTask) int {
	limit := syscall.Rlimit{Cur: 128, Max: 128}
	err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	use := func() error {
		b, err := NewBroker("")
		if err == nil {
			err = b.Close()
		}
		return err
	}
	if task.Broker != "" {
		use = func() error {
			c, err := NewClient(task.Broker)
			if err == nil {
				_, err = c.OpenReader(context.Background(), "p")
				c.Close()
			}
			return err
		}
	}
	switch {
	case err != nil:
	case task.Pipe != "":
		err = starveBroker(task.Broker)
	default:
		worked := 0
		err = use() // so that Go's runtime has what it needs itself
		for but := range 20 {
			feed := starve(but)
			began := time.Now()
			few := use()
			feed()
			if few == nil {
				worked++
			} else if !errors.Is(few, syscall.EMFILE) || time.Since(began) > soon {
				err = errors.Join(err, fmt.Errorf("with %d descriptors, after %v: %w", but, time.Since(began), few))
			}
			err = errors.Join(err, use())
		}
		if worked == 0 || worked == 20 {
			err = errors.Join(err, fmt.Errorf("%d times of 20 the descriptors were enough", worked))
		}
	}
	if err != nil {
		fmt.Printf("%q\n", err)
		return 1
	}
	fmt.Println("ready")
	return 0
}

func starveBroker(name string) error {
	b, err := NewBroker(name)
	if err != nil {
		return err
	}
	defer b.Close()
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1)
	fmt.Println("ready")
	<-c
	feed := starve(0)
	fmt.Println("ready")
	<-c
	feed()
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	return nil
}

// Too few descriptors are an error of the call that needs them. libzmq would abort the
// process.
func TestSocketWithTooFewDescriptors(t *testing.T) {
	startChild(t, childTask{Part: "starving"}).ready()
	b := startBroker(t, BrokerConfig{})
	startChild(t, childTask{Part: "starving", Broker: b.Endpoints()[1]}).ready()
}

// A broker without descriptors takes no connection, and then does again.
func TestSocketOfABrokerWithoutDescriptors(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("libzmq may abort here; see socket_accept_linux.c")
	}
	name := uniqueName(t)
	broker := startChild(t, childTask{Part: "starving", Broker: name, Pipe: "p"}).ready()
	r := &rig{T: t, broker: name}
	r.client = r.newClient(ClientConfig{})
	rd, w := r.pipe("p")

	broker.signal(syscall.SIGUSR1)
	broker.ready()
	late := r.newClient(ClientConfig{Timeout: 300 * time.Millisecond})
	if _, err := late.OpenReader(t.Context(), "q"); !errors.Is(err, ErrNoBroker) {
		t.Errorf("a connection too many: %v", err)
	}
	w.WriteString("still there")
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(rd); string(got) != "still there" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}

	broker.signal(syscall.SIGUSR1)
	broker.ready()
	if _, err := r.newClient(ClientConfig{}).OpenReader(t.Context(), "q"); err != nil {
		t.Errorf("a connection when there are descriptors again: %v", err)
	}
}
