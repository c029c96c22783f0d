//go:build unix

package zpipes

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func namesIn(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return strings.Join(names, " ")
}

// Of many that start at a path, again and again, one at most serves at any time.
func TestEndpointClaimOfAPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	var held sync.Mutex
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for won := 0; won < 200; {
				release, err := lockPath(path)
				if err == errTaken {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				won++
				if !held.TryLock() {
					t.Error("two hold it")
					return
				}
				held.Unlock()
				release()
			}
		})
	}
	wg.Wait()
	if left := namesIn(t, filepath.Dir(path)); left != "" {
		t.Errorf("left behind: %q", left)
	}
}

// What is not a broker's lock is left alone.
func TestEndpointLockOfOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "yarn")
	if err := os.WriteFile(path+".lock", []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	if unlock, err := lockPath(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("it is taken for one: %v", err)
		unlock()
	}
	if text, err := os.ReadFile(path + ".lock"); string(text) != "theirs" {
		t.Errorf("their file: %q, %v", text, err)
	}
}
