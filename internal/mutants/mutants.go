// Package mutants compiles faulty copies of a package, for tests that show that a check finds
// each of the faults.
package mutants

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const here = "github.com/zpipes/zpipes/internal/"

// Source is a file of one of the copies.
type Source struct {
	Copy    int    // its number
	Package string // by which name it is imported
	File    string
	Text    string
}

// Replace puts wrong in the place of right, which has to be there once.
func (s *Source) Replace(t testing.TB, right, wrong string) {
	t.Helper()
	if n := strings.Count(s.Text, right); n != 1 {
		t.Fatalf("%s has this %d times: %s", s.File, n, right)
	}
	s.Text = strings.Replace(s.Text, right, wrong, 1)
}

// Compile copies the package in whose directory the test runs so many times, and makes a program
// that runs a test of each copy: -test.run ^TestX$/^3$ that of number 3. Only an overlay knows
// the copies. They have those of the package's test files that belong says, and each file as
// change leaves it; flags are go test's.
func Compile(t *testing.T, copies int, test string, belongs func(file string) bool, change func(*Source), flags ...string) (program string) {
	t.Helper()
	dir := t.TempDir()
	of, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	overlay := make(map[string]string)
	put := func(text string, path ...string) {
		file := filepath.Join(dir, fmt.Sprint(len(overlay), ".go"))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay[filepath.Join(append([]string{of, "copies"}, path...)...)] = file
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	imports, tests := "", ""
	for i := range copies {
		name := fmt.Sprint("mutant", i)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") && !belongs(file) {
				continue
			}
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := Source{Copy: i, Package: name, File: file, Text: string(b)}
			change(&s)
			put(s.Text, name, strings.Replace(file, "_test.go", ".go", 1))
		}
		imports += fmt.Sprintf("\t%s %q\n", name, here+filepath.Base(of)+"/copies/"+name)
		tests += fmt.Sprintf("\tt.Run(\"%d\", %s.%s)\n", i, name, test)
	}
	put("package copies\n\nimport (\n\t\"testing\"\n"+imports+")\n\nfunc "+test+"(t *testing.T) {\n"+tests+"}\n", "all_test.go")
	b, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, b, 0o600); err != nil {
		t.Fatal(err)
	}
	program = filepath.Join(dir, "copies.test")
	args := append([]string{"test", "-c", "-o", program, "-vet=off", "-overlay", list}, flags...)
	if out, err := exec.Command("go", append(args, "./copies")...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}
