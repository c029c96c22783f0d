//go:build !ringsteps

package ring

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/zpipes/zpipes/internal/mutants"
)

// A fault is one that this package could have had. Some were once there.
type fault struct{ name, file, right, wrong string }

var faults = []fault{
	{"the reader looks before it says that it sleeps", "reader.go",
		"r.rsleep.store(sleeps)\n\t\tr.look()", "r.look()\n\t\tr.rsleep.store(sleeps)"},
	{"the reader sleeps and has said that it only looks", "reader.go",
		"r.rsleep.store(sleeps)", "r.rsleep.store(looks)"},
	{"the reader does not look again where it goes from looking to sleeping", "reader.go",
		"r.rsleep.store(sleeps)\n\t\tr.look()", "if r.rsleep.load() != looks {\n\t\t\tr.look()\n\t\t}\n\t\tr.rsleep.store(sleeps)"},
	{"the reader takes the count after it has looked whether the ring is closed", "reader.go",
		"n := r.written.load()\n\tif r.closed.load() != 0 {\n\t\treturn // the keeper will tell how much counts\n\t}", "if r.closed.load() != 0 {\n\t\treturn\n\t}\n\tn := r.written.load()"},
	{"the reader does not ask for what was gathered", "reader.go",
		"r.staged.load() != 0 {\n\t\t\tr.bell()", "false {\n\t\t\tr.bell()"},
	{"the reader looks for what was gathered before it says that it sleeps", "reader.go",
		"r.rsleep.store(sleeps)\n\t\tr.look()\n\t\tif r.There() == 0 && r.staged.load() != 0 {",
		"staged := r.staged.load()\n\t\tr.rsleep.store(sleeps)\n\t\tr.look()\n\t\tif r.There() == 0 && staged != 0 {"},
	{"the reader gives room back before it has copied", "reader.go",
		"if err := r.Copy(b[n : n+k]); err != nil {\n\t\t\treturn n, err\n\t\t}\n\t\tif err := r.Consume(k); err != nil {",
		"r.Consume(k)\n\t\tr.count -= uint64(k)\n\t\terr := r.Copy(b[n : n+k])\n\t\tif r.count += uint64(k); err != nil {"},
	{"the reader rings before the writer can see that there is room", "reader.go",
		"r.read.store(r.count)\n", "defer r.read.store(r.count)\n"},
	{"the writer looks whether the reader sleeps before it publishes", "writer.go",
		"w.written.store(w.count)\n\tif w.rsleep.load() == sleeps && ", "was := w.rsleep.load()\n\tw.written.store(w.count)\n\tif was == sleeps && "},
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

// In this package all orders of steps end well, and in each copy with a fault one is found
// that does not.
func TestInterleavings(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the package many times")
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("needs go: ", err)
	}
	steps := func(file string) bool { return file == "steps_test.go" }
	program := mutants.Compile(t, 1+len(faults), "TestSteps", steps, func(s *mutants.Source) {
		if s.Copy == 0 {
			return // it is as it is here
		}
		if m := faults[s.Copy-1]; m.file == s.File {
			s.Replace(t, m.right, m.wrong)
		}
	}, "-tags", "ringsteps")
	try := func(number int) (out string, err error) {
		b, err := exec.Command(program, "-test.failfast", "-test.run", fmt.Sprintf("^TestSteps$/^%d$", number)).CombinedOutput()
		return string(b), err
	}
	if out, err := try(0); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for i, m := range faults {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			out, err := try(1 + i)
			if err == nil {
				t.Fatal("the fault is not found")
			}
			if !strings.Contains(out, "after the steps") {
				t.Fatalf("something else is wrong: %v\n%s", err, out)
			}
		})
	}
}
