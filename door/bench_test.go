package door_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/zpipes/zpipes"
	"github.com/zpipes/zpipes/door"
)

// What curl sends to curl, by turns through the door and through a server with nothing but an
// io.Pipe: the rates, and the median of their ratios.
func BenchmarkCurlToCurl(b *testing.B) {
	program, err := exec.LookPath("curl")
	if err != nil {
		b.Skip("there is no curl")
	}
	broker, err := zpipes.BrokerConfig{Private: true}.NewBroker("")
	if err != nil {
		b.Fatal(err)
	}
	defer broker.Close()
	client := broker.Client()
	defer client.Close()
	h, err := door.Config{}.New(client)
	if err != nil {
		b.Fatal(err)
	}
	pipes := make(chan *io.PipeReader)
	mux := http.NewServeMux()
	mux.Handle("/", h)
	mux.HandleFunc("PUT /bare", func(w http.ResponseWriter, r *http.Request) {
		pr, pw := io.Pipe()
		pipes <- pr
		_, err := io.Copy(pw, r.Body)
		pw.CloseWithError(err)
	})
	mux.HandleFunc("GET /bare", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, <-pipes) })
	s := httptest.NewServer(mux)
	defer s.Close()

	const size = 256 << 20
	name := filepath.Join(b.TempDir(), "file")
	f, err := os.Create(name)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		b.Fatal(err)
	}
	pass := func(path string) time.Duration {
		curl := func(args ...string) *exec.Cmd {
			return exec.Command(program, append([]string{"-q", "-sSf", "--noproxy", "*", s.URL + path}, args...)...)
		}
		get, put := curl("-o", os.DevNull), curl("-T", name)
		start := time.Now()
		if err := errors.Join(get.Start(), put.Run(), get.Wait()); err != nil {
			b.Fatal(err)
		}
		return time.Since(start)
	}
	var ours, bare time.Duration
	var ratios []float64
	for b.Loop() {
		d, p := pass("/pipes/bench"), pass("/bare")
		ours, bare, ratios = ours+d, bare+p, append(ratios, p.Seconds()/d.Seconds())
	}
	slices.Sort(ratios)
	rate := func(d time.Duration) float64 { return float64(b.N) * size / 1e6 / d.Seconds() }
	b.ReportMetric(rate(ours), "door-MB/s")
	b.ReportMetric(rate(bare), "bare-MB/s")
	b.ReportMetric(ratios[len(ratios)/2], "door/bare")
	b.ReportMetric(0, "ns/op")
}
