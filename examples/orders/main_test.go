package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// The program is the test's own executable.
const isProgram = "ZPIPES_ORDERS"

func TestMain(m *testing.M) {
	if os.Getenv(isProgram) != "" {
		main()
		return
	}
	os.Setenv(isProgram, "1")
	os.Exit(m.Run())
}

func TestAll(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, os.Args[0]).Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := "the service was killed, and started again\n500 orders, each of them done\n"; string(out) != want {
		t.Errorf("it prints %q, not %q", out, want)
	}
}

// What was accepted is done by a worker that comes later, also at another service in that directory; an
// order that is sent again is done once, and one that can't be done holds up no other.
func TestRoles(t *testing.T) {
	dir, name := t.TempDir(), fmt.Sprint(t.Name(), os.Getpid())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	service, out, err := start(ctx, "serve", name, dir, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	out.Scan()
	address := strings.TrimPrefix(out.Text(), "serving at ")
	for _, o := range []struct{ key, order string }{{"", "impossible"}, {"k", "one"}, {"k", "one"}, {"", "two"}} {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/orders", strings.NewReader(o.order))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Idempotency-Key", o.key)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		if answer.StatusCode != http.StatusAccepted {
			t.Errorf("%q: %s", o.order, answer.Status)
		}
	}
	service.Process.Kill()
	service.Wait()
	if service, _, err = start(ctx, "serve", name, dir, address); err != nil {
		t.Fatal(err)
	}
	worker, out, err := start(ctx, "work", name)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"did one", "did two"} {
		if out.Scan(); out.Text() != want {
			t.Errorf("the worker said %q, not %q", out.Text(), want)
		}
	}
	worker.Process.Signal(os.Interrupt)
	if out.Scan() {
		t.Errorf("the worker said %q", out.Text())
	}
	if err := worker.Wait(); err != nil {
		t.Error("the worker ended with", err)
	}
	service.Process.Signal(os.Interrupt)
	if err := service.Wait(); err != nil {
		t.Error("the service ended with", err)
	}
}
