//go:build linux && (amd64 || arm64 || loong64 || ppc64le || riscv64 || s390x)

package ring

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

const (
	pending  = 1 << 20
	ringSize = pending + 256<<10
)

func TestMain(m *testing.M) {
	if role := os.Getenv("RING_ROLE"); role != "" {
		child(role)
		return
	}
	m.Run()
}

// A waiter is what the owner of an end needs: a lock, and to be woken by the bell.
type waiter struct {
	mu    sync.Mutex // for the end and what follows
	cond  sync.Cond
	rings int
	told  bool // the keeper has told where the end is
}

// rung is for the bell.
func (w *waiter) rung(look func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rings++
	look()
	w.cond.Broadcast()
}

// sleep waits for the next bell. mu is held, and was when the end was tried.
func (w *waiter) sleep() {
	for n := w.rings; n == w.rings && !w.told; {
		w.cond.Wait()
	}
}

func (w *waiter) tell(what func() error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	what()
	w.told = true
	w.cond.Broadcast()
}

type waitingWriter struct {
	waiter
	*Writer
}

func newWaitingWriter(mem []byte, bell *Bell) (w *waitingWriter, err error) {
	w = new(waitingWriter)
	w.cond.L = &w.mu
	w.Writer, err = NewWriter(mem, bell.Ring)
	return w, err
}

func (w *waitingWriter) rung() { w.waiter.rung(func() { w.Rung() }) }

func (w *waitingWriter) Write(b []byte) (n int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		k, err := w.Writer.Write(b[n:])
		if n += k; n == len(b) || err != nil {
			return n, err
		}
		if w.told {
			return n, io.ErrClosedPipe
		}
		w.sleep()
	}
}

func (w *waitingWriter) Flush(pending uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.Push(); err != nil {
		return err
	}
	for all := w.Written(); ; w.sleep() {
		if sure, err := w.Confirmed(all, pending); sure >= all || err != nil {
			return err
		}
		if w.told {
			return io.ErrClosedPipe
		}
	}
}

type waitingReader struct {
	waiter
	*Reader
}

func newWaitingReader(mem []byte, bell *Bell) (r *waitingReader, err error) {
	r = new(waitingReader)
	r.cond.L = &r.mu
	r.Reader, err = NewReader(mem, bell.Ring, Pause)
	return r, err
}

func (r *waitingReader) rung() { r.waiter.rung(func() {}) }

func (r *waitingReader) Read(b []byte) (n int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if n, err = r.Reader.Read(b); n > 0 || err != nil {
			return n, err
		}
		r.sleep()
	}
}

// at is a byte of the stream that all these processes write.
func at(i uint64) byte { return byte(i*2654435761>>13 ^ i>>17) }

// child is one end, in a process of its own. Its standard input tells it where the end is,
// and its output says how far it is.
func child(role string) {
	seed, _ := strconv.ParseUint(os.Getenv("RING_SEED"), 10, 64)
	rng := rand.New(rand.NewPCG(seed, uint64(role[0])))
	err := map[string]func(*rand.Rand) error{
		"writer": writeChild, "reader": readChild,
		"take from ring": takeFromRing, "take from file": takeFromFile,
		"echo by ring": echoByRing, "echo by file": echoByFile,
	}[role](rng)
	fmt.Println("over", strings.ReplaceAll(err.Error(), "\n", " "))
}

// openRing opens what a child got as descriptors.
func openRing(fd int) *Mapping {
	m, err := Map(fd, ringSize)
	if err != nil {
		panic(err)
	}
	return m
}

func openTheBell(fd int) *Bell {
	b, err := OpenBell(fd)
	if err != nil {
		panic(err)
	}
	return b
}

// final waits until the end is told.
func final(told func(uint64)) {
	var n uint64
	if _, err := fmt.Scan(&n); err != nil {
		os.Exit(1)
	}
	told(n)
}

func writeChild(rng *rand.Rand) error {
	bell := openTheBell(4)
	w, err := newWaitingWriter(openRing(3).Bytes(), bell)
	if err != nil {
		return err
	}
	go bell.Listen(w.rung)
	go final(func(uint64) { w.tell(func() error { return nil }) })
	b := make([]byte, 1<<(6+rng.IntN(13)))
	for n := uint64(0); ; {
		k := 1 + rng.IntN(len(b))
		if rng.IntN(3) > 0 {
			k = min(k, 100)
		}
		for i := range k {
			b[i] = at(n + uint64(i))
		}
		if _, err := w.Write(b[:k]); err != nil {
			return err
		}
		n += uint64(k)
		if rng.IntN(8) == 0 {
			if err := w.Flush(pending); err != nil {
				return err
			}
			fmt.Println(n)
		}
	}
}

// childsReader is of the ring that this process was given.
func childsReader() (*waitingReader, error) {
	bell := openTheBell(4)
	r, err := newWaitingReader(openRing(3).Bytes(), bell)
	if err != nil {
		return nil, err
	}
	go bell.Listen(r.rung)
	go final(func(n uint64) { r.tell(func() error { return r.End(n) }) })
	return r, nil
}

func readChild(rng *rand.Rand) error {
	r, err := childsReader()
	if err != nil {
		return err
	}
	b := make([]byte, 1<<(6+rng.IntN(13)))
	for n := uint64(0); ; {
		k, err := r.Read(b[:1+rng.IntN(len(b))])
		for i := range k {
			if b[i] != at(n+uint64(i)) {
				return fmt.Errorf("byte %d is wrong", n+uint64(i))
			}
		}
		n += uint64(k)
		if err != nil {
			fmt.Println(n)
			return err
		}
	}
}

type process struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	last uint64 // of its numbers; till over is closed it is its output's
	why  string // it is over
	over chan bool
	errs strings.Builder
}

func startChild(t testing.TB, role string, seed uint64, files ...*os.File) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(exe), over: make(chan bool)}
	p.cmd.Env = append(os.Environ(), "RING_ROLE="+role, fmt.Sprint("RING_SEED=", seed),
		"GORACE="+os.Getenv("GORACE")+" atexit_sleep_ms=0") // else it takes a second to end under the race detector
	p.cmd.ExtraFiles = files
	p.cmd.Stderr = &p.errs
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		p.cmd.Wait()
	})
	go func() {
		defer close(p.over)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			line := lines.Text()
			if why, ok := strings.CutPrefix(line, "over "); ok {
				p.why = why
			} else if n, err := strconv.ParseUint(line, 10, 64); err == nil {
				p.last = n
			}
		}
	}()
	return p
}

func (p *process) tell(final uint64) { fmt.Fprintln(p.in, final) }

func (p *process) ends(t *testing.T, who string) {
	t.Helper()
	select {
	case <-p.over:
	case <-time.After(30 * time.Second):
		t.Fatalf("the %s hangs", who)
	}
}

func osFile(fd int) *os.File { return os.NewFile(uintptr(fd), "") }

// A trial is a keeper, here, and two ends in processes of their own.
type trial struct {
	*testing.T
	rng  *rand.Rand
	mem  []byte
	k    *Keeper
	w, r *process
}

func newTrial(t *testing.T) *trial {
	seed := rand.Uint64()
	t.Log("seed", seed)
	fd := makeRing(t, ringSize)
	m := mapRing(t, fd, ringSize)
	k, err := NewKeeper(m.Bytes(), ringSize)
	if err != nil {
		t.Fatal(err)
	}
	a, b, err := MakeBell()
	if err != nil {
		t.Fatal(err)
	}
	dup, err := syscall.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	mem, bellA, bellB := osFile(dup), osFile(a), osFile(b)
	defer mem.Close()
	defer bellA.Close()
	defer bellB.Close()
	return &trial{
		T: t, rng: rand.New(rand.NewPCG(seed, 0)), mem: m.Bytes(), k: k,
		w: startChild(t, "writer", seed, mem, bellA), r: startChild(t, "reader", seed, mem, bellB),
	}
}

// moves waits until more than n bytes were taken.
func (t *trial) moves(n uint64) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		w, r, err := t.k.Counts()
		if err != nil {
			t.Fatal(err)
		}
		if r > n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("nothing moves: %d bytes written, %d read", w, r)
		}
	}
}

func (t *trial) close() uint64 {
	final, err := t.k.Close()
	if err != nil {
		t.Fatal(err)
	}
	return final
}

// read says that the reader has read all, and nothing else.
func (t *trial) read(final uint64) {
	t.Helper()
	t.r.tell(final)
	t.r.ends(t.T, "reader")
	if t.r.why != io.EOF.Error() || t.r.last != final {
		t.Errorf("the reader has read %d of %d bytes: %s %s", t.r.last, final, t.r.why, t.r.errs.String())
	}
}

func TestProcesses(t *testing.T) {
	rounds := 5
	if testing.Short() {
		rounds = 1
	}
	each := func(name string, f func(*trial)) {
		t.Run(name, func(t *testing.T) {
			for range rounds {
				trial := newTrial(t)
				trial.moves(0)
				f(trial)
			}
		})
	}
	each("the writer is killed", func(t *trial) {
		t.moves(uint64(t.rng.IntN(4 * ringSize)))
		t.w.cmd.Process.Kill()
		t.w.ends(t.T, "writer")
		final := t.close()
		if t.w.last > final {
			t.Errorf("%d bytes were confirmed, the end is at %d", t.w.last, final)
		}
		t.read(final)
	})
	each("the reader is killed", func(t *trial) {
		t.r.cmd.Process.Kill()
		t.r.ends(t.T, "reader")
		t.w.tell(t.close())
		t.w.ends(t.T, "writer")
		if t.w.why != io.ErrClosedPipe.Error() {
			t.Errorf("the writer: %s %s", t.w.why, t.w.errs.String())
		}
	})
	each("closed while the writer stands still", func(t *trial) {
		t.w.cmd.Process.Signal(syscall.SIGSTOP)
		final := t.close()
		t.w.cmd.Process.Signal(syscall.SIGCONT)
		t.read(final)
		t.w.tell(final)
		t.w.ends(t.T, "writer")
		if t.w.last > final {
			t.Errorf("%d bytes were confirmed, the end is at %d", t.w.last, final)
		}
	})
	each("both stand still now and then", func(t *trial) {
		for range 5 {
			p := []*process{t.w, t.r}[t.rng.IntN(2)]
			p.cmd.Process.Signal(syscall.SIGSTOP)
			time.Sleep(time.Duration(t.rng.IntN(3000)) * time.Microsecond)
			p.cmd.Process.Signal(syscall.SIGCONT)
		}
		_, r, err := t.k.Counts()
		if err != nil {
			t.Fatal(err)
		}
		t.moves(r + 2*ringSize)
		t.read(t.close())
	})
	each("the header is spoiled", func(t *trial) {
		for range 30 {
			v := t.rng.Uint64()
			switch t.rng.IntN(3) {
			case 0:
				v %= 2 * ringSize
			case 1:
				v = 1
			}
			at := []int{0, 8, block, 2 * block, 3 * block}[t.rng.IntN(5)]
			(*count)(unsafe.Pointer(&t.mem[at])).v.Store(v)
			time.Sleep(time.Duration(t.rng.IntN(200)) * time.Microsecond)
		}
		t.close()
		t.w.tell(0)
		t.r.tell(t.rng.Uint64N(2 * ringSize))
		for who, p := range map[string]*process{"writer": t.w, "reader": t.r} {
			p.ends(t.T, who)
			if p.why == "" || p.errs.Len() > 0 {
				t.Errorf("the %s: %q %s", who, p.why, p.errs.String())
			}
		}
	})
}

// Both ends in one process share plain memory in the order of the stream: the race
// detector has to see that.
func TestOrder(t *testing.T) {
	fd := makeRing(t, ringSize)
	a, b, err := MakeBell()
	if err != nil {
		t.Fatal(err)
	}
	bellA, bellB := openTheBell(a), openTheBell(b)
	defer bellA.Close()
	defer bellB.Close()
	w, err := newWaitingWriter(mapRing(t, fd, ringSize).Bytes(), bellA)
	if err != nil {
		t.Fatal(err)
	}
	r, err := newWaitingReader(mapRing(t, fd, ringSize).Bytes(), bellB)
	if err != nil {
		t.Fatal(err)
	}
	go bellA.Listen(w.rung)
	go bellB.Listen(r.rung)
	notes := make([]int, 1000)
	failed := make(chan error, 1)
	go func() {
		for i := range notes {
			notes[i] = i
			if _, err := w.Write([]byte{byte(i)}); err != nil {
				failed <- err
				return
			}
		}
		failed <- nil
	}()
	var got [1]byte
	for i := range notes {
		if _, err := r.Read(got[:]); err != nil || got[0] != byte(i) || notes[i] != i {
			t.Fatal(i, got, notes[i], err)
		}
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
}
