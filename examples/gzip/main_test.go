package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// The processes of the test are its own executable.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		main()
		return
	}
	os.Exit(m.Run())
}

// process is a command that is interrupted, not killed, at the end of the test.
func process(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second // then it is killed after all
	cmd.Stderr = t.Output()
	return cmd
}

func TestThreeProcesses(t *testing.T) {
	name := fmt.Sprintf("gzip-test-%d", os.Getpid())

	broker := process(t, "broker", name)
	up, err := broker.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := broker.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := broker.Wait(); !errors.Is(err, context.Canceled) {
			t.Errorf("the broker ended with %v", err)
		}
	})
	if _, err := up.Read(make([]byte, 1)); err != nil {
		t.Fatal("the broker did not start:", err)
	}

	// Half of it compresses well, half does not at all.
	file := bytes.Repeat([]byte("a line that is repeated\n"), 50_000)
	for range len(file) {
		file = append(file, byte(rand.Uint32()))
	}
	writer := process(t, "write", name)
	writer.Stdin = bytes.NewReader(file)
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	got, err := process(t, "read", name).Output()
	if err != nil {
		t.Error("the reader ended with", err)
	}
	if err := writer.Wait(); err != nil {
		t.Error("the writer ended with", err)
	}
	if !bytes.Equal(got, file) {
		t.Errorf("the reader has %d bytes that are not the %d sent", len(got), len(file))
	}
}
