//go:build linux && (amd64 || arm64 || loong64 || ppc64le || riscv64 || s390x)

package ring

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func makeRing(t testing.TB, size int) (fd int) {
	t.Helper()
	fd, err := Make(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func mapRing(t testing.TB, fd, size int) *Mapping {
	t.Helper()
	m, err := Map(fd, size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Release)
	return m
}

func TestMap(t *testing.T) {
	const size = 1 << 20
	fd := makeRing(t, size)
	m, h := mapRing(t, fd, size), (*Mapping)(nil)
	if len(m.Bytes()) != Header+size {
		t.Error("mapped", len(m.Bytes()))
	}
	h, err := MapHeader(fd, size)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	w, err := NewWriter(m.Bytes(), func() {})
	if err != nil {
		t.Fatal(err)
	}
	k, err := NewKeeper(h.Bytes(), size)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if n, _, err := k.Counts(); n != size || err != nil {
		t.Fatal("the keeper sees", n, err)
	}
}

func TestMapReferences(t *testing.T) {
	fd := makeRing(t, 1)
	m, err := Map(fd, 1)
	if err != nil {
		t.Fatal(err)
	}
	mapped := func() bool {
		b, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(b), "memfd:zpipes")
	}
	m.Retain()
	m.Release()
	if !mapped() {
		t.Fatal("unmapped with a reference left")
	}
	m.Bytes()[0] = 1
	if m.Release(); mapped() {
		t.Fatal("still mapped")
	}
}

// What comes from another process is looked at before it is mapped.
func TestMapRefuses(t *testing.T) {
	const size = 1000
	memfd := func(length int64, seals int) int {
		fd, err := unix.MemfdCreate("zpipes", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.Ftruncate(fd, length); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
			t.Fatal(err)
		}
		return fd
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(Header + size); err != nil {
		t.Fatal(err)
	}
	for name, fd := range map[string]int{
		"nothing":     -1,
		"a device":    int(null.Fd()),
		"a file":      int(file.Fd()),
		"not sealed":  memfd(Header+size, 0),
		"can shrink":  memfd(Header+size, unix.F_SEAL_GROW|unix.F_SEAL_SEAL),
		"too small":   memfd(Header+size-1, seals),
		"too large":   memfd(Header+size+1, seals),
		"can't write": memfd(Header+size, seals|unix.F_SEAL_WRITE),
	} {
		if _, err := Map(fd, size); err == nil {
			t.Errorf("%s: mapped", name)
		}
		if _, err := MapHeader(fd, size); err == nil {
			t.Errorf("%s: its header is mapped", name)
		}
	}
	for _, size := range []int{-1, 0, MaxSize + 1} {
		if _, err := Make(size); err == nil {
			t.Errorf("made a ring of %d bytes", size)
		}
		if _, err := Map(makeRing(t, 1), size); err == nil {
			t.Errorf("mapped a ring of %d bytes", size)
		}
	}
}

// Memory that is not there is an error of the ring, not the end of the process.
func TestFault(t *testing.T) {
	const size = 1 << 20
	fd, err := unix.MemfdCreate("zpipes", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	length := func(n int64) {
		if err := unix.Ftruncate(fd, n); err != nil {
			t.Fatal(err)
		}
	}
	length(Header + size)
	mem, err := unix.Mmap(fd, 0, Header+size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	w, err := NewWriter(mem, func() {})
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(mem, func() {}, func() {})
	if err != nil {
		t.Fatal(err)
	}
	k, err := NewKeeper(mem, size)
	if err != nil {
		t.Fatal(err)
	}
	broken := func(name string, err error) {
		t.Helper()
		if !errors.Is(err, ErrBroken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b := make([]byte, 1000)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	length(Header) // now without data
	_, err = r.Read(b)
	broken("Read", err)
	_, err = w.Write(b)
	broken("Write", err)
	length(0)
	_, err = w.Unread()
	broken("Unread", err)
	_, err = w.Confirmed(1, 0)
	broken("Confirmed", err)
	_, err = w.Reserve(size)
	broken("Reserve", err)
	broken("Publish", w.Publish(1))
	broken("Consume", r.Consume(1))
	_, err = r.Ready(2000)
	broken("Ready", err)
	_, err = k.Close()
	broken("Close", err)
	_, _, err = k.Counts()
	broken("Counts", err)

	// A fault elsewhere is the caller's own, and so is a panic.
	elsewhere, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(elsewhere)
	for name, f := range map[string]func(*ends){
		"fault": func(e *ends) { e.w.Write(elsewhere[:10]) },
		"panic": func(e *ends) {
			e.read(t, 1) // sleeps
			e.w.bell = func() { panic("bell") }
			e.w.Write(b)
		},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("a %s that has nothing to do with the ring is swallowed", name)
				}
			}()
			f(newEnds(t, 100))
		}()
	}
}

func TestBell(t *testing.T) {
	fda, fdb, err := MakeBell()
	if err != nil {
		t.Fatal(err)
	}
	a, err := OpenBell(fda)
	if err != nil {
		t.Fatal(err)
	}
	b, err := OpenBell(fdb)
	if err != nil {
		t.Fatal(err)
	}
	rung, over := make(chan bool), make(chan error)
	go func() {
		over <- b.Listen(func() { rung <- true })
	}()
	<-rung // at the beginning
	for range 3 {
		a.Ring()
		<-rung
	}
	// Nobody takes what is rung, but it never blocks, and is heard in the end.
	for range 100_000 {
		a.Ring()
	}
	heard := 0
	for end := false; !end; {
		select {
		case <-rung:
			if heard++; heard == 1 {
				a.Close()
			}
		case err := <-over:
			if end = true; err != io.EOF {
				t.Error("the other end was closed:", err)
			}
		}
	}
	if heard == 0 || heard > 1000 {
		t.Errorf("heard %d times", heard)
	}
	b.Ring() // nobody is there
	b.Close()
	b.Ring()
	if err := b.Listen(func() {}); err != os.ErrClosed {
		t.Error(err)
	}
}

func TestBellCloses(t *testing.T) {
	fda, fdb, err := MakeBell()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fda)
	b, err := OpenBell(fdb)
	if err != nil {
		t.Fatal(err)
	}
	listens, over := make(chan bool, 1), make(chan error)
	go func() { over <- b.Listen(func() { listens <- true }) }()
	<-listens
	b.Close()
	if err := <-over; err != os.ErrClosed {
		t.Error(err)
	}
}

// Who waits for the bell itself hears it, is interrupted until it is told to go on, and
// learns when there is no bell any more, on whichever side, and at whatever moment.
func TestBellWaits(t *testing.T) {
	open := func() (a, b *Bell) {
		fda, fdb, err := MakeBell()
		if err != nil {
			t.Fatal(err)
		}
		if a, err = OpenBell(fda); err != nil {
			t.Fatal(err)
		}
		if b, err = OpenBell(fdb); err != nil {
			t.Fatal(err)
		}
		return a, b
	}
	a, b := open()
	waited := make(chan bool)
	wait := func() { waited <- b.Wait() }
	returns := func(rings bool, why string) {
		t.Helper()
		select {
		case r := <-waited:
			if r != rings {
				t.Errorf("%s: Wait says %v", why, r)
			}
		case <-time.After(10 * time.Second):
			t.Fatal(why, "and it still waits")
		}
	}
	for i := range 1000 {
		if i%2 == 0 {
			a.Ring()
		}
		go wait()
		if i%2 != 0 {
			a.Ring()
		}
		returns(true, "rung")
	}
	go wait()
	select {
	case <-waited:
		t.Error("it returns without a bell")
	case <-time.After(20 * time.Millisecond):
	}
	b.Interrupt()
	returns(true, "interrupted")
	go wait()
	returns(true, "interrupted before")
	b.Resume()
	go wait()
	a.Ring()
	returns(true, "rung after an interruption")
	for i := range 1000 {
		a, b = open()
		closes := a
		if i%2 == 0 {
			closes = b
		}
		go wait()
		go closes.Close()
		returns(false, "closed")
		if b.Wait() {
			t.Error("it rings behind its end")
		}
		a.Close()
		b.Close()
	}
}

func TestBellRefuses(t *testing.T) {
	dup := func(fd int) int {
		d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	datagram, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(datagram[1])
	tcp, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, fd := range map[string]int{
		"a ring": dup(makeRing(t, 1)), "a datagram socket": datagram[0], "a TCP socket": tcp, "nothing": -1,
	} {
		if _, err := OpenBell(fd); err == nil {
			t.Errorf("%s is a bell", name)
		} else if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			t.Errorf("%s is still open", name)
		}
	}
}

// Without descriptors there is no ring, and none of the process's own is taken for one of it.
func TestMakeWithoutDescriptors(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 0
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	fd, errMade := Make(1)
	a, b, errBell := MakeBell()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if fd != -1 || !errors.Is(errMade, unix.EMFILE) {
		t.Error(fd, errMade)
	}
	if a != -1 || b != -1 || !errors.Is(errBell, unix.EMFILE) {
		t.Error(a, b, errBell)
	}
}
