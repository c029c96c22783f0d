package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/zpipes/zpipes"
)

// machineCalls tries connections between hosts whose brokers are one.
func machineCalls(ctx context.Context, b *bench) (outcome, error) {
	return onHosts(ctx, b, machineKinds, []string{"short cut", "end killed"}, (*graveyard).tour)
}

// onHosts has cycles of those kinds at hosts whose brokers are one, or only of the brief ones where there is
// but a moment.
func onHosts(ctx context.Context, b *bench, kinds, brief []string, do func(*graveyard, *region, *cycle) error) (outcome, error) {
	s, err := newRegion(regionHosts, true)
	if errors.Is(err, errNoRegion) {
		return outcome{found: err.Error()}, nil
	}
	if err != nil {
		return outcome{}, err
	}
	defer s.end()
	if b.scale < 0.01 {
		kinds = brief
	}
	g := newGraveyard(b, kinds...)
	return g.run(ctx, 1, func(_ context.Context, c *cycle) error { return do(g, s, c) })
}

// A call is a connection between two hosts.
type call struct {
	pipe string
	at   [2]int     // the hosts of who dials and who listens
	ends [2]*victim // the first ledger of each is what it writes, the second what it reads
}

// callsAtOnce is how many a cycle has, besides those of the booths.
const callsAtOnce = 3

func (s *region) call(c *cycle, number int) (*call, error) {
	l := &call{pipe: c.name(fmt.Sprintf("call-%d", number))}
	seed := c.rand.Uint64()
	for _, k := range c.rand.Perm(2) {
		l.at[k] = c.rand.IntN(len(s.machines))
		f := fate{Roles: "wr", Far: true, Listens: k == 1, Timeout: patience}
		v, err := startVictimAt(s.net.Host(l.at[k]), "caller", s.broker(l.at[k]), l.pipe, seed, f)
		if err != nil {
			l.end()
			return nil, err
		}
		l.ends[k] = v
	}
	return l, nil
}

func (l *call) end() {
	for _, v := range l.ends {
		if v != nil {
			v.kill()
		}
	}
}

// over says that neither of its ends that still live has more to say.
func (l *call) over() bool {
	for _, v := range l.ends {
		if !closed(v.ended) && !v.all((*ledger).over) {
			return false
		}
	}
	return true
}

// apart says that one of its ends has no connection, so that the other one waits for the next.
func (l *call) apart() bool {
	for _, v := range l.ends {
		if v.all(func(l *ledger) bool { return l.said["opened"] == 0 }) {
			return true
		}
	}
	return false
}

func (l *call) judge(whole bool) error {
	for _, v := range l.ends {
		v.mu.Lock()
		defer v.mu.Unlock()
	}
	a, b := l.ends[0].ledgers, l.ends[1].ledgers
	return errors.Join(judgeBetween(a[0], b[1], whole), judgeBetween(b[0], a[1], whole))
}

func (l *call) states() string {
	return fmt.Sprintf("%q from host %d (%s) to host %d (%s)", l.pipe, l.at[0], l.ends[0].states(), l.at[1], l.ends[1].states())
}

// tour is a cycle: some connections that carry much, and at each host a booth that makes one after the
// other, while something happens.
func (g *graveyard) tour(s *region, c *cycle) error {
	fair := weather(c.rand)
	if g.b.scale >= 0.01 {
		fair.Rate /= 4 // so that connections last
	}
	s.net.All(fair)
	var booths []*booth
	var all []*call
	defer func() {
		for _, x := range all {
			x.end()
		}
		for _, x := range booths {
			x.kill()
		}
	}()
	for i := range s.machines {
		x, err := s.booth(c, i)
		if err != nil {
			return err
		}
		booths = append(booths, x)
	}
	if err := answered(booths, patience); err != nil {
		return err
	}
	for k := range callsAtOnce {
		x, err := s.call(c, k)
		if err != nil {
			return err
		}
		all = append(all, x)
	}
	struck, v := all[0], all[0].ends[c.rand.IntN(2)]
	if c.rand.IntN(4) > 0 {
		if err := eventually(patience, "a connection", func() bool { return v.all((*ledger).opened) }); err != nil {
			return fmt.Errorf("%w: %s", err, struck.states())
		}
	}
	time.Sleep(time.Duration(c.rand.IntN(300)) * time.Millisecond)
	var crew []*child
	for _, x := range booths {
		crew = append(crew, x.child)
	}
	for _, x := range all {
		crew = append(crew, x.ends[0].child, x.ends[1].child)
	}
	st := s.storm(c, fair, v.child, crew...)
	for _, x := range all {
		x.ends[0].ask(func() bool { g.died("connections in "+c.kind, x.ends[0].ledgers[0].moment(), 0); return true })
	}
	if err := st.begin(); err != nil {
		return err
	}
	began := time.Now()
	time.Sleep(st.lasts)
	if err := st.end(); err != nil {
		return err
	}
	for _, x := range all {
		limit := notice + regionPatience
		if st.survived {
			limit = patience
		}
		if c.kind == "end killed" && closed(v.ended) && x == struck && x.apart() {
			limit = promised // it was known at once, or there is nothing to know
		}
		switch {
		case await(limit, x.over):
			if x == struck && c.kind == "end killed" && !x.apart() {
				g.took(c.kind, time.Since(began))
			}
		case !st.survived && x.apart():
			g.count("connections whose ends did not meet before", 1)
		default:
			return fmt.Errorf("%w: %s", hangs("an end", limit), x.states())
		}
	}
	for _, x := range all {
		whole := st.survived || x != struck && strings.HasPrefix(c.kind, "end ") ||
			st.hits != nil && !st.hits(x.at[0]) && !st.hits(x.at[1])
		if err := x.judge(whole); err != nil {
			return fmt.Errorf("%w: %s", err, x.states())
		}
	}
	if err := s.meet(); err != nil {
		return err
	}
	if err := answered(booths, patience); err != nil {
		return err
	}
	for _, x := range booths {
		if err := x.judge(g, st.survived || st.hits == nil, st.hits != nil && st.hits(x.host)); err != nil {
			return fmt.Errorf("the booth at host %d: %w", x.host, err)
		}
	}
	return nil
}

// A booth is a process of a host that listens, and dials the booths of all hosts, one after the other.
type booth struct {
	*victim
	host int
}

// wing is the number of a booth's name that has listeners at two hosts.
const wing = regionHosts

func (s *region) booth(c *cycle, host int) (*booth, error) {
	f := fate{Roles: string('0' + rune(host)), Timeout: patience}
	v, err := startVictimAt(s.net.Host(host), "booth", s.broker(host), c.name("booth"), c.rand.Uint64(), f)
	return &booth{v, host}, err
}

// answered waits until each booth has had an answer at each name, from now on.
func answered(booths []*booth, limit time.Duration) error {
	for _, x := range booths {
		before := make([]int, wing+1)
		count := func(name int) int { return x.ledgers[0].said[fmt.Sprint("answered-", name)] }
		x.ask(func() bool {
			for i := range before {
				before[i] = count(i)
			}
			return true
		})
		for i := range before {
			if err := eventually(limit, fmt.Sprintf("the booth at host %d, for an answer of %d's,", x.host, i), func() bool {
				return x.ask(func() bool { return count(i) > before[i] || x.ledgers[0].wrong != "" })
			}); err != nil {
				return fmt.Errorf("%w: %s", err, x.states())
			}
		}
	}
	return nil
}

// judge looks at what a booth has met. whole: no connection had to break; hit: it may have been without a broker.
func (x *booth) judge(g *graveyard, whole, hit bool) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	l := x.ledgers[0]
	if l.wrong != "" {
		return errors.New(l.wrong)
	}
	if whole && l.said["broken"] > 0 {
		return fmt.Errorf("%d connections broke that should not have, the last one: %s", l.said["broken"], l.broken)
	}
	for i := range wing + 1 {
		g.count("short connections, answered", int64(l.said[fmt.Sprint("answered-", i)]))
	}
	g.count("broken", int64(l.said["broken"]))
	g.count("refused", int64(l.said["refused"]))
	took := time.Duration(l.held) * time.Millisecond
	if took > 0 && !hit {
		g.took("a dial refused", took)
	}
	if took > notice+2*regionPatience && !hit { // it asks who listens, and then one broker after another
		return fmt.Errorf("a dial was refused after %v", took)
	}
	return nil
}

func init() { parts["booth"] = playBooth }

// playBooth echoes what comes at its names, and dials the names of all.
func playBooth(t task) error {
	client, err := zpipes.ClientConfig{Timeout: t.Fate.Timeout}.NewClient(t.Broker)
	if err != nil {
		return err
	}
	a := actor{client: client, pipe: t.Pipe, rand: rand.New(rand.NewPCG(t.Seed, 0))}
	host := int(t.Fate.Roles[0] - '0')
	go a.echoes(endName(t.Pipe, host))
	if host > 0 {
		go a.echoes(endName(t.Pipe, wing))
	}
	go a.knocks(rand.New(rand.NewPCG(t.Seed, 1)))
	<-untilToldTo()
	return nil
}

// echoes listens at a name, for ever.
func (a *actor) echoes(name string) {
	for {
		l, err := a.client.Listen(background, name)
		for err == nil {
			var n net.Conn
			if n, err = l.Accept(); err == nil {
				go echo(n.(*zpipes.Conn))
			}
		}
		if l != nil {
			l.Close()
		}
		time.Sleep(tick)
	}
}

// echo sends back what comes; a torn connection has no clean end.
func echo(n *zpipes.Conn) {
	_, err := io.Copy(n, n)
	n.CloseWithError(err)
}

// knocks dials one name after the other, for ever.
func (a *actor) knocks(r *rand.Rand) {
	longest := time.Duration(0)
	for {
		name := r.IntN(wing + 1)
		began := time.Now()
		n, err := a.client.Dial(background, endName(a.pipe, name))
		if err != nil {
			if took := time.Since(began); took > longest {
				longest = took
				a.say("held", took.Milliseconds(), "")
			}
			if c := class(err); c == "other" {
				a.say("wrong", 0, "a dial was refused, and nothing says why: "+err.Error())
			}
			a.say("refused", 0, err.Error())
		} else if err = ask(n, r); errors.As(err, new(wrongBytes)) {
			a.say("wrong", 0, err.Error())
		} else if err != nil {
			a.say("broken", 0, err.Error())
		} else {
			a.say(fmt.Sprint("answered-", name), 0, "")
		}
		time.Sleep(time.Duration(r.IntN(5)) * time.Millisecond)
	}
}

// ask writes something, and reads it again.
func ask(n *zpipes.Conn, r *rand.Rand) error {
	size, seed := r.Int64N(1<<(4+r.IntN(14))), r.Uint64()
	wrote := make(chan error, 1)
	go func() {
		_, err := io.Copy(n, &flow{seed: seed, left: size})
		if err == nil {
			err = n.CloseWrite()
		}
		wrote <- err
	}()
	err := takes(n, seed, size)
	if err == nil {
		return errors.Join(<-wrote, n.Close())
	}
	n.CloseWithError(err)
	<-wrote
	return err
}
