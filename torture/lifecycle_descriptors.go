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
	if err := half.run(task{Part: "few descriptors", Broker: broker.Name()}, &few, nil); err != nil {
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

// limitDescriptors lets this process have no more.
func limitDescriptors(most uint64) error {
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: most, Max: most})
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

func openLasting(c *zpipes.Client, name string) (*lasting, error) {
	w, err := c.OpenWriter(background, name)
	if err != nil {
		return nil, err
	}
	r, err := c.OpenReader(background, name)
	return &lasting{r: r, w: w}, err
}

func useAll(pipes []*lasting) (err error) {
	for _, l := range pipes {
		err = errors.Join(err, l.use())
	}
	return err
}

// waysTo are the ways to the broker of a name, from another process: near, and over ipc.
func waysTo(broker string) []string { return []string{broker, "ipc://@/zpipes/" + broker} }

func ping(c *zpipes.Client) error { _, err := c.Ping(background); return err }

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
	if err := limitDescriptors(descriptorLimit); err != nil {
		return err
	}
	calls := []func() error{
		func() error {
			b, err := zpipes.NewBroker("")
			if err == nil {
				err = b.Close()
			}
			return err
		},
	}
	var pipes []*lasting
	for _, at := range waysTo(t.Broker) {
		client, err := zpipes.NewClient(at)
		if err != nil {
			return err
		}
		defer client.Close()
		pipe, err := openLasting(client, at)
		if err != nil {
			return err
		}
		pipes = append(pipes, pipe)
		calls = append(calls,
			func() error { return anew(at, ping) },
			func() error {
				return anew(at, func(c *zpipes.Client) error { _, err := c.OpenReader(background, "r"); return err })
			},
			func() error {
				return anew(at, func(c *zpipes.Client) error { _, err := c.OpenQueue(background, "q"); return err })
			},
			func() error { return ping(client) }, // which needs none
		)
	}
	rng := rand.New(rand.NewPCG(t.Seed, 0))
	var found descriptorsFound
	const most = 12
	for once := true; once || !closed(stop); once = false {
		for but := range most {
			call := calls[rng.IntN(len(calls))]
			feed := starve(but)
			began := time.Now()
			err := finish(patience, "a call with few descriptors", call)
			late := found.took(began)
			used := useAll(pipes)
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
	if err := limitDescriptors(descriptorLimit); err != nil {
		return err
	}
	broker, err := zpipes.NewBroker("")
	if err != nil {
		return err
	}
	defer broker.Close()
	client := broker.Client()
	defer client.Close()
	say("%s", broker.Name())
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
	broker, err := c.line()
	if err != nil {
		return found, err
	}
	var pipes []*lasting
	for _, at := range waysTo(broker) {
		client, err := zpipes.NewClient(at)
		if err != nil {
			return found, err
		}
		defer client.Close()
		pipe, err := openLasting(client, at)
		if err != nil {
			return found, err
		}
		pipes = append(pipes, pipe)
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
	for once := true; once || b.more(); once = false {
		if err := turn(); err != nil {
			return found, err
		}
		for _, at := range waysTo(broker) {
			began := time.Now()
			if err := anew(at, ping); !errors.Is(err, zpipes.ErrNoBroker) {
				return found, fmt.Errorf("%s: at a broker without descriptors: %w", at, err)
			}
			found.Failed++
			if err := found.took(began); err != nil {
				return found, err
			}
		}
		if err := errors.Join(useAll(pipes), turn()); err != nil {
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
		for _, at := range waysTo(broker) {
			if err := errors.Join(anew(at, back), useAll(pipes)); err != nil {
				return found, fmt.Errorf("%s: at a broker that has descriptors again: %w", at, err)
			}
		}
	}
	c.stdin.Close()
	return found, c.cmd.Wait()
}
