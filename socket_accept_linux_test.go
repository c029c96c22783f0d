//go:build cgo && linux && !core

package zpipes

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What the library does to libzmq's accept4 and rand is not done to those of other C code.
func TestSocketAcceptOfOtherCode(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "run", "./testdata/host").CombinedOutput()
	want := fmt.Sprintf("%q, %q\n", syscall.Errno(0), syscall.EMFILE)
	if string(out) != want || err != nil {
		t.Errorf("%s, %v; want %s", out, err, want)
	}
}

// A module and its fork, or its next major version, can be in one program. C knows
// nothing of Go's packages.
func TestSocketAcceptOfTwoCopies(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const own, fork = "github.com/zpipes/zpipes", "example.org/fork/v2"
	for _, pattern := range []string{"*.go", "*.c", "internal/*/*.go"} {
		files, _ := filepath.Glob(pattern)
		for _, name := range files {
			if err := os.MkdirAll(filepath.Join(dir, "fork", filepath.Dir(name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(name, "_test.go") {
				put(filepath.Join("fork", name), strings.ReplaceAll(scriptRead(t, name), own+"/internal", fork+"/internal"))
			}
		}
	}
	mod, sum := scriptRead(t, "go.mod"), scriptRead(t, "go.sum")
	put("fork/go.mod", strings.Replace(mod, own, fork, 1))
	put("go.mod", strings.Replace(mod, own, "two", 1)+
		"\nrequire (\n"+own+" v0.0.0\n"+fork+" v2.0.0\n)\nreplace (\n"+own+" => "+here+"\n"+fork+" => ./fork\n)\n")
	put("go.sum", sum)
	put("main.go", `package main

import (
	"context"
	"fmt"

	v2 "`+fork+`"
	v1 "`+own+`"
)

func main() {
	b, err := v1.NewBroker("")
	if err == nil {
		defer b.Close()
		c, _ := v2.NewClient(b.Name())
		defer c.Close()
		_, err = c.Ping(context.Background())
	}
	fmt.Println(err)
}
`)
	cmd := exec.CommandContext(t.Context(), "go", "run", "-trimpath", ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod -buildvcs=false")
	if out, err := cmd.CombinedOutput(); string(out) != "<nil>\n" || err != nil {
		t.Errorf("%s, %v", out, err)
	}
}
