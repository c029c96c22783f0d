package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/pebbe/zmq4"
)

// A report is one section of what is written up, and the charts that belong to it.
type report struct {
	section string
	text    string
	charts  map[string]string // SVG by file name
}

const docsFile = "BENCHMARKS.md"

// save puts the text between the section's markers in that file, where all else
// is written by hand, and writes the charts.
func (r report) save(dir string) error {
	name := filepath.Join(dir, docsFile)
	old, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	begin, end := marker(r.section, "begin"), marker(r.section, "end")
	before, rest, ok := strings.Cut(string(old), begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return fmt.Errorf("%s has no lines %s and %s", name, begin, end)
	}
	text := before + begin + "\n\n" + r.text + "\n" + end + after
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		return err
	}
	for name, svg := range r.charts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(svg), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func marker(section, which string) string { return "<!-- " + section + ": " + which + " -->" }

// about says where and how the figures were made.
func (s settings) about(arguments []string) string {
	major, minor, patch := zmq4.Version()
	return fmt.Sprintf("%s, `%s`, %d rounds of %v. %s, %d cores, GOMAXPROCS %d; %s %s; %s; libzmq %d.%d.%d, zmq4 %s; nats-server %s, nats.go %s.\n\n",
		time.Now().UTC().Format(time.DateOnly), strings.Join(append([]string{"bench"}, arguments...), " "), s.rounds, s.pace.run,
		processor(), runtime.NumCPU(), runtime.GOMAXPROCS(0), runtime.GOOS, kernel(), runtime.Version(), major, minor, patch,
		version("github.com/pebbe/zmq4"), version("github.com/nats-io/nats-server/v2"), version("github.com/nats-io/nats.go"))
}

func processor() string {
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if key, value, _ := strings.Cut(lines.Text(), ":"); strings.TrimSpace(key) == "model name" {
				return strings.TrimSpace(value)
			}
		}
	}
	return runtime.GOARCH
}

func kernel() string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(release))
}

func version(module string) string {
	info, _ := debug.ReadBuildInfo()
	if info != nil {
		for _, m := range info.Deps {
			if m.Path == module {
				return m.Version
			}
		}
	}
	return "?"
}

// A table is Markdown's.
type table struct{ strings.Builder }

func newTable(head ...string) *table {
	t := new(table)
	t.row(head...)
	t.WriteString("|" + strings.Repeat("---|", len(head)) + "\n")
	return t
}

func (t *table) row(cells ...string) {
	t.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

// compared writes up the contests.
func compared(all []*results) report {
	var b strings.Builder
	b.WriteString("### What is to be reached\n\n" + goalTable(all).String())
	for _, place := range []string{onePlace, manyPlace} {
		for _, what := range []string{streaming, several} {
			section(&b, place+", "+what, contestTable(all, place, what, rate))
		}
	}
	for _, place := range []string{onePlace, manyPlace} {
		for _, what := range []string{pingPong, roundTrip} {
			section(&b, place+", "+what, contestTable(all, place, what, p50, p99))
		}
	}
	for _, place := range []string{onePlace, manyPlace} {
		for _, what := range []string{queuing, crowded} {
			section(&b, place+", "+what, contestTable(all, place, what, rate))
		}
		section(&b, place+", "+fairly, contestTable(all, place, fairly, p50, p99))
	}
	for _, place := range []string{onePlace, manyPlace} {
		section(&b, place+", allocations for each message", contestTable(all, place, streaming, mallocs))
	}
	return report{"compare", b.String(), map[string]string{
		"bench-one-process.svg": streamChart(all, "A stream in one process", onePlace),
		"bench-processes.svg":   streamChart(all, "A stream between processes", manyPlace),
	}}
}

func section(b *strings.Builder, title string, t *table) {
	if t != nil {
		fmt.Fprintf(b, "\n### %s%s\n\n%s", strings.ToUpper(title[:1]), title[1:], t)
	}
}

// goalTable says of each goal whether it was reached.
func goalTable(all []*results) *table {
	t := newTable("what", "against", "at least", "aim", "median", "range", "reached")
	for _, g := range goals() {
		for _, r := range all {
			if r.place != g.place || r.what != g.what || r.size != g.size {
				continue
			}
			of, to := r.rounds[g.contender], r.rounds[g.peer]
			if len(of) == 0 || g.peer != "" && len(to) == 0 {
				continue // by way of -only
			}
			s, text := g.figure.over(of), g.figure.text
			if g.peer != "" {
				s, text = g.figure.ratio(of, to), ratioText
			}
			least := text(g.least)
			if g.most {
				least = "at most " + least
			}
			t.row(g.text, g.peer, least, text(g.aim), "**"+text(s.median)+"**",
				s.text(text), g.mark(s.median))
		}
	}
	return t
}

// contestTable has a row for each contender, and for each size a column for each
// figure: the median, and half the distance of the quartiles. nil: nothing was
// measured.
func contestTable(all []*results, place, what string, figures ...figure) *table {
	head, names, cells := []string{""}, []string(nil), make(map[string][]string)
	for _, r := range all {
		if r.place != place || r.what != what {
			continue
		}
		for _, f := range figures {
			column := sizeText(float64(r.size))
			if len(figures) > 1 {
				column += ", " + f.name
			}
			head = append(head, column)
			for _, c := range r.contenders {
				if cells[c.name] == nil {
					names = append(names, c.name)
				}
				s := f.over(r.rounds[c.name])
				cells[c.name] = append(cells[c.name], f.text(s.median)+s.margin())
			}
		}
	}
	if len(names) == 0 {
		return nil
	}
	t := newTable(head...)
	for _, name := range names {
		t.row(append([]string{name}, cells[name]...)...)
	}
	return t
}
