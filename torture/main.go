// Torture breaks zpipes on purpose: it kills and stops processes at bad moments, asks
// for too much, uses up what the system has, and sends what nobody should, for as long
// as one likes. It prints what it did and what it found as a Markdown table; a promise
// that was not kept is an error. See docs/RELIABILITY.md.
//
//	torture [-duration 10m] [-only pattern] [-seed N] [-docs directory] [-each]
//
// All trials are listed in this file, in [trials]. Each belongs to a family of files:
//
//	suite_*      the library's own tests, compiled and run for long: simulated worlds,
//	             histories for a linearizability checker, a storm of frames, the fuzzer
//	death_*      processes are killed or stopped while they use pipes, and what the
//	             others learn is compared with what the dead have said
//	greed_*      processes that want more than there is, and a neighbour at the same
//	             broker who must not notice; what the broker takes for them has bounds
//	machines*    several hosts, as network namespaces, and a wire between them that loses,
//	             slows down and cuts; netrig makes them
//	lifecycle_*  everything is closed in the middle of everything, interrupted by
//	             signals, or left without file descriptors
//
// What they share:
//
//	main, report  choosing and running trials; the table, and how numbers are written
//	child         other processes, which are this program in another part
//	wire, raw*    messages as docs/PROTOCOL.md has them, and a client that sends any, by
//	              ZeroMQ or at a near door
//	data          the bytes of streams, each of which can be told from all others
//	wait, proc    waiting for what must come; what a process uses
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// A trial breaks the library in one way.
type trial struct {
	name  string // for -only
	fault string // what goes wrong
	how   string // how it is provoked

	// A trial that can be repeated at will has a share of the time; one that does a certain
	// amount of work takes about so long when it does all of it.
	share int
	takes time.Duration

	run func(ctx context.Context, b *bench) (outcome, error)
}

// An outcome is what a trial has to tell when every promise was kept.
type outcome struct {
	times int64  // how often it was provoked
	found string // the figures
}

// A bench is what a trial works on.
type bench struct {
	until time.Time  // when a trial stops that has a share
	scale float64    // how much the others do of their work; see size
	rand  *rand.Rand // the trial's own; it may have given a part to its children
	name  string
	each  io.Writer // is told of each cycle; nil: nobody
}

// size is how much of an amount to do: all of it where the trials have 10 minutes or more.
func (b *bench) size(full int64) int64 { return max(1, int64(float64(full)*b.scale)) }

// more says that there is time for another round.
func (b *bench) more() bool { return time.Now().Before(b.until) }

// trials, in the order in which they are run.
func trials() []trial {
	return []trial{
		{
			name:  "simulate",
			fault: "anything a client may do, in any order: bad and late messages, timeouts, silence, deaths, congestion, shutdowns",
			how:   "simulated brokers with clients of all kinds, compared with a model after every step",
			share: 4, run: simulate,
		},
		{
			name:  "linearize",
			fault: "several clients at the same time",
			how:   "recorded histories of names, queues and streams, simulated and real, given to a linearizability checker",
			share: 2, run: linearize,
		},
		{
			name:  "fuzz",
			fault: "messages that nobody should send",
			how:   "a storm of frames for the codec; and Go's fuzzer: to the codec, the broker's core, a whole broker, and clients of a lying one",
			share: 10, run: fuzz,
		},

		{
			name:  "kill-streams",
			fault: "a writer's or reader's process dies",
			how:   "SIGKILL at random moments, over ipc and near; every byte, the error at the other end, and that the name is free",
			share: 5, run: killStreams,
		},
		{
			name:  "kill-queues",
			fault: "a sender's or receiver's process dies",
			how:   "SIGKILL at random moments, over ipc and near; every chunk, and the order where one lives",
			share: 5, run: killQueues,
		},
		{
			name:  "restart",
			fault: "a broker's process dies, and another takes its name at once; or it stands still",
			how:   "SIGKILL and SIGSTOP under load, over ipc and near; all ends, and what the new pipes of the same names carry",
			share: 5, run: restart,
		},
		{
			name:  "notice",
			fault: "a process dies that came through a near door",
			how:   "SIGKILL, a thousand times; how soon the other end knows",
			takes: 30 * time.Second, run: notices,
		},
		{
			name:  "routing-ids",
			fault: "a raw client that waits is killed, and another takes its routing id",
			how:   "the base protocol, the extension and text; the heir must get no answer and no pipe of the dead",
			share: 3, run: routingIDs,
		},
		{
			name:  "stop",
			fault: "a process stands still for too long, and goes on",
			how:   "SIGSTOP at random moments, over ipc and near, SIGCONT when all others know",
			share: 5, run: stopEnds,
		},
		{
			name:  "rings",
			fault: "streams through rings, whose ends or broker die, stand still, spoil what they share, or have no descriptors",
			how:   "SIGKILL and SIGSTOP exactly when a ring is moved into, used, or left; nonsense in its header; RLIMIT_NOFILE",
			share: 5, run: ringDeaths,
		},
		{
			name:  "jobs",
			fault: "workers, senders and brokers of jobs die, stand still, or hang",
			how:   "SIGKILL, SIGSTOP and leases that pass, over ipc and near, in memory and on the disk; with delays, keys, returns and rejections; every job, each delivery of it, and when others have it",
			share: 5, run: jobs,
		},
		{
			name:  "durable",
			fault: "a broker with durable queues dies under load, time and again",
			how:   "SIGKILL at random moments, while it starts, too; every job, against what was confirmed",
			share: 5, run: durable,
		},
		{
			name:  "full-disk",
			fault: "no room on the disk for durable queues",
			how:   "a file system of 20 MiB is filled, over ipc and near; acknowledgements, SIGKILL of the broker, and room that is made",
			share: 2, run: fullDisk,
		},
		{
			name:  "broadcasts",
			fault: "a broadcast's writer or reader dies, stands still or leaves, while others come and go",
			how:   "SIGKILL and SIGSTOP, directly, over ipc and near; every reader's bytes from its first on, what it was told that it missed, and for how long the writer was held up",
			share: 5, run: broadcasts,
		},
		{
			name:  "connections",
			fault: "a process dies that has dialled, listens or serves HTTP; or it stands still, and goes on",
			how:   "SIGKILL, a thousand times, and SIGSTOP, at random moments, over ipc and near; every byte both ways, each end, how soon the other side knows, and what is left",
			takes: 150 * time.Second, run: deadCalls,
		},

		{
			name:  "machines",
			fault: "hosts whose brokers are one, and the wire between them",
			how:   "cuts shorter and longer than the patience, of halves, pairs and one way, beside brokers that stand still; loss, slow links; SIGKILL and SIGSTOP of brokers and ends, and of all at once; every byte, at streams of all hosts",
			share: 5, run: machines,
		},
		{
			name:  "machines-hidden",
			fault: "hosts behind routers, each reached at a port of its router alone, whose brokers are one",
			how:   "brokers know that of one host, which is not behind a router, and --advertise; cuts, loss, SIGKILL and SIGSTOP of brokers and ends; every byte, at streams of all hosts, and that nobody is missed afterwards",
			share: 1, run: hiddenMachines,
		},
		{
			name:  "machine-queues",
			fault: "hosts whose brokers are one, and the wire between them, while hands of several send to a queue and work on it",
			how:   "cuts shorter and longer than the patience, of halves, pairs and one way; loss; SIGKILL and SIGSTOP of brokers and hands; every job that was confirmed, durable or in memory",
			share: 5, run: machineQueues,
		},
		{
			name:  "machine-calls",
			fault: "hosts whose brokers are one, and the wire between them, while connections are made and carry data both ways",
			how:   "cuts shorter and longer than the patience, of halves, pairs and one way; loss, slow links; SIGKILL and SIGSTOP of brokers and ends; every byte, each end, and that dials are answered or refused",
			share: 5, run: machineCalls,
		},
		{
			name:  "machine-broadcasts",
			fault: "hosts whose brokers are one, and the wire between them, while a broadcast has readers at all",
			how:   "cuts shorter and longer than the patience, of halves, pairs and one way; loss; SIGKILL and SIGSTOP of brokers and ends; every reader's bytes from its first on, what it was told that it missed, and that the writer goes on",
			share: 5, run: machineBroadcasts,
		},
		{
			name:  "machine-names",
			fault: "hosts whose brokers are one, and the wire between them, while many on all hosts want the same name",
			how:   "the same; who heard whom, every word, and a linearizability checker of who had the name",
			share: 1, run: machineNames,
		},
		{
			name:  "figures",
			fault: "hosts that are far from each other, and a wire that is slow",
			how:   "how long opens, deaths and heals take, and what a stream carries, between two hosts whose brokers are one",
			takes: 3 * time.Minute, run: measureMachines,
		},
		{
			name:  "far",
			fault: "clients of other hosts over encrypted tcp, and the wire between them",
			how:   "cuts, loss, slow links; SIGKILL and SIGSTOP of clients; every byte",
			share: 3, run: farClients,
		},

		{
			name:  "unread",
			fault: "a reader that never reads",
			how:   "10 GiB are offered to it, over ipc and near",
			takes: 45 * time.Second, run: unread,
		},
		{
			name:  "pipelining",
			fault: "a client that never waits for an answer",
			how:   "a million requests of each kind, half of them near",
			takes: 55 * time.Second, run: pipelining,
		},
		{
			name:  "crowd",
			fault: "many such clients",
			how:   "100 at once, of all kinds, half of them near; 1,000 deaf ones each way",
			takes: 40 * time.Second, run: crowd,
		},
		{
			name:  "opens",
			fault: "ends that come and go",
			how:   "a million opens, half of them near; a third of the ends is not closed, their connections or processes just end",
			takes: 35 * time.Second, run: opens,
		},
		{
			name:  "doorstep",
			fault: "connections through the near door that say nothing, come and go, or are too many",
			how:   "1,000 that say nothing; 200,000 that are opened and closed at all moments; as many as there may be, by two users",
			takes: 25 * time.Second, run: doorstep,
		},
		{
			name:  "waiting",
			fault: "many pipes with a reader that waits",
			how:   "10,000 pipes over ten processes, over ipc and near, some data through each, and then all go, half of them killed",
			takes: 20 * time.Second, run: waiting,
		},
		{
			name:  "rings-many",
			fault: "pipes that were busy once; connections that say nothing beside a ring",
			how:   "10,000 pipes of ten processes carry 512 KiB each, as many as may be at once through rings, and are idle then; 1,000 connections",
			takes: 60 * time.Second, run: manyRings,
		},
		{
			name:  "huge",
			fault: "READs of 4 GiB",
			how:   "thousands at once, of each kind, over ipc and near",
			takes: 25 * time.Second, run: hugeReads,
		},
		{
			name:  "frames",
			fault: "frames of every size and number",
			how:   "at, just below and just above the limit, tiny, empty, very many in a message; at a near door in pieces, cut and damaged anywhere",
			takes: 25 * time.Second, run: frames,
		},
		{
			name:  "names",
			fault: "names of every kind",
			how:   "every length, every byte, by every interface, over ipc and near",
			takes: 25 * time.Second, run: names,
		},

		{
			name:  "lifecycle",
			fault: "brokers and clients closed in the middle of everything",
			how:   "Close, Shutdown and both at once, under load, in one process, also in one shared ZeroMQ context",
			share: 2, run: lifecycle,
		},
		{
			name:  "signals",
			fault: "signals that interrupt everything",
			how:   "SIGUSR1, SIGURG, SIGALRM and SIGWINCH at 1 kHz from outside, and SIGPROF, while streams and queues carry data, directly, over ipc and near",
			share: 1, run: signals,
		},
		{
			name:  "descriptors",
			fault: "no file descriptors left",
			how:   "over ipc and near, a client's and a broker's process use up all but a few, and give them back, while a pipe is used",
			share: 1, run: descriptors,
		},
	}
}

const fullDuration = 10 * time.Minute

type settings struct {
	duration time.Duration
	only     *regexp.Regexp
	seed     uint64
	out      io.Writer
	each     io.Writer // see bench
}

func main() {
	if os.Getenv(partVar) != "" {
		os.Exit(playPart())
	}
	s := settings{out: os.Stdout}
	flag.DurationVar(&s.duration, "duration", fullDuration, "how long all trials together may take, about")
	flag.Uint64Var(&s.seed, "seed", 0, "what chance begins with; 0: something new")
	only := flag.String("only", "", "run only the trials whose name matches a `pattern`")
	docs := flag.String("docs", "", "write the table into RELIABILITY.md in `directory`")
	each := flag.Bool("each", false, "print a line for each cycle of a trial that has some")
	flag.Parse()
	if *each {
		s.each = os.Stderr
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := s.main(ctx, *only, *docs); err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		os.Exit(1)
	}
}

func (s *settings) main(ctx context.Context, only, docs string) (err error) {
	if s.only, err = regexp.Compile(only); err != nil {
		return err
	}
	if docs != "" && (only != "" || s.duration < fullDuration) {
		return errors.New("-docs is for full results, so not with -only or less than 10 minutes")
	}
	if s.seed == 0 {
		s.seed = rand.Uint64()
	}
	table, err := s.run(ctx, trials())
	fmt.Fprint(s.out, table)
	if err != nil || docs == "" {
		return err
	}
	return save(filepath.Join(docs, "RELIABILITY.md"), table)
}

// run runs the trials one after the other, and all of them even when one fails.
func (s *settings) run(ctx context.Context, trials []trial) (table string, err error) {
	scale := min(1, s.duration.Minutes()/fullDuration.Minutes())
	var chosen []trial
	shares, shared := 0, s.duration
	for _, t := range trials {
		if s.only.MatchString(t.name) {
			chosen = append(chosen, t)
			shares += t.share
			shared -= time.Duration(scale * float64(t.takes))
		}
	}
	var rows strings.Builder
	for _, t := range chosen {
		began := time.Now()
		fmt.Fprintf(os.Stderr, "%s %s ...\n", began.Format(time.TimeOnly), t.name)
		h := fnv.New64a()
		io.WriteString(h, t.name)
		got, failed := t.run(ctx, &bench{
			until: began.Add(shared * time.Duration(t.share) / time.Duration(max(1, shares))),
			scale: scale,
			rand:  rand.New(rand.NewPCG(s.seed, h.Sum64())),
			name:  t.name, each: s.each,
		})
		if ctx.Err() != nil {
			return rows.String(), context.Cause(ctx)
		}
		if failed != nil {
			failed = fmt.Errorf("%s: %w (-seed %d)", t.name, failed, s.seed)
			fmt.Fprintln(os.Stderr, "FAILED", failed)
			err = errors.Join(err, failed)
			got.found = "**FAILED**"
		}
		fmt.Fprintf(&rows, "| %s | %s | %d | %s | %.0f s |\n", t.fault, t.how, got.times, got.found, time.Since(began).Seconds())
	}
	header := "| fault | how it is provoked | times | found | took |\n|---|---|---|---|---|\n"
	return about(s) + header + rows.String(), err
}
