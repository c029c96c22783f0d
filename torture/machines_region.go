package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zpipes/zpipes"
	"github.com/zpipes/zpipes/cluster"
	"github.com/zpipes/zpipes/torture/netrig"
)

// Several machines: hosts in network namespaces, each with a broker, and processes with ends.

// regionPatience is how long the brokers of a region wait for a host that is out of reach.
const regionPatience = 4 * time.Second

// How a region's broker comes to the others, or what serves clients of other hosts.
type setup struct {
	Name     string // the broker's
	KeyFile  string
	Join     []string // other brokers; without any, its clients come from other hosts
	At       string   // where others reach it, if that is not its own address
	Patience time.Duration
	Dir      string // of its durable queues
}

func init() { parts["machine"] = playMachine }

// tcpPort is where clients of other hosts come in, and clusterPort where brokers do.
const (
	tcpPort     = "7901"
	clusterPort = "7900"
)

// A logEnd is the last lines of a log.
type logEnd struct {
	mu    sync.Mutex // guards lines
	lines []string
}

const tailLines = 40

func (t *logEnd) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines[max(0, len(t.lines)-tailLines+1):], string(b))
	return len(b), nil
}

func (t *logEnd) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, "")
}

// playMachine runs the broker of a host. For each line that it reads it says how many brokers
// are linked, itself included, how many are missing, what it knows of each, and the end of its log; or, if
// the line has a queue's name, whether its home is there (1, else 0), and what it knows of it.
func playMachine(t task) error {
	log := new(logEnd)
	cfg := zpipes.BrokerConfig{Logger: slog.New(slog.NewTextHandler(log, nil))}
	if t.Setup.Join != nil {
		cfg.Dir = t.Setup.Dir
		cfg.Cluster = cluster.Config{KeyFile: t.Setup.KeyFile, Listen: ":" + clusterPort, Advertise: t.Setup.At, Join: t.Setup.Join, Patience: t.Setup.Patience}
	} else {
		key, err := zpipes.ReadKey(t.Setup.KeyFile)
		if err != nil {
			return err
		}
		cfg.Key, cfg.Endpoints = key, []string{"tcp://*:" + tcpPort}
	}
	b, err := cfg.NewBroker(t.Setup.Name)
	if err != nil {
		return err
	}
	defer b.Close()
	say("up")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		n, missing := 0, 0
		if queue := in.Text(); queue != "" {
			var info zpipes.PipeInfo
			for p := range b.Pipes() {
				if p.Name == queue {
					info = p
				}
			}
			if info.Name != "" && info.HomeAt == "" {
				n = 1
			}
			say("%d %+v", n, info)
			continue
		}
		var states []string
		for m := range b.Members() {
			states = append(states, m.Name+" "+m.Address+" "+m.State+" "+m.Why)
			if m.State == zpipes.MemberMissing {
				missing++
			} else {
				n++
			}
		}
		say("%d %d %s; %q", n, missing, strings.Join(states, "; "), log)
	}
	return nil
}

// A region is such hosts.
type region struct {
	net      *netrig.Net
	dir      string
	number   string
	hidden   bool     // all hosts but the first are behind routers, and each broker knows that of the first alone
	linked   bool     // the brokers of all hosts are one; else the first one has the only broker
	machines []*child // by host
	lost     []bool   // its broker does not run
	patience time.Duration
}

// regions is how many this process has made.
var regions atomic.Int64

// errNoRegion says why there can be none here.
var errNoRegion = errors.New("hosts can't be made here, which takes root")

// linkedRegion is one as most trials have it.
func linkedRegion() (*region, error) { return newRegion(regionHosts, true) }

func newRegion(hosts int, linked bool) (s *region, err error) {
	return newRegionOf(hosts, linked, false, regionPatience, netrig.Conditions{})
}

// newRegionOf makes hosts whose brokers have that patience, and such a wire; for offload see netrig.
func newRegionOf(hosts int, linked, offload bool, waits time.Duration, wire netrig.Conditions) (s *region, err error) {
	w, err := netrig.New(hosts, offload)
	if err == nil {
		w.All(wire)
	}
	return (&region{net: w, linked: linked, patience: waits}).begin(hosts, err)
}

// forwarded is the port at which routers let others in.
const forwarded = 17900

func hiddenRegion() (s *region, err error) {
	port, err := strconv.Atoi(clusterPort)
	if err != nil {
		return nil, err
	}
	w, err := netrig.NewHidden(regionHosts, netrig.Forward{Outside: forwarded, Inside: uint16(port)})
	return (&region{net: w, hidden: true, linked: true, patience: regionPatience}).begin(regionHosts, err)
}

// begin has the hosts' brokers begin, unless there was an error.
func (s *region) begin(hosts int, err error) (*region, error) {
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoRegion, err)
	}
	dir, err := os.MkdirTemp("", "zpipes-torture-")
	if err != nil {
		s.net.Close()
		return nil, err
	}
	s.dir, s.number = dir, fmt.Sprint(os.Getpid(), "-", regions.Add(1))
	s.machines, s.lost = make([]*child, hosts), make([]bool, hosts)
	err = os.WriteFile(s.keyFile(), []byte(zpipes.NewKey().Secret()), 0o600)
	for i := range hosts {
		if err == nil && (s.linked || i == 0) {
			err = s.boot(i)
		}
	}
	if err == nil {
		err = s.meet()
	}
	if err != nil {
		s.end()
		return nil, err
	}
	return s, nil
}

func (s *region) keyFile() string { return filepath.Join(s.dir, "key") }

// broker is the name of a host's.
func (s *region) broker(i int) string { return fmt.Sprintf("region-%s-%d", s.number, i) }

// boot starts a host's broker.
func (s *region) boot(i int) error {
	t := setup{Name: s.broker(i), KeyFile: s.keyFile(), Patience: s.patience, Dir: filepath.Join(s.dir, fmt.Sprint("queues-", i))}
	if s.hidden {
		if t.Join = []string{s.net.Host(0).Addr.String()}; i > 0 {
			t.At = fmt.Sprintf("%v:%d", s.net.Host(i).Addr, forwarded)
		}
	}
	for j := range s.machines {
		if s.linked && !s.hidden && j != i {
			t.Join = append(t.Join, s.net.Host(j).Addr.String())
		}
	}
	c, err := startChildAt(s.net.Host(i), task{Part: "machine", Setup: t})
	if err != nil {
		return err
	}
	if line, err := within(patience, "a broker that starts", c.line); line != "up" {
		c.kill()
		return fmt.Errorf("the broker of a host said %q, %v", line, err)
	}
	s.machines[i], s.lost[i] = c, false
	return nil
}

// members is how many brokers a host's has links with, itself included, and what it says of them: see playMachine.
func (s *region) members(i int) (n int, all string, err error) {
	return s.ask(i, "")
}

// ask has a host's broker answer a line with a number.
func (s *region) ask(i int, line string) (n int, all string, err error) {
	all, err = within(patience, "a broker's answer", func() (string, error) {
		if _, err := io.WriteString(s.machines[i].stdin, line+"\n"); err != nil {
			return "", err
		}
		return s.machines[i].line()
	})
	if err == nil {
		_, err = fmt.Sscan(all, &n)
	}
	return n, all, err
}

// homes is how many brokers say that they are a queue's home, and what each says of it.
func (s *region) homes(queue string) (all int, what string, err error) {
	for i := range s.machines {
		n, line, err := s.ask(i, queue)
		if err != nil {
			return 0, "", err
		}
		all += n
		what += "; " + line
	}
	return all, what, nil
}

// tells is what each broker knows of a pipe, and of the others.
func (s *region) tells(pipe string) string {
	var all strings.Builder
	for i, m := range s.machines {
		if m == nil {
			continue
		}
		for _, line := range []string{pipe, ""} {
			_, what, err := s.ask(i, line)
			fmt.Fprintf(&all, "\n  host %d: %s", i, what)
			if err != nil {
				fmt.Fprint(&all, err)
				break
			}
		}
	}
	return all.String()
}

// meet waits until all brokers see each other, and nobody else is missed.
func (s *region) meet() error {
	if !s.linked {
		return nil
	}
	var err error
	var last string
	met := await(patience, func() bool {
		for i := range s.machines {
			n, missing := 0, 0
			if _, last, err = s.members(i); err == nil {
				_, err = fmt.Sscan(last, &n, &missing)
			}
			if err != nil {
				return true
			}
			if n != len(s.machines) || missing > 0 {
				return false
			}
		}
		return true
	})
	if err == nil && !met {
		err = fmt.Errorf("%w: %s", hangs("a broker that should be linked with all others", patience), last)
	}
	return err
}

// end takes all away.
func (s *region) end() {
	for _, c := range s.machines {
		if c != nil {
			c.kill()
		}
	}
	s.net.Close()
	os.RemoveAll(s.dir)
}

// at is where a process on a host finds its broker.
func (s *region) at(i int) (broker, keyFile string) {
	if s.linked {
		return s.broker(i), ""
	}
	return "tcp://" + s.net.Host(0).Addr.String() + ":" + tcpPort, s.keyFile()
}

// A passenger is a stream between two hosts.
type passenger struct {
	pipe string
	at   [2]int // the hosts of its writer and its reader
	ends [2]*victim
}

func (s *region) board(c *cycle, number int, hosts []int) (*passenger, error) {
	p := &passenger{pipe: c.name(fmt.Sprintf("stream-%d", number))}
	seed := c.rand.Uint64()
	for _, k := range c.rand.Perm(2) { // either end may be the first
		p.at[k] = hosts[c.rand.IntN(len(hosts))]
		broker, key := s.at(p.at[k])
		f := fate{Roles: string("wr"[k]), Finite: true, KeyFile: key, Timeout: patience} // a slow link may take longer than a client waits
		v, err := startVictimAt(s.net.Host(p.at[k]), "victim", broker, p.pipe, seed, f)
		if err != nil {
			p.end()
			return nil, err
		}
		p.ends[k] = v
	}
	return p, nil
}

func (p *passenger) end() {
	for _, v := range p.ends {
		if v != nil {
			v.kill()
		}
	}
}

// over says that neither of its ends that still live has more to say.
func (p *passenger) over() bool {
	for _, v := range p.ends {
		if !closed(v.ended) && !v.all((*ledger).over) {
			return false
		}
	}
	return true
}

// said is how many lines its ends have said.
func (p *passenger) said() (n int) {
	for _, v := range p.ends {
		v.ask(func() bool { n += v.lines; return true })
	}
	return n
}

// apart says that the ends may never have met: nothing was confirmed, and nothing read. Then
// one that is over leaves the other one waiting for the next.
func (p *passenger) apart() bool {
	return p.ends[0].all(func(l *ledger) bool { return l.confirmed == 0 && !l.closed }) &&
		p.ends[1].all(func(l *ledger) bool { return l.read == 0 && l.end < 0 })
}

func (p *passenger) states() string {
	return fmt.Sprintf("%q from host %d (%s) to host %d (%s)", p.pipe, p.at[0], p.ends[0].states(), p.at[1], p.ends[1].states())
}

// judge compares what both have said; for whole see judgeBetween.
func (p *passenger) judge(whole bool) error {
	return judgeBetween(p.ends[0].ledgers[0], p.ends[1].ledgers[0], whole)
}

// judgeBetween compares what both ends of a stream have said. whole: nothing has happened that
// it need not survive.
func judgeBetween(w, r *ledger, whole bool) error {
	switch {
	case w.wrong != "" || r.wrong != "":
		return errors.New(w.wrong + r.wrong)
	case whole && (!w.closed || r.end < 0):
		return errors.New("the stream should have come through")
	case r.end >= 0 && r.end != w.closing:
		return fmt.Errorf("SILENT: the reader had a clean end behind %d bytes, and the writer closed behind %d", r.end, w.closing)
	case w.closed && r.end != w.closing && classOf(r.failed) != "gone" && r.failed != "":
		return fmt.Errorf("LOST: the writer has closed behind %d bytes, and the reader has %d and %s", w.closing, r.read, r.failed)
	}
	return nil
}

// weather is what a healthy wire is like.
func weather(r *rand.Rand) netrig.Conditions {
	return netrig.Conditions{
		Delay: time.Duration(r.IntN(20)) * time.Millisecond / time.Duration(1+r.IntN(8)),
		Rate:  1 << (22 + r.IntN(4)), Queue: 256 << 10,
	}
}
