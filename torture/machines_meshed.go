package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/zpipes/zpipes"
	"github.com/zpipes/zpipes/cluster"
)

func init() { parts["meshed"] = playMeshed }

// A meshedFound is what many brokers take that have nothing to do.
type meshedFound struct {
	Met     time.Duration // until all are linked with all others
	Core    float64       // share of one
	Bytes   int64         // resident
	Missing int           // links that were lost meanwhile
}

const (
	meshedBrokers = 100
	meshedTime    = 10 * time.Second
	// meetingTime is how long they may take to meet: each of the 4950 links costs a handshake.
	meetingTime = 2 * time.Minute
)

// measureMeshed has a process of its own do it.
func measureMeshed(brokers int) (string, error) {
	c, err := startChild(task{Part: "meshed", Stint: stint{Brokers: brokers}})
	if err != nil {
		return "", err
	}
	defer c.kill()
	var got meshedFound
	if err := c.result(&got, meetingTime+meshedTime+patience); err != nil {
		return "", err
	}
	if got.Missing > 0 {
		return "", fmt.Errorf("%d links are missing between brokers that do nothing", got.Missing)
	}
	return fmt.Sprintf("met within %v; %.0f %% of a core, %.0f MB", brief(got.Met), 100*got.Core, float64(got.Bytes)/1e6), nil
}

// playMeshed runs many brokers of one cluster, on this host, and looks what they take while they are idle.
func playMeshed(t task) error {
	dir, err := os.MkdirTemp("", "zpipes-torture-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte(zpipes.NewKey().Secret()), 0o600); err != nil {
		return err
	}
	var all []*zpipes.Broker
	var join []string
	began := time.Now()
	for range t.Stint.Brokers {
		address, err := freeAddress()
		if err != nil {
			return err
		}
		cfg := zpipes.BrokerConfig{Endpoints: []string{}, Cluster: cluster.Config{KeyFile: key, Listen: address, Advertise: address, Join: join}}
		b, err := cfg.NewBroker("")
		if err != nil {
			return err
		}
		if all = append(all, b); len(join) < 3 {
			join = append(join, address)
		}
	}
	if err := eventually(meetingTime, "brokers that meet", func() bool {
		time.Sleep(50 * time.Millisecond)
		return missing(all) == 0
	}); err != nil {
		return err
	}
	got := meshedFound{Met: time.Since(began)}
	debug.FreeOSMemory() // of the handshakes
	before, began := coreTime(), time.Now()
	time.Sleep(meshedTime)
	got.Core = (coreTime() - before).Seconds() / time.Since(began).Seconds()
	u, err := use()
	if err != nil {
		return err
	}
	got.Bytes, got.Missing = u.Resident, missing(all)
	return tell(got)
}

// missing is how many links there are not.
func missing(all []*zpipes.Broker) int {
	n := len(all) * len(all)
	for _, b := range all {
		for m := range b.Members() {
			if m.State != zpipes.MemberMissing {
				n--
			}
		}
	}
	return n
}

// coreTime is what this process has used of the processors.
func coreTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// freeAddress is one at which nobody listened a moment ago. Its port is below those that the system gives to who asks
// for any.
func freeAddress() (string, error) {
	for {
		address := fmt.Sprint("127.0.0.1:", 20_000+rand.IntN(10_000))
		l, err := net.Listen("tcp", address)
		switch {
		case err == nil:
			return address, l.Close()
		case !errors.Is(err, syscall.EADDRINUSE):
			return "", err
		}
	}
}
