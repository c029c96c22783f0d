package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs the service and returns its address, and what stops it and tells what it printed.
func start(t *testing.T) (address string, stop func() string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var out strings.Builder
	done := make(chan error, 1)
	go func() { done <- run(ctx, listener, &out) }()
	return listener.Addr().String(), func() string {
		cancel()
		if err := <-done; err != nil {
			t.Error("the service ended with", err)
		}
		return out.String()
	}
}

func TestPost(t *testing.T) {
	address, stop := start(t)
	var want strings.Builder
	for i := range 3 {
		body := strings.Repeat(fmt.Sprintf("line of body %d\n", i), 10_000)
		want.WriteString(body)
		resp, err := http.Post("http://"+address, "text/plain", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNoContent {
			t.Errorf("body %d: %s", i, resp.Status)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	if got := stop(); got != want.String() {
		t.Errorf("printed %d bytes that are not the %d sent", len(got), want.Len())
	}
}

func TestSenderBreaksOff(t *testing.T) {
	address, stop := start(t)
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: embed\r\nContent-Length: 100\r\n\r\nthe first line\n")
	// The service answers once it has seen that this is all.
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	want := "the first line\n... and here the sender broke off\n"
	if got := stop(); got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
}
