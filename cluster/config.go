// Package cluster makes zpipes brokers of several machines act as one:
//
//	zpipes.BrokerConfig{Cluster: cluster.Config{
//		KeyFile: "cluster.key", // made by "zpipes key", the same on each machine
//		Join:    []string{"hostA", "hostB"},
//	}}.NewBroker("local")
//
// What is opened at one of the brokers finds its other end at whichever it is
// opened. Brokers connect to each other over TLS 1.3, on one tcp port. Who has
// the secret belongs to the cluster; there are no certificates to be made. See
// docs/MACHINES.md.
package cluster

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/zpipes/zpipes"
)

// Config is how a broker takes part in a cluster. It is a zpipes.Cluster, for
// zpipes.BrokerConfig.Cluster.
type Config struct {
	// KeyFile has the secret, as "zpipes key" writes it, which is the same on
	// all machines. It may have several, the one in use first, while one replaces another: when
	// the file changes, the broker reads it again within a few seconds, and ends
	// connections by a secret that is not there any more.
	KeyFile string

	// Listen is the address at which other brokers connect to this one, by tcp; default ":7900".
	Listen string

	// Advertise is where others reach Listen, if that is another address, such
	// as that of a NAT: HOST or HOST:PORT. Default: the address from which this
	// broker comes to them, and the port of Listen.
	Advertise string

	// Join are brokers of the cluster, HOST or HOST:PORT, with which to begin; one is
	// enough to find all. They are tried again for ever, and looked up each
	// time; it does no harm if one is this very broker, so each can have the
	// same list. A name may be that of several hosts.
	Join []string

	// Patience is how long a machine may be out of reach before what is open
	// across fails; default 10 s.
	Patience time.Duration
}

const (
	defaultPort     = "7900"
	defaultPatience = 10 * time.Second
)

// Open begins to listen; NewBroker calls it.
func (cfg Config) Open(host zpipes.ClusterHost) (zpipes.ClusterPort, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	keys, err := readKeys(cfg.KeyFile)
	if err != nil {
		return nil, err
	}
	l, err := listen(cfg.Listen)
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if strings.HasSuffix(cfg.Advertise, ":") {
		cfg.Advertise += port
	}
	p := newPort(cfg, host, l, keys)
	p.start()
	return p, nil
}

// freeTime is how long a start waits for a port that is taken.
const freeTime = time.Second

// listen is net.Listen, but waits a little where the port is taken: a process that starts a
// program leaves its listeners to the child until that executes it, also those that it has closed.
func listen(address string) (net.Listener, error) {
	for end := time.Now().Add(freeTime); ; time.Sleep(5 * time.Millisecond) {
		l, err := net.Listen("tcp", address)
		if !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(end) {
			return l, err
		}
	}
}

func (cfg Config) withDefaults() (Config, error) {
	if cfg.KeyFile == "" {
		return cfg, errors.New("Config.KeyFile is needed: the file with the secret that all brokers of the cluster have; zpipes key makes one")
	}
	if cfg.Patience < 0 {
		return cfg, errors.New("Config.Patience is negative; use zero for the default")
	}
	if cfg.Patience == 0 {
		cfg.Patience = defaultPatience
	}
	if cfg.Listen == "" {
		cfg.Listen = ":" + defaultPort
	}
	if _, _, err := net.SplitHostPort(cfg.Listen); err != nil {
		return cfg, fmt.Errorf("Config.Listen is %q; it is [HOST]:PORT", cfg.Listen)
	}
	if cfg.Advertise == "" {
		// The address from which it comes to them has the port of Listen.
		host, _, _ := net.SplitHostPort(cfg.Listen)
		if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() {
			cfg.Advertise = net.JoinHostPort(host, "")
		} else {
			cfg.Advertise = ":"
		}
	} else {
		// That of Listen, if there is none.
		if host, port, err := net.SplitHostPort(cfg.Advertise); err != nil {
			cfg.Advertise = net.JoinHostPort(strings.Trim(cfg.Advertise, "[]"), "")
		} else if host == "" || !isPort(port) {
			return cfg, fmt.Errorf("Config.Advertise is %q; it is HOST or HOST:PORT", cfg.Advertise)
		}
	}
	join := make([]string, 0, len(cfg.Join))
	for _, address := range cfg.Join {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			host, port = strings.Trim(address, "[]"), defaultPort
		}
		if host == "" || !isPort(port) {
			return cfg, fmt.Errorf("Config.Join has %q; it is HOST or HOST:PORT", address)
		}
		join = append(join, net.JoinHostPort(host, port))
	}
	cfg.Join = join
	return cfg, nil
}

func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}
