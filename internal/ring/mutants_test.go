//go:build !ringsteps

package ring

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A mutant is a fault that this package could have had. Some were once there.
type mutant struct{ name, file, right, wrong string }

var mutants = []mutant{
	{"the reader looks before it says that it sleeps", "reader.go",
		"r.rsleep.store(1)\n\tr.look()", "r.look()\n\tr.rsleep.store(1)"},
	{"the reader takes the count after it has looked whether the ring is closed", "reader.go",
		"n := r.written.load()\n\tif r.closed.load() != 0 {\n\t\treturn // the keeper will tell how much counts\n\t}", "if r.closed.load() != 0 {\n\t\treturn\n\t}\n\tn := r.written.load()"},
	{"the reader does not ask for what was gathered", "reader.go",
		"r.look(); r.There() == 0 {", "r.look(); false {"},
	{"the reader looks for what was gathered before it says that it sleeps", "reader.go",
		"r.rsleep.store(1)\n\tr.look()\n\tif r.There() == 0 && r.staged.load() != 0 {",
		"staged := r.staged.load()\n\tr.rsleep.store(1)\n\tr.look()\n\tif r.There() == 0 && staged != 0 {"},
	{"the reader gives room back before it has copied", "reader.go",
		"if err := r.Copy(b[n : n+k]); err != nil {\n\t\t\treturn n, err\n\t\t}\n\t\tif err := r.Consume(k); err != nil {",
		"r.Consume(k)\n\t\tr.count -= uint64(k)\n\t\terr := r.Copy(b[n : n+k])\n\t\tif r.count += uint64(k); err != nil {"},
	{"the reader rings before the writer can see that there is room", "reader.go",
		"r.read.store(r.count)\n", "defer r.read.store(r.count)\n"},
	{"the writer looks whether the reader sleeps before it publishes", "writer.go",
		"w.written.store(w.count)\n\tif w.rsleep.load() != 0 && ", "sleeps := w.rsleep.load()\n\tw.written.store(w.count)\n\tif sleeps != 0 && "},
	{"the writer looks whether the reader sleeps before it says that it gathers", "writer.go",
		"if len(w.gathered) == len(b) {\n\t\tw.staged.store(1)\n\t}", "sleeps := w.rsleep.load()\n\tif len(w.gathered) == len(b) {\n\t\tw.staged.store(1)\n\t}\n\tif sleeps == 0 {\n\t\treturn true, nil\n\t}"},
	{"the writer publishes before it has copied", "writer.go",
		"w.put(w.count, w.gathered)\n\t\tw.gathered = w.gathered[:0]\n\t\tw.publish(n)", "w.publish(n)\n\t\tw.put(w.count-uint64(n), w.gathered)\n\t\tw.gathered = w.gathered[:0]"},
	{"the writer judges by the count that it saw before it said that it waits", "writer.go",
		"w.wsleep.store(n)\n\t}\n\tw.look()", "w.wsleep.store(n)\n\t}"},
	{"the writer says only once that it waits", "writer.go",
		"w.wsleep.load() == 0 || n < w.need", "w.need == 0 || n < w.need"},
	{"the writer confirms without a look whether the ring is closed", "writer.go",
		"w.closed.load() != 0 || w.err != nil", "w.err != nil"},
	{"the keeper takes the count before it closes the ring", "keeper.go",
		"k.closed.store(1)\n\treturn k.written.load(), nil", "final = k.written.load()\n\tk.closed.store(1)\n\treturn final, nil"},
}

// In this package all orders of steps end well, and in each of the mutants one is found
// that does not.
func TestInterleavings(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the package many times")
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("needs go: ", err)
	}
	if out, err := steps(t, mutant{}); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			out, err := steps(t, m)
			if err == nil {
				t.Fatal("the fault is not found")
			}
			if !strings.Contains(out, "after the steps") {
				t.Fatalf("something else is wrong: %v\n%s", err, out)
			}
		})
	}
}

// steps runs TestSteps on the mutant.
func steps(t *testing.T, m mutant) (out string, err error) {
	dir := t.TempDir()
	args := []string{"test", "-tags", "ringsteps", "-run", "^TestSteps$", "-count=1", "-vet=off"}
	if m.file != "" {
		source, err := os.ReadFile(m.file)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(source), m.right); n != 1 {
			t.Fatalf("%s has this %d times: %s", m.file, n, m.right)
		}
		file, err := filepath.Abs(m.file)
		if err != nil {
			t.Fatal(err)
		}
		mutated := filepath.Join(dir, m.file)
		overlay, err := json.Marshal(map[string]map[string]string{"Replace": {file: mutated}})
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, "-overlay", filepath.Join(dir, "overlay.json"))
		for name, b := range map[string]string{
			mutated: strings.Replace(string(source), m.right, m.wrong, 1), args[len(args)-1]: string(overlay),
		} {
			if err := os.WriteFile(name, []byte(b), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	b, err := exec.Command("go", append(args, ".")...).CombinedOutput()
	return string(b), err
}
