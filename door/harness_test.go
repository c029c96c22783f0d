package door_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/zpipes/zpipes"
	"github.com/zpipes/zpipes/door"
)

// soonest is how long what happens at once may take on a busy machine.
const soonest = 20 * time.Second

// eventually waits until something is so.
func eventually(t testing.TB, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(soonest); !so(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", soonest, what)
		}
	}
}

// A rig is a door, and a client of the same broker.
type rig struct {
	*testing.T
	broker *zpipes.Broker
	client *zpipes.Client // not the door's
	server *httptest.Server
	url    string
	dir    string
}

// newRig serves a door; change, if any, alters its server before it starts.
func newRig(t *testing.T, cfg door.Config, change func(*httptest.Server)) *rig {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	b, err := zpipes.BrokerConfig{Private: true}.NewBroker("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	r := &rig{T: t, broker: b, client: b.Client(), dir: t.TempDir()}
	r.serve(b.Client(), cfg, change)
	return r
}

func (r *rig) serve(c *zpipes.Client, cfg door.Config, change func(*httptest.Server)) {
	r.Helper()
	h, err := cfg.New(c)
	if err != nil {
		r.Fatal(err)
	}
	server := httptest.NewUnstartedServer(h)
	if change != nil {
		change(server)
	}
	if server.TLS == nil {
		server.Start()
	}
	r.server, r.url = server, server.URL
	r.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		c.Close()
	})
}

// everyWay tries something with a door beside the broker, and with one in another
// process, as far as its client can tell.
func everyWay(t *testing.T, try func(r *rig)) {
	for _, way := range []string{"directly", "near"} {
		t.Run(way, func(t *testing.T) {
			r := newRig(t, door.Config{}, nil)
			if way == "near" {
				at := r.broker.Endpoints()
				c, err := zpipes.ClientConfig{Timeout: time.Second}.NewClient(at[len(at)-1])
				if err != nil {
					t.Fatal(err)
				}
				r.serve(c, door.Config{}, nil)
			}
			try(r)
		})
	}
}

func withTLS(s *httptest.Server) {
	s.EnableHTTP2 = true
	s.TLS = new(tls.Config)
	s.StartTLS()
}

func (r *rig) reader(name string) *zpipes.Reader {
	r.Helper()
	p, err := r.client.OpenReader(r.Context(), name)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { p.Close() })
	return p
}

func (r *rig) writer(name string) *zpipes.Writer {
	r.Helper()
	p, err := r.client.OpenWriter(r.Context(), name)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { p.CloseWithError(errors.New("the test is over")) })
	return p
}

// has waits until there is something of that name which is so.
func (r *rig) has(name string, so func(zpipes.PipeInfo) bool) {
	r.Helper()
	eventually(r, name+" is so", func() bool {
		p, err := r.client.Stat(r.Context(), name)
		return err == nil && so(p)
	})
}

func read(p zpipes.PipeInfo) bool    { return p.Reader }
func written(p zpipes.PipeInfo) bool { return p.Writer }
func both(p zpipes.PipeInfo) bool    { return p.Reader && p.Writer }
func waits(p zpipes.PipeInfo) bool   { return p.Writes }

// free waits until there is nothing of that name.
func (r *rig) free(name string) {
	r.Helper()
	eventually(r, name+" is free", func() bool {
		_, err := r.client.Stat(r.Context(), name)
		return errors.Is(err, os.ErrNotExist)
	})
}

// do asks, and returns the answer with its body read.
func (r *rig) do(method, path string, body io.Reader, header ...string) (*http.Response, string, error) {
	r.Helper()
	q, err := http.NewRequestWithContext(r.Context(), method, r.url+path, body)
	if err != nil {
		r.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		q.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			q.Host = header[i+1]
		}
	}
	a, err := r.server.Client().Do(q)
	if err != nil {
		r.Fatal(err)
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	return a, string(text), err
}

// wants asks, and the answer has to be that.
func (r *rig) wants(code int, text, method, path, body string, header ...string) http.Header {
	r.Helper()
	a, got, err := r.do(method, path, strings.NewReader(body), header...)
	if err != nil || a.StatusCode != code || !strings.Contains(got, text) {
		r.Errorf("%s %s %q: %s, %q, %v; want %d, %q", method, path, header, a.Status, got, err, code, text)
	}
	return a.Header
}

// A curl is a process of curl.
type curl struct {
	*exec.Cmd
	t    *testing.T
	out  bytes.Buffer // what it got, and in the last line the status
	errs bytes.Buffer
	in   io.WriteCloser
}

// curl starts curl with what the shell would give it. The last argument is a path of the
// door's. It prints the status and the size of the upload after what it gets.
func (r *rig) curl(args ...string) *curl {
	r.Helper()
	program, err := exec.LookPath("curl")
	if err != nil {
		r.Skip("there is no curl; on Debian, apt-get install curl")
	}
	last := len(args) - 1
	args[last] = r.url + args[last]
	c := &curl{t: r.T}
	c.Cmd = exec.Command(program, append([]string{"-q", "-sS", "--noproxy", "*", "-w", "\n%{http_code} %{size_upload}"}, args...)...)
	c.Stdout, c.Stderr = &c.out, &c.errs
	if c.in, err = c.StdinPipe(); err == nil {
		err = c.Start()
	}
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { c.kill() })
	return c
}

func (c *curl) kill() {
	if c.ProcessState == nil {
		c.Process.Kill()
		c.Wait()
	}
}

// over waits for its end.
func (c *curl) over() {
	timer := time.AfterFunc(soonest, func() { c.Process.Kill() })
	defer timer.Stop()
	c.Wait()
}

// ends waits for its end, which has to be with that status of its own and that of HTTP.
func (c *curl) ends(exit int, code string) (got string, sent string) {
	c.t.Helper()
	c.over()
	all := c.out.String()
	i := strings.LastIndexByte(all, '\n')
	status, sent, _ := strings.Cut(all[i+1:], " ")
	if c.ProcessState.ExitCode() != exit || status != code {
		c.t.Fatalf("%q: %v, HTTP %s, %q; want %d, HTTP %s", c.Args[6:], c.ProcessState, status, c.errs.String(), exit, code)
	}
	return all[:max(i, 0)], sent
}

// file makes one of n bytes, none like the other.
func (r *rig) file(n int) (name string, text []byte) {
	r.Helper()
	text = make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(text)
	name = filepath.Join(r.dir, "file")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		r.Fatal(err)
	}
	return name, text
}
