package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/zpipes/zpipes"
	"github.com/zpipes/zpipes/cluster"
)

// Brokers of a cluster of two, in one process.

// otherMember is behind the name of the first one in that of the second.
const otherMember = "-other"

// serveCluster starts them, and waits until they are linked, and know of each other all that there is.
func (p *pipes) serveCluster() (*zpipes.Broker, error) {
	file := filepath.Join(p.Dir, "key")
	if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
		return nil, err
	}
	first, at, err := newMember("", file)
	if err != nil {
		return nil, err
	}
	if _, _, err := newMember(first.Name()+otherMember, file, at); err != nil {
		return nil, err
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		for m := range first.Members() {
			if m.State == zpipes.MemberLinked && opensAtOnce(first.Name()) {
				return first, nil
			}
		}
	}
	return nil, errors.New("two brokers were not linked")
}

// opensAtOnce says that a broker does not wait for what others have yet to tell, as it does in the first second of
// a link.
func opensAtOnce(broker string) bool {
	c, err := zpipes.NewClient(broker)
	if err != nil {
		return false
	}
	defer c.Close()
	begin := time.Now()
	w, err := c.OpenWriter(context.Background(), "settled")
	if err != nil {
		return false
	}
	w.CloseWithError(errors.New("a trial"))
	return time.Since(begin) < 50*time.Millisecond
}

// newMember starts a broker of a cluster.
func newMember(name, file string, join ...string) (b *zpipes.Broker, at string, err error) {
	if at, err = freePort(); err != nil {
		return nil, "", err
	}
	b, err = zpipes.BrokerConfig{Cluster: cluster.Config{KeyFile: file, Listen: at, Join: join}}.NewBroker(name)
	return b, at, err
}
