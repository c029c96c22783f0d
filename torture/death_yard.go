package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/zpipes/zpipes"
)

// A yard is a broker with a directory, in a process that can be killed and started again, and
// clients of it here.
type yard struct {
	name, dir string
	maxDisk   int64
	broker    *child
	clients   []*zpipes.Client
}

func newYard(number int64) (*yard, error) {
	dir, err := os.MkdirTemp("", "torture-")
	if err != nil {
		return nil, err
	}
	y, err := newYardAt(dir, number)
	if err == nil {
		err = y.start()
	}
	if err != nil {
		os.RemoveAll(dir)
	}
	return y, err
}

func newYardAt(dir string, number int64) (*yard, error) {
	y := &yard{name: fmt.Sprintf("torture-yard-%d-%d", os.Getpid(), number), dir: dir}
	for _, at := range []string{y.name, y.at(fate{})} {
		client, err := zpipes.NewClient(at)
		if err != nil {
			return nil, err
		}
		y.clients = append(y.clients, client)
	}
	return y, nil
}

func (y *yard) queues() string { return filepath.Join(y.dir, "queues") }

// at is where the broker is found.
func (y *yard) at(f fate) string {
	if f.Near {
		return y.name
	}
	return "ipc://@/zpipes/" + y.name
}

func (y *yard) start() (err error) {
	y.broker, err = startBroker(y.task())
	return err
}

func (y *yard) task() task {
	return task{Part: "broker", Broker: y.name, Dir: y.queues(), MaxDisk: y.maxDisk}
}

func (y *yard) client(r *rand.Rand) *zpipes.Client { return y.clients[r.IntN(len(y.clients))] }

func (y *yard) end() {
	for _, c := range y.clients {
		c.Close()
	}
	if y.broker != nil {
		y.broker.kill()
	}
	os.RemoveAll(y.dir)
}

// pipe is what the broker says of a queue.
func (y *yard) pipe(name string) (info zpipes.PipeInfo, err error) {
	s, err := y.clients[0].Status(background)
	for _, p := range s.Pipes {
		if p.Name == name {
			info = p
		}
	}
	return info, err
}

// settle waits until nothing is left in the broker, nor on the disk.
func (y *yard) settle() error {
	var s zpipes.Status
	var left []string
	err := eventually(patience, "a broker without queues", func() bool {
		s, _ = y.clients[0].Status(background)
		left, _ = filepath.Glob(filepath.Join(y.queues(), "[0-9]*"))
		return s.Name != "" && len(s.Pipes) == 0 && s.Stats.Clients <= len(y.clients) && len(left) == 0
	})
	if err != nil {
		return fmt.Errorf("%w: %+v; on the disk are %q", err, s, left)
	}
	return nil
}
