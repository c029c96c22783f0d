package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// The program is the test's own executable.
const isProgram = "ZPIPES_WORKQUEUE"

func TestMain(m *testing.M) {
	if os.Getenv(isProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// command makes a command that is killed when it takes too long.
func command(t *testing.T, program string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, program, args...)
	// The race detector would have each process wait for a second at its end.
	cmd.Env = append(os.Environ(), isProgram+"=1", "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	cmd.Stderr = t.Output()
	return cmd
}

// lines returns what a command prints when its input is this.
func lines(cmd *exec.Cmd, input ...string) ([]string, error) {
	cmd.Stdin = strings.NewReader(strings.Join(input, "\n") + "\n")
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%v: %w", cmd.Args[1:], err)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n"), nil
}

// A server is a process that runs until it is told to stop.
type server struct {
	t     *testing.T
	cmd   *exec.Cmd
	out   *bufio.Scanner
	ready string // what it is or where
}

// start returns when the process is ready.
func start(t *testing.T, role, broker string) *server {
	t.Helper()
	s := &server{t: t, cmd: command(t, os.Args[0], role, broker)}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.out = bufio.NewScanner(out)
	t.Cleanup(func() { s.stop() })
	s.out.Scan()
	var ok bool
	if s.ready, ok = strings.CutSuffix(s.out.Text(), " is ready"); !ok {
		t.Fatalf("%s begins with %q", role, s.out.Text())
	}
	return s
}

// stop has the process end, and returns how many jobs it has done. Stopping again returns 0.
func (s *server) stop() (jobs int) {
	s.t.Helper()
	if s.cmd.ProcessState != nil {
		return 0
	}
	s.cmd.Process.Signal(os.Interrupt)
	for s.out.Scan() {
		fmt.Sscanf(strings.TrimPrefix(s.out.Text(), s.ready), " did %d jobs", &jobs)
	}
	if err := s.cmd.Wait(); err != nil {
		s.t.Errorf("%v ended with %v", s.cmd.Args[1:], err)
	}
	return jobs
}

// network starts a broker and workers.
func network(t *testing.T, workers int) (name, endpoint string, _ []*server) {
	t.Helper()
	name = fmt.Sprintf("%s-%d", t.Name(), os.Getpid())
	broker := start(t, "broker", name)
	servers := make([]*server, workers)
	for i := range servers {
		servers[i] = start(t, "work", name)
	}
	return name, broker.ready, servers
}

// numbered returns jobs of this size at least.
func numbered(what string, n, size int) (jobs []string) {
	for i := range n {
		jobs = append(jobs, fmt.Sprintf("%s %d %*s", what, i, size, "."))
	}
	return jobs
}

// check says which results are missing, or there twice, or wrong.
func check(t *testing.T, jobs, results []string) {
	t.Helper()
	count := make(map[string]int)
	for _, result := range results {
		count[result]++
	}
	for _, job := range jobs {
		count[string(do([]byte(job)))]--
	}
	for result, n := range count {
		if n != 0 {
			t.Errorf("%+d of %.100q", n, result)
		}
	}
}

func TestAll(t *testing.T) {
	out, err := lines(command(t, os.Args[0]))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := out[len(out)-1], "20000 results, each of them right and there once"; got != want {
		t.Errorf("it ends with %q, not %q", got, want)
	}
}

func TestRoles(t *testing.T) {
	broker, _, workers := network(t, 4)
	self := func(role string, args ...string) *exec.Cmd {
		return command(t, os.Args[0], append([]string{role, broker}, args...)...)
	}
	// These are more than the queues have room for.
	a := numbered("a", 3000, 1000)
	b := append(numbered("b", 997, 1000), "", "", "\x00 \xff é")
	var submits errgroup.Group
	for _, jobs := range [][]string{a, b} {
		submits.Go(func() error {
			_, err := lines(self("submit"), jobs...)
			return err
		})
	}
	results, err := lines(self("collect", "500"))
	if err != nil {
		t.Fatal(err)
	}

	// A worker that leaves in the middle of its work finishes what it has begun.
	var work errgroup.Group
	done := 0
	work.Go(func() error {
		done = workers[0].stop()
		return nil
	})
	parts := make([][]string, 2)
	for i, n := range []string{"2500", "1000"} {
		work.Go(func() (err error) {
			parts[i], err = lines(self("collect", n))
			return err
		})
	}
	if err := work.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := submits.Wait(); err != nil {
		t.Fatal(err)
	}
	check(t, slices.Concat(a, b), slices.Concat(results, parts[0], parts[1]))
	for _, w := range workers {
		done += w.stop()
	}
	if want := len(a) + len(b); done != want {
		t.Errorf("the workers did %d jobs of %d", done, want)
	}
}

// findPython returns a Python that has pyzmq.
func findPython(t *testing.T) string {
	for _, python := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(python, "-c", "import zmq").Run() == nil {
			return python
		}
	}
	t.Skip("this needs Python 3.8 or later with pyzmq: apt-get install python3-zmq")
	return ""
}

func TestPython(t *testing.T) {
	python := findPython(t)
	name, endpoint, workers := network(t, 3)
	if runtime.GOOS != "linux" {
		name = endpoint
	}
	submit := func(broker string, jobs ...string) ([]string, error) {
		return lines(command(t, python, "submit.py", broker), jobs...)
	}
	// Two at the same time may get results of each other.
	a, b := numbered("a", 3000, 10), append(numbered("b", 1000, 10), "", "", "\x00 \xff é")
	var both errgroup.Group
	var fromA, fromB []string
	both.Go(func() (err error) {
		fromA, err = submit(name, a...)
		return err
	})
	both.Go(func() (err error) {
		fromB, err = submit(endpoint, b...)
		return err
	})
	if err := both.Wait(); err != nil {
		t.Fatal(err)
	}
	check(t, slices.Concat(a, b), slices.Concat(fromA, fromB))

	// The queues are still there, and empty.
	c := numbered("c", 1000, 10)
	fromC, err := submit(name, c...)
	if err != nil {
		t.Fatal(err)
	}
	check(t, c, fromC)
	done := 0
	for _, w := range workers {
		done += w.stop()
	}
	if want := len(a) + len(b) + len(c); done != want {
		t.Errorf("the workers did %d jobs of %d", done, want)
	}
}
