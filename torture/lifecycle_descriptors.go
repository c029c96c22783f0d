package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"syscall"
	"time"

	"github.com/pebbe/zmq4"
	"github.com/zpipes/zpipes"
)

func init() {
	parts["few descriptors"] = playFewDescriptors
	parts["hungry broker"] = playHungryBroker
}

const (
	descriptorLimit = 200
	hungryTimeout   = 300 * time.Millisecond // of clients that are not answered
	hungryLimit     = 3 * time.Second        // within which they must know
)

// A descriptorsFound is what both processes found.
type descriptorsFound struct {
	Failed, Worked int64 // calls with few descriptors
	Used           int64 // how often the pipe that was open was used meanwhile
	Slowest        time.Duration
}

func (f *descriptorsFound) took(since time.Time) error {
	d := time.Since(since)
	if f.Slowest = max(f.Slowest, d); d > hungryLimit {
		return fmt.Errorf("a call without descriptors took %v", d)
	}
	return nil
}

// descriptors starves a client's process for one half of the time, and a broker's for
// the other.
func descriptors(ctx context.Context, b *bench) (outcome, error) {
	broker, err := zpipes.NewBroker("")
	if err != nil {
		return outcome{}, err
	}
	defer broker.Close()
	half := *b
	half.until = time.Now().Add(time.Until(b.until) / 2)
	var few descriptorsFound
	if err := half.run(task{Part: "few descriptors", Broker: broker.Endpoints()[1]}, &few, nil); err != nil {
		return outcome{}, err
	}
	refused, err := starveBroker(b)
	if err != nil {
		return outcome{}, err
	}
	return outcome{
		times: few.Failed + few.Worked + refused.Failed,
		found: fmt.Sprintf("with few descriptors %d calls worked and %d failed with EMFILE; a broker without any kept %d clients waiting; "+
			"the slowest failed after %v; all worked again afterwards, and open pipes %d times in between",
			few.Worked, few.Failed, refused.Failed,
			brief(max(few.Slowest, refused.Slowest)), few.Used+refused.Used),
	}, nil
}

// lowerLimit lets this process have few descriptors.
func lowerLimit() error {
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: descriptorLimit, Max: descriptorLimit})
}

// starve uses up all descriptors but so many, and returns how to give them back.
func starve(but int) (feed func()) {
	var taken []int
	for {
		fd, err := syscall.Open("/", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if err != nil {
			break
		}
		taken = append(taken, fd)
	}
	for range min(but, len(taken)) {
		syscall.Close(taken[0])
		taken = taken[1:]
	}
	return func() {
		for _, fd := range taken {
			syscall.Close(fd)
		}
	}
}

// A lasting is a pipe that stays open.
type lasting struct {
	r *zpipes.Reader
	w *zpipes.Writer
	o oracle
}

func openLasting(c *zpipes.Client) (*lasting, error) {
	w, err := c.OpenWriter(background, "lasting")
	if err != nil {
		return nil, err
	}
	r, err := c.OpenReader(background, "lasting")
	return &lasting{r: r, w: w}, err
}

// use sends something through the pipe.
func (l *lasting) use() error {
	b := make([]byte, 1000)
	fill(b, l.o.seed, l.o.off)
	if _, err := l.w.Write(b); err != nil {
		return err
	}
	l.r.SetReadDeadline(time.Now().Add(patience))
	got := make([]byte, len(b))
	if _, err := io.ReadFull(l.r, got); err != nil {
		return err
	}
	return l.o.check(got)
}

func playFewDescriptors(t task) error {
	stop := untilToldTo()
	if err := lowerLimit(); err != nil {
		return err
	}
	client, err := zpipes.NewClient(t.Broker)
	if err != nil {
		return err
	}
	defer client.Close()
	pipe, err := openLasting(client)
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(t.Seed, 0))
	calls := []func() error{
		func() error {
			b, err := zpipes.NewBroker("")
			if err == nil {
				err = b.Close()
			}
			return err
		},
		func() error {
			return anew(t.Broker, func(c *zpipes.Client) error { _, err := c.Ping(background); return err })
		},
		func() error {
			return anew(t.Broker, func(c *zpipes.Client) error { _, err := c.OpenReader(background, "r"); return err })
		},
		func() error {
			return anew(t.Broker, func(c *zpipes.Client) error { _, err := c.OpenQueue(background, "q"); return err })
		},
		func() error { _, err := client.Ping(background); return err }, // which needs none
	}
	var found descriptorsFound
	const most = 12
	for once := true; once || !closed(stop); once = false {
		for but := range most {
			call := calls[rng.IntN(len(calls))]
			feed := starve(but)
			began := time.Now()
			err := finish(patience, "a call with few descriptors", call)
			late := found.took(began)
			used := pipe.use()
			feed()
			switch {
			case err == nil:
				found.Worked++
			case errors.Is(err, syscall.EMFILE) || errors.Is(err, zmq4.Errno(syscall.EMFILE)):
				found.Failed++
			default:
				return fmt.Errorf("with %d descriptors: %w", but, err)
			}
			if err := errors.Join(late, used, call()); err != nil {
				return fmt.Errorf("after %d descriptors: %w", but, err)
			}
			found.Used++
		}
	}
	return tell(found)
}

// anew does something with a client of its own.
func anew(broker string, f func(*zpipes.Client) error) error {
	c, err := zpipes.ClientConfig{Timeout: hungryTimeout}.NewClient(broker)
	if err != nil {
		return err
	}
	return errors.Join(f(c), c.Close())
}

// playHungryBroker has a broker. For each line that it is told it uses up all
// descriptors, or gives them back, by turns, and does what it can without any.
func playHungryBroker(t task) error {
	if err := lowerLimit(); err != nil {
		return err
	}
	broker, err := zpipes.NewBroker("")
	if err != nil {
		return err
	}
	defer broker.Close()
	client := broker.Client()
	defer client.Close()
	say("%s", broker.Endpoints()[1])
	var feed func()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if feed == nil {
			feed = starve(0)
		} else {
			feed()
			feed = nil
		}
		r, err := client.OpenReader(background, "direct")
		if err != nil {
			return err
		}
		r.Close()
		say("done")
	}
	return nil
}

// starveBroker is the other side of it.
func starveBroker(b *bench) (found descriptorsFound, err error) {
	c, err := startChild(task{Part: "hungry broker", Seed: b.rand.Uint64()})
	if err != nil {
		return found, err
	}
	defer c.kill()
	endpoint, err := c.line()
	if err != nil {
		return found, err
	}
	client, err := zpipes.NewClient(endpoint)
	if err != nil {
		return found, err
	}
	defer client.Close()
	pipe, err := openLasting(client)
	if err != nil {
		return found, err
	}
	turn := func() error {
		if _, err := fmt.Fprintln(c.stdin); err != nil {
			return err
		}
		line, err := c.line()
		if err == nil && line != "done" {
			err = fmt.Errorf("the broker's process said %q", line)
		}
		return err
	}
	ping := func(c *zpipes.Client) error { _, err := c.Ping(background); return err }
	for once := true; once || b.more(); once = false {
		if err := turn(); err != nil {
			return found, err
		}
		began := time.Now()
		if err := anew(endpoint, ping); !errors.Is(err, zpipes.ErrNoBroker) {
			return found, fmt.Errorf("at a broker without descriptors: %w", err)
		}
		found.Failed++
		if err := errors.Join(found.took(began), pipe.use(), turn()); err != nil {
			return found, err
		}
		found.Used++
		back := func(c *zpipes.Client) error {
			ctx, cancel := context.WithTimeout(background, patience)
			defer cancel()
			for {
				if err := ping(c); err == nil || ctx.Err() != nil {
					return err
				}
			}
		}
		if err := errors.Join(anew(endpoint, back), pipe.use()); err != nil {
			return found, fmt.Errorf("at a broker that has descriptors again: %w", err)
		}
	}
	c.stdin.Close()
	return found, c.cmd.Wait()
}
