//go:build linux

package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/zpipes/zpipes"
)

// Nobody can connect, for the socket is gone or another process's; the broker itself is
// as well as ever.
func TestHTTPHealthOfTheWay(t *testing.T) {
	for _, test := range []struct {
		what  string
		spoil func(path string)
	}{
		{"a socket that is gone", func(path string) { os.Remove(path) }},
		{"a socket that is another one's", func(path string) {
			os.Remove(path)
			serve := exec.Command("listen", path)
			out, err := serve.StdoutPipe()
			if err != nil || serve.Start() != nil {
				t.Fatal("can't start one", err)
			}
			t.Cleanup(func() { serve.Process.Kill(); serve.Wait() })
			if line, _ := bufio.NewReader(out).ReadString('\n'); line != "listening\n" {
				t.Fatal(line)
			}
		}},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "s")
		b, err := zpipes.BrokerConfig{Endpoints: []string{"ipc://" + filepath.Join(dir, "fine"), "ipc://" + path}}.NewBroker("")
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		r := servePage(t, b, viewerPatience)
		if a := r.bare("healthz"); a.StatusCode != 200 {
			t.Fatal("of a healthy broker:", a.Status)
		}
		test.spoil(path)
		eventually(t, test.what+" is found out", func() bool { return r.bare("healthz").StatusCode == 503 })
		r.sampler.sample(t.Context())
		if text := r.text("metrics"); !strings.Contains(text, "\nzpipes_broker_up 0\n") {
			t.Error("with", test.what, "the broker is up")
		}
		if v := r.sampler.look(); v.State != "unreachable" || !strings.Contains(v.Events[0].Text, path) {
			t.Errorf("%s: %+v", test.what, v)
		}
	}
}

// Whoever asks for it as often as he likes has the broker asked once in a while.
func TestHTTPHealthIsNoLoad(t *testing.T) {
	r := newPageRig(t)
	r.bare("healthz")
	first := r.health.latest.Load()
	for range 20 {
		r.bare("healthz")
	}
	if n := time.Since(first.at); r.health.latest.Load() != first && n < healthLasts {
		t.Error("it was asked again after", n)
	}
}

// The page of a process that stands still.
func TestPageOfAHungBroker(t *testing.T) {
	r := newPageRig(t)
	b := newPageBrowser(r, 1200, 800)
	cmd := exec.Command("zpipes", "broker", "--listen", "ipc://"+filepath.Join(t.TempDir(), "s"), "--http", "0", "hung-"+filepath.Base(t.TempDir()))
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	way := ""
	for lines := bufio.NewScanner(out); way == "" && lines.Scan(); {
		way = regexp.MustCompile(`http://\S+`).FindString(lines.Text())
	}
	b.do(chromedp.Navigate(way))
	eventually(t, "all is well", func() bool { return b.text("#state") == "serving" })
	if at := b.evaluate("location.href"); strings.Contains(at, "token") {
		t.Error("the token stays in the address:", at)
	}
	cmd.Process.Signal(syscall.SIGSTOP)
	eventually(t, "the page says so", func() bool { return strings.HasPrefix(b.text("#state"), "no news for ") })
	cmd.Process.Signal(syscall.SIGCONT)
	eventually(t, "and that it is well again", func() bool { return b.text("#state") == "serving" })
}
