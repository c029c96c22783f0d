package door_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zpipes/zpipes"
	"github.com/zpipes/zpipes/door"
)

func TestCurlPipe(t *testing.T) {
	everyWay(t, func(r *rig) {
		file, text := r.file(3<<20 + 1)
		for _, how := range [][]string{
			{"-T", file}, {"-H", "Transfer-Encoding: chunked", "-T", file}, {"--data-binary", "@" + file}, {"-H", "Expect:", "-T", file},
		} {
			for _, first := range []string{"writer", "reader"} {
				to := filepath.Join(r.dir, "copy")
				write := func() *curl { return r.curl(append(how, "/pipes/backup")...) }
				get := func() *curl { return r.curl("-f", "-o", to, "/pipes/backup") }
				var w, rd *curl
				if first == "writer" {
					w = write()
					r.has("backup", written)
					rd = get()
				} else {
					rd = get()
					r.has("backup", read)
					w = write()
				}
				w.ends(0, "200")
				rd.ends(0, "200")
				if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, text) {
					r.Errorf("%q, the %s first: %d bytes of %d, %v", how, first, len(got), len(text), err)
				}
			}
		}
	})
}

func TestCurlEmptyPipe(t *testing.T) {
	everyWay(t, func(r *rig) {
		rd := r.curl("/pipes/nothing")
		r.has("nothing", read)
		r.curl("-T", os.DevNull, "/pipes/nothing").ends(0, "200")
		if got, _ := rd.ends(0, "200"); got != "" {
			r.Errorf("%q", got)
		}
	})
}

// What comes out while more is to come leaves at once.
func TestCurlLines(t *testing.T) {
	everyWay(t, func(r *rig) {
		w := r.curl("-T", "-", "/pipes/log")
		rd := r.reader("log")
		buf := make([]byte, 100)
		for _, line := range []string{"one\n", "two\n"} {
			io.WriteString(w.in, line)
			if n, err := rd.Read(buf); err != nil || string(buf[:n]) != line {
				r.Fatalf("%q, %v", buf[:n], err)
			}
		}
		w.in.Close()
		if n, err := rd.Read(buf); err != io.EOF {
			r.Errorf("%q, %v", buf[:n], err)
		}
		w.ends(0, "200")
	})
}

func TestCurlReadsTornStream(t *testing.T) {
	everyWay(t, func(r *rig) {
		for _, text := range []string{"", "some", strings.Repeat("much ", 100000)} {
			rd := r.curl("-f", "/pipes/p")
			w := r.writer("p")
			if _, err := w.WriteString(text); err != nil || w.Flush() != nil {
				r.Fatal(err)
			}
			r.has("p", both)
			w.CloseWithError(errors.New("out of paper"))
			if got, _ := rd.ends(18, "200"); got != text {
				r.Errorf("%d bytes, want %d", len(got), len(text))
			}
			r.free("p")
		}
	})
}

func TestCurlReadsFromBrokerThatEnds(t *testing.T) {
	everyWay(t, func(r *rig) {
		w := r.writer("p")
		rd := r.curl("-f", "/pipes/p")
		if _, err := w.WriteString("some"); err != nil || w.Flush() != nil {
			r.Fatal(err)
		}
		r.broker.Close()
		rd.ends(18, "200")
		r.curl("/pipes/p").ends(0, "502")
	})
}

func TestCurlKilledWriter(t *testing.T) {
	everyWay(t, func(r *rig) {
		rd := r.curl("-f", "/pipes/p")
		w := r.curl("-T", "-", "/pipes/p") // says nothing
		r.has("p", both)
		w.kill()
		rd.ends(18, "200")
		r.free("p")

		rd = r.curl("-f", "/pipes/p")
		w = r.curl("-T", "/dev/zero", "/pipes/p") // is at it
		r.has("p", func(p zpipes.PipeInfo) bool { return p.BytesOut > 4<<20 })
		w.kill()
		rd.ends(18, "200")
		r.free("p")

		file, _ := r.file(1000)
		w = r.curl("-T", file, "/pipes/p") // waits for a reader, to be told that it has all
		r.has("p", func(p zpipes.PipeInfo) bool { return waits(p) && p.Writer })
		w.kill()
		r.free("p")
	})
}

func TestCurlKilledReader(t *testing.T) {
	everyWay(t, func(r *rig) {
		rd := r.curl("/pipes/p")
		w := r.curl("-T", ".", "/pipes/p") // says nothing; with -T - curl does not look
		r.has("p", both)
		rd.kill()
		if got, _ := w.ends(0, "410"); !strings.Contains(got, "reader") {
			r.Errorf("%q", got)
		}
		r.free("p")

		rd = r.curl("-o", os.DevNull, "/pipes/p")
		w = r.curl("-f", "-T", "/dev/zero", "/pipes/p") // is at it
		r.has("p", func(p zpipes.PipeInfo) bool { return p.BytesOut > 4<<20 })
		rd.kill()
		w.ends(22, "410")
		r.free("p")

		rd = r.curl("/pipes/p") // waits
		r.has("p", read)
		rd.kill()
		r.free("p")
	})
}

// Whoever dies, and whenever: the other side learns it, and a download that ends well is whole.
func TestCurlKilledAtRandom(t *testing.T) {
	everyWay(t, func(r *rig) {
		file, text := r.file(6 << 20)
		to := filepath.Join(r.dir, "copy")
		for i := range 12 {
			rd := r.curl("-fo", to, "/pipes/p")
			r.has("p", read)
			w := r.curl("-fT", file, "/pipes/p")
			victim, other := w, rd
			if i%2 == 0 {
				victim, other = rd, w
			}
			enough := 1 + rand.Int64N(int64(len(text)))
			eventually(r, "some has passed", func() bool {
				p, err := r.client.Stat(r.Context(), "p")
				return err != nil || p.BytesOut >= enough // or all has
			})
			victim.kill()
			other.over()
			got, _ := os.ReadFile(to)
			if code := other.ProcessState.ExitCode(); code == -1 || rd.ProcessState.ExitCode() == 0 && !bytes.Equal(got, text) {
				r.Fatalf("%d bytes of %d; the writer: %v, the reader: %v", len(got), len(text), w.ProcessState, rd.ProcessState)
			}
			r.free("p")
			os.Remove(to)
		}
	})
}

func TestCurlBusy(t *testing.T) {
	everyWay(t, func(r *rig) {
		file, _ := r.file(2 << 20) // so much that curl asks first
		w := r.curl("-T", "-", "/pipes/p")
		r.has("p", written)
		if _, sent := r.curl("-T", file, "/pipes/p").ends(0, "409"); sent != "0" {
			r.Error("sent in vain:", sent)
		}
		rd := r.curl("/pipes/p")
		r.has("p", both)
		r.curl("/pipes/p").ends(0, "409")
		w.in.Close()
		w.ends(0, "200")
		rd.ends(0, "200")

		out := r.reader("q") // not through the door
		r.writer("q")
		r.curl("-T", file, "/pipes/q").ends(0, "409")
		r.curl("/pipes/q").ends(0, "409")
		out.Close()
	})
}

func TestCurlNoBroker(t *testing.T) {
	r := newRig(t, door.Config{}, nil)
	c, err := zpipes.ClientConfig{Timeout: 1}.NewClient("there-is-none")
	if err != nil {
		t.Fatal(err)
	}
	r.serve(c, door.Config{}, nil)
	file, _ := r.file(2 << 20)
	r.curl("/pipes/p").ends(0, "502")
	r.curl("-f", "/queues/q").ends(22, "502")
	r.curl("-I", "/pipes/p").ends(0, "502")
	if _, sent := r.curl("-T", file, "/pipes/p").ends(0, "502"); sent != "0" {
		r.Error("sent in vain:", sent)
	}
}

func TestCurlMode(t *testing.T) {
	everyWay(t, func(r *rig) {
		r.curl("-d", "a job", "/queues/q").ends(0, "200")
		r.curl("/pipes/q").ends(0, "409")
		r.curl("-d", "some", "/pipes/q").ends(0, "409")
		r.curl("-I", "/pipes/q").ends(0, "409")
		r.reader("p")
		r.curl("/queues/p").ends(0, "409")
		r.curl("-d", "some", "/queues/p").ends(0, "409")
		r.curl("-I", "/queues/p").ends(0, "409")
	})
}

func TestCurlRanges(t *testing.T) {
	r := newRig(t, door.Config{}, nil)
	w := r.writer("p")
	w.WriteString("some")
	r.curl("-r", "0-1", "/pipes/p").ends(18, "416")
	part := filepath.Join(r.dir, "part")
	if err := os.WriteFile(part, []byte("so"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.curl("-f", "-C", "-", "-o", part, "/pipes/p").ends(18, "416") // not 0, as if it had all
	r.curl("-C", "1", "-T", part, "/pipes/other").ends(0, "400")
	rd := r.reader("p")
	buf := make([]byte, 10)
	if n, err := rd.Read(buf); err != nil || string(buf[:n]) != "some" {
		t.Errorf("%q, %v: a range took it", buf[:n], err)
	}
}

func TestCurlOldHTTP(t *testing.T) {
	r := newRig(t, door.Config{}, nil)
	r.writer("p").WriteString("some")
	r.curl("-0", "/pipes/p").ends(0, "505")
	r.curl("-0", "/queues/q?follow").ends(0, "505")
	r.has("p", func(p zpipes.PipeInfo) bool { return !p.Reader && p.BytesOut == 0 })
}

func TestCurlQueue(t *testing.T) {
	everyWay(t, func(r *rig) {
		file, text := r.file(300000)
		r.curl("--data-binary", "@"+file, "/queues/jobs").ends(0, "200")
		r.curl("-T", os.DevNull, "/queues/jobs").ends(0, "200")
		r.curl("-d", "last", "/queues/jobs").ends(0, "200")
		for _, want := range []string{string(text), "", "last"} {
			if got, _ := r.curl("-f", "/queues/jobs").ends(0, "200"); got != want {
				r.Errorf("%d bytes, want %d", len(got), len(want))
			}
		}
		r.curl("-f", "/queues/jobs").ends(0, "204")
		r.curl("-f", "/queues/jobs?wait=0").ends(0, "204")

		rd := r.curl("-f", "/queues/jobs?wait=1h")
		r.has("jobs", func(p zpipes.PipeInfo) bool { return p.Reads })
		r.curl("-d", "late", "/queues/jobs").ends(0, "200")
		if got, _ := rd.ends(0, "200"); got != "late" {
			r.Errorf("%q", got)
		}

		rd = r.curl("/queues/jobs?wait=3600") // waits, and takes nothing with it
		r.has("jobs", func(p zpipes.PipeInfo) bool { return p.Reads })
		rd.kill()
		eventually(r, "it has gone", func() bool {
			p, err := r.client.Stat(r.Context(), "jobs")
			return err == nil && !p.Reads
		})
		r.curl("-d", "kept", "/queues/jobs").ends(0, "200")
		if got, _ := r.curl("-f", "/queues/jobs").ends(0, "200"); got != "kept" {
			r.Errorf("%q", got)
		}

		for _, wait := range []string{"soon", "-1s", ""} {
			r.curl("/queues/jobs?wait="+wait).ends(0, "400")
		}
	})
}

func TestCurlFollow(t *testing.T) {
	everyWay(t, func(r *rig) {
		for _, chunk := range []string{"one", "", "three"} {
			r.curl("-d", chunk, "/queues/jobs").ends(0, "200")
		}
		if got, _ := r.curl("-f", "/queues/jobs?follow&wait=300ms").ends(0, "200"); got != "one\n\nthree\n" {
			r.Errorf("%q", got)
		}
		rd := r.curl("-f", "/queues/jobs?follow&null")
		r.has("jobs", func(p zpipes.PipeInfo) bool { return p.Reads })
		r.curl("-d", "a\nb", "/queues/jobs").ends(0, "200")
		r.has("jobs", func(p zpipes.PipeInfo) bool { return p.Reads && p.Chunks == 0 })
		if err := r.client.DeleteQueue(r.Context(), "jobs"); err != nil {
			r.Fatal(err)
		}
		if got, _ := rd.ends(18, "200"); got != "a\nb\x00" { // there is no end that is clean
			r.Errorf("%q", got)
		}
	})
}

func TestCurlChunkTooLarge(t *testing.T) {
	r := newRig(t, door.Config{MaxChunk: 3 << 20}, nil)
	file, _ := r.file(3<<20 + 1)
	if _, sent := r.curl("-T", file, "/queues/q").ends(0, "413"); sent != "0" {
		r.Error("sent in vain:", sent)
	}
	r.curl("-H", "Transfer-Encoding: chunked", "-T", file, "/queues/q").ends(0, "413")
	file, _ = r.file(2 << 20) // too large for the broker
	r.curl("-T", file, "/queues/q").ends(0, "413")
	r.curl("-f", "/queues/q").ends(0, "204")
}

func TestCurlKilledSender(t *testing.T) {
	everyWay(t, func(r *rig) {
		c := r.curl("-T", "-", "/queues/q")
		io.WriteString(c.in, "half of ")
		c.kill()
		r.curl("-f", "/queues/q").ends(0, "204")
		r.free("q") // it never had a chunk
	})
}

// A broadcast has any number of readers, who come and go, and one who comes late gets what is kept.
func TestCurlBroadcast(t *testing.T) {
	everyWay(t, func(r *rig) {
		has := func(n int) func(zpipes.PipeInfo) bool {
			return func(p zpipes.PipeInfo) bool { return p.Mode == zpipes.ModeBroadcast && p.Readers == n }
		}
		w := r.curl("-T", "-", "-H", "Content-Type: text/plain", "/pipes/log?broadcast&readers=2&keep=100")
		r.has("log", has(0))
		first, second := r.curl("-f", "/pipes/log"), r.curl("-f", "/pipes/log")
		r.has("log", has(2))
		io.WriteString(w.in, "one\n")
		r.has("log", func(p zpipes.PipeInfo) bool { return p.BytesOut == 8 })
		second.kill()
		r.has("log", has(1))
		late := r.curl("-f", "-w", "%{content_type}\n%{http_code} ", "/pipes/log")
		r.has("log", has(2))
		if h := r.wants(200, "", "HEAD", "/pipes/log", ""); h.Get("Zpipes-Readers") != "2" || h.Get("Zpipes-Writer") != "true" {
			r.Errorf("%q", h)
		}
		r.curl("-T", os.DevNull, "/pipes/log?broadcast").ends(0, "409")
		io.WriteString(w.in, "two\n")
		w.in.Close()
		w.ends(0, "200")
		if got, _ := first.ends(0, "200"); got != "one\ntwo\n" {
			r.Errorf("%q", got)
		}
		if got, _ := late.ends(0, "200"); got != "one\ntwo\ntext/plain" {
			r.Errorf("late: %q", got)
		}
		r.free("log")

		rd := r.curl("-f", "/pipes/log") // there may be one before the writer
		r.has("log", read)
		w = r.curl("-T", "-", "/pipes/log?broadcast&readers=1")
		r.has("log", has(1))
		io.WriteString(w.in, "half")
		r.has("log", func(p zpipes.PipeInfo) bool { return p.BytesOut == 4 })
		w.kill()
		if got, _ := rd.ends(18, "200"); got != "half" {
			r.Errorf("%q", got)
		}
		for _, query := range []string{"keep=1", "patience=1s", "broadcast&keep=much", "broadcast&keep=64k&patience=1s", "broadcast&keep=-5&patience=1s", "broadcast&readers=-1", "broadcast&patience=soon", "broadcast&patience=1001h"} {
			r.curl("-T", os.DevNull, "/pipes/other?"+query).ends(0, "400")
		}
	})
}

// A reader that stands still is left behind, and its answer is cut.
func TestCurlBroadcastLeavesTheSlowBehind(t *testing.T) {
	everyWay(t, func(r *rig) {
		w := r.curl("-T", "/dev/zero", "/pipes/log?broadcast&patience=100ms")
		r.has("log", written)
		q, err := http.NewRequestWithContext(r.Context(), "GET", r.url+"/pipes/log", nil)
		if err != nil {
			r.Fatal(err)
		}
		a, err := r.server.Client().Do(q)
		if err != nil {
			r.Fatal(err)
		}
		defer a.Body.Close()
		rd := r.curl("-fo", os.DevNull, "/pipes/log")
		r.has("log", func(p zpipes.PipeInfo) bool { return p.BytesIn > 64<<20 })
		if n, err := io.Copy(io.Discard, a.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
			r.Errorf("%d bytes, %v", n, err)
		}
		w.kill()
		rd.ends(18, "200")
		r.free("log")
	})
}
