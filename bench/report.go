package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
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
	return fmt.Sprintf("%s, `%s`, %d rounds of %v. %s, %d cores, GOMAXPROCS %d, load %s before; %s %s; %s; libzmq %d.%d.%d, zmq4 %s; nats-server %s, nats.go %s.\n\n",
		time.Now().UTC().Format(time.DateOnly), strings.Join(append([]string{"bench"}, arguments...), " "), s.rounds, s.pace.run,
		processor(), runtime.NumCPU(), runtime.GOMAXPROCS(0), load(), runtime.GOOS, kernel(), runtime.Version(), major, minor, patch,
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

// load is how many processes wanted a core in the last minute.
func load() string {
	text, _ := os.ReadFile("/proc/loadavg")
	last, _, _ := strings.Cut(string(text), " ")
	return last
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
	type kind struct {
		title   string // behind the place
		what    string
		figures []figure
	}
	var casts []kind
	for _, readers := range audiences {
		what := audience(readers)
		casts = append(casts, kind{what, what, []figure{rate}})
	}
	b.WriteString("### What is to be reached\n\n" + goalTable(all).String() +
		"\n### Where others are ahead\n\n" + aheadTable(all).String())
	for _, t := range slices.Concat([]kind{
		{streaming, streaming, []figure{rate}},
		{"CPU seconds for each GB", streaming, []figure{cpu}},
		{encrypted, encrypted, []figure{rate}},
		{streaming + clustered, streaming + clustered, []figure{rate}},
		{roundTrip + clustered, roundTrip + clustered, []figure{p50, p99}},
		{several, several, []figure{rate}},
	}, casts, []kind{
		{pingPong, pingPong, []figure{p50, p99}},
		{roundTrip, roundTrip, []figure{p50, p99}},
		{connected, connected, []figure{p50, p99}},
		{queuing, queuing, []figure{rate}},
		{crowded, crowded, []figure{rate}},
		{fairly, fairly, []figure{p50, p99}},
		{"allocations for each message", streaming, []figure{mallocs}},
	}) {
		for _, place := range []string{onePlace, manyPlace} {
			for _, busy := range []bool{false, true} {
				if busy && t.title != t.what {
					continue // much as without
				}
				title := strings.ToUpper(place[:1]) + place[1:] + ", " + t.title
				if busy {
					title += ", beside a busy core"
				}
				if t := contestTable(all, work{place, t.what, busy}, t.figures...); t != nil {
					fmt.Fprintf(&b, "\n### %s\n\n%s", title, t)
				}
			}
		}
	}
	chart := func(title, place string, f figure) string {
		return streamChart(all, title, work{place: place, what: streaming}, f)
	}
	return report{"compare", b.String(), map[string]string{
		"bench-one-process.svg": chart("A stream in one process", onePlace, rate),
		"bench-processes.svg":   chart("A stream between processes", manyPlace, rate),
		"bench-cpu.svg":         chart("CPU seconds for each GB between processes, all of them together", manyPlace, cpu),
	}}
}

// contestTable has a row for each contender, and for each size a column for each
// figure: the median, and half the distance of the quartiles. nil: nothing was
// measured.
func contestTable(all []*results, w work, figures ...figure) *table {
	head, names, cells := []string{""}, []string(nil), make(map[string][]string)
	for _, r := range all {
		if r.work != w {
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
