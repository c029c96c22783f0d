//go:build linux && (amd64 || arm64 || loong64 || ppc64le || riscv64 || s390x)

package ring

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// What follows is what benchmarks measure: another process takes what this one writes, or
// sends it back, through a ring or through a file of the system.

func takeFromFile(*rand.Rand) error { return take(os.NewFile(3, "")) }

func takeFromRing(*rand.Rand) error {
	r, err := childsReader()
	if err != nil {
		return err
	}
	return take(r)
}

func take(r io.Reader) error {
	b := make([]byte, 1<<20)
	for n := 0; ; {
		k, err := r.Read(b)
		n += k
		if err != nil {
			fmt.Println(n)
			return err
		}
	}
}

func echoByFile(*rand.Rand) error { return echo(os.NewFile(3, ""), os.NewFile(4, "")) }

func echoByRing(*rand.Rand) error {
	bell := openTheBell(5)
	r, err := newWaitingReader(openRing(3).Bytes(), bell)
	if err != nil {
		return err
	}
	w, err := newWaitingWriter(openRing(4).Bytes(), bell)
	if err != nil {
		return err
	}
	go bell.Listen(func() { r.rung(); w.rung() })
	return echo(r, w)
}

func echo(r io.Reader, w io.Writer) error {
	b := make([]byte, 64)
	for {
		if _, err := io.ReadFull(r, b); err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
}

// dup is for a descriptor that a child gets.
func dup(b *testing.B, fd int) *os.File {
	d, err := syscall.Dup(fd)
	if err != nil {
		b.Fatal(err)
	}
	f := osFile(d)
	b.Cleanup(func() { f.Close() })
	return f
}

// bells returns one for this process and one for a child.
func bells(b *testing.B) (*Bell, *os.File) {
	here, there, err := MakeBell()
	if err != nil {
		b.Fatal(err)
	}
	bell, f := openTheBell(here), osFile(there)
	b.Cleanup(func() { bell.Close(); f.Close() })
	return bell, f
}

// files returns the two ends of a pipe or a Unix socket.
func files(b *testing.B, kind string) (r, w *os.File) {
	var err error
	if kind == "pipe" {
		r, w, err = os.Pipe()
	} else {
		var s [2]int
		s, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		r, w = osFile(s[0]), osFile(s[1])
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// A stream to another process.
func BenchmarkStream(b *testing.B) {
	for _, size := range []int{64, 1 << 10, 64 << 10, 1 << 20} {
		run := func(kind string, open func(b *testing.B) (w io.Writer, end func() *process)) {
			b.Run(fmt.Sprintf("%s/%d", kind, size), func(b *testing.B) {
				w, end := open(b)
				buf := make([]byte, size)
				b.SetBytes(int64(size))
				for b.Loop() {
					if _, err := w.Write(buf); err != nil {
						b.Fatal(err)
					}
				}
				p := end()
				<-p.over
				if p.last != uint64(size*b.N) {
					b.Fatalf("%d bytes of %d arrived: %s", p.last, size*b.N, p.errs.String())
				}
			})
		}
		run("ring", func(b *testing.B) (io.Writer, func() *process) {
			fd := makeRing(b, ringSize)
			bell, theirs := bells(b)
			p := startChild(b, "take from ring", 0, dup(b, fd), theirs)
			w, err := newWaitingWriter(mapRing(b, fd, ringSize).Bytes(), bell)
			if err != nil {
				b.Fatal(err)
			}
			go bell.Listen(w.rung)
			return w, func() *process {
				if err := w.Flush(pending); err != nil {
					b.Fatal(err)
				}
				p.tell(w.Written())
				return p
			}
		})
		for _, kind := range []string{"pipe", "socket"} {
			run(kind, func(b *testing.B) (io.Writer, func() *process) {
				r, w := files(b, kind)
				p := startChild(b, "take from file", 0, r)
				r.Close()
				return w, func() *process { w.Close(); return p }
			})
		}
	}
}

// There and back.
func BenchmarkPingPong(b *testing.B) {
	run := func(b *testing.B, w io.Writer, r io.Reader) {
		buf := make([]byte, 64)
		for b.Loop() {
			if _, err := w.Write(buf); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(r, buf); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("ring", func(b *testing.B) {
		there, back := makeRing(b, ringSize), makeRing(b, ringSize)
		bell, theirs := bells(b)
		startChild(b, "echo by ring", 0, dup(b, there), dup(b, back), theirs)
		w, err := newWaitingWriter(mapRing(b, there, ringSize).Bytes(), bell)
		if err != nil {
			b.Fatal(err)
		}
		r, err := newWaitingReader(mapRing(b, back, ringSize).Bytes(), bell)
		if err != nil {
			b.Fatal(err)
		}
		go bell.Listen(func() { r.rung(); w.rung() })
		run(b, w, r)
	})
	for _, kind := range []string{"pipe", "socket"} {
		b.Run(kind, func(b *testing.B) {
			thereR, thereW := files(b, kind)
			backR, backW := files(b, kind)
			startChild(b, "echo by file", 0, thereR, backW)
			thereR.Close()
			backW.Close()
			run(b, thereW, backR)
		})
	}
}
