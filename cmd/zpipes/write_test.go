package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/zpipes/zpipes"
)

// A reader that is started beside a write which fails before it has written anything
// may come later than that fails.
func TestWriteThatFailsTellsWhoComesLater(t *testing.T) {
	b, err := zpipes.BrokerConfig{Endpoints: []string{}}.NewBroker("")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	c := b.Client()
	defer c.Close()
	dir := t.TempDir()
	noProgram := filepath.Join(dir, "program")
	if err := os.WriteFile(noProgram, []byte("#!"+dir+"/missing\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for what, args := range map[string][]string{
		"a file that is not there":           {filepath.Join(dir, "missing")},
		"a directory":                        {dir},
		"a program that is not there":        {"--", filepath.Join(dir, "missing")},
		"a program that can't be started":    {"--", noProgram},
		"a program that fails":               {"--", "false"},
		"a file that can't be read":          {"/proc/self/mem"},
		"one behind a file that can be read": {"write_test.go", "/proc/self/mem"},
	} {
		t.Run(what, func(t *testing.T) {
			if _, err := os.Stat("/proc/self/mem"); err != nil && args[len(args)-1] == "/proc/self/mem" {
				t.Skip(err)
			}
			code := make(chan int)
			go func() { code <- run(append([]string{"zpipes", "--broker", b.Name(), "write", "p"}, args...)) }()
			eventually(t, "the writer is there", func() bool {
				for p := range b.Pipes() {
					return p.Writer
				}
				return false
			})
			r, err := c.OpenReader(t.Context(), "p")
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			r.SetReadDeadline(time.Now().Add(soonest))
			if _, err := io.Copy(io.Discard, r); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("the reader got %v", err)
			}
			if got := <-code; got != exitError {
				t.Errorf("the exit status is %d", got)
			}
		})
	}
}
