package main

import (
	"archive/tar"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The demo starts its own executable, which here is the test.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestDemo(t *testing.T) {
	dir := t.TempDir()
	for name, size := range map[string]int{"empty": 0, "small": 10, "a/large": 3 << 20, "a/b/odd": 513} {
		content := make([]byte, size)
		rand.Read(content)
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := newTally()
	archive := tar.NewWriter(want)
	if err := archive.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}

	var out strings.Builder
	if err := demo(dir, &out); err != nil {
		t.Fatal(err)
	}
	sum := fmt.Sprintf("%x", want.sum.Sum(nil))
	if strings.Count(out.String(), sum) != 2 {
		t.Errorf("not both ends have the sum %s:\n%s", sum, &out)
	}
}

// A writer that can't write takes the reader and the broker down with it.
func TestNoDirectory(t *testing.T) {
	if err := demo(filepath.Join(t.TempDir(), "missing"), t.Output()); err == nil {
		t.Error("no error")
	}
}
