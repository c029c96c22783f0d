package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/rivo/uniseg"
	"github.com/urfave/cli/v3"
	"github.com/zpipes/zpipes"
	"golang.org/x/term"
)

// leastSilence is what is not worth a word, whatever the interval.
const leastSilence = time.Second

func topCommand() *cli.Command {
	every := duration(time.Second)
	var times count
	return &cli.Command{
		Name:  "top",
		Usage: "watch the pipes of a broker",
		Description: `Lists the pipes again and again, the busiest first, with rates; ` + "those that are stuck\n" +
			`(somebody waits with data, and nothing has moved for ` + stuckAfter.String() + `) come before all and stand out. Where
the broker does not answer for two intervals, a line says so.
Ends with Ctrl-C, or after -n times.`,
		Flags: []cli.Flag{
			&cli.GenericFlag{Name: "interval", Aliases: []string{"i"}, Value: &every, Usage: "look every `DURATION`"},
			&cli.GenericFlag{Name: "count", Aliases: []string{"n"}, Value: &times, Usage: "end after so many `TIMES`"},
		},
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if err := noArguments(cmd); err != nil {
				return err
			}
			if time.Duration(every) < 10*time.Millisecond {
				return usageError{"the interval must be at least 10ms"}
			}
			c, err := connect(cmd, 0)
			if err != nil {
				return err
			}
			defer c.Close()
			s := &screen{seen: make(map[string]sight), terminal: term.IsTerminal(int(os.Stdout.Fd()))}
			return s.watch(ctx, c, time.Duration(every), int(times))
		},
	}
}

// A screen is what top has painted.
type screen struct {
	terminal bool
	seen     map[string]sight // by name
	at       time.Time        // of the last look
	stats    zpipes.BrokerStats
}

// A sight is how a pipe was at the last look.
type sight struct {
	in, out int64
	began   time.Time // of this very pipe; another may have taken its name
	halt    standstill
}

// A row is a pipe as it is shown.
type row struct {
	zpipes.PipeInfo
	inRate, outRate float64
	stuck           time.Duration // 0: it is not
}

func (s *screen) watch(ctx context.Context, c *zpipes.Client, every time.Duration, count int) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 1; ; n++ {
		status, err := s.look(ctx, c, tick.C, every)
		if err != nil {
			return causeOf(ctx, err)
		}
		if _, err := (output{}).Write(s.paint(status, time.Now())); err != nil {
			return err
		}
		if n == count {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// look asks the broker, and says so on the screen if it has no answer in two intervals:
// what is there looks as if all were well.
func (s *screen) look(ctx context.Context, c *zpipes.Client, tick <-chan time.Time, every time.Duration) (zpipes.Status, error) {
	type answer struct {
		zpipes.Status
		error
	}
	asked := time.Now()
	answers := make(chan answer, 1)
	go func() {
		status, err := c.Status(ctx)
		answers <- answer{status, err}
	}()
	for {
		select {
		case a := <-answers:
			return a.Status, a.error
		case <-tick:
			if silent := time.Since(asked); silent >= max(2*every, leastSilence) && !s.at.IsZero() {
				if _, err := (output{}).Write(s.lost(silent)); err != nil {
					return zpipes.Status{}, err
				}
			}
		}
	}
}

// lost says that there is no news; on a terminal, in the place of the first line.
func (s *screen) lost(silent time.Duration) []byte {
	text := "NO NEWS for " + ageText(silent) + ": the broker does not answer"
	if !s.terminal {
		return []byte(text + "\n\n")
	}
	width, _ := terminalSize()
	return []byte("\x1b7\x1b[H\x1b[7m" + clip(text, width) + "\x1b[0m\x1b[K\x1b8") // the cursor stays
}

// rows compares with the last look.
func (s *screen) rows(pipes []zpipes.PipeInfo, now time.Time) []row {
	seen := make(map[string]sight, len(pipes))
	rows := make([]row, 0, len(pipes))
	for _, p := range pipes {
		r := row{PipeInfo: p}
		then, known := s.seen[p.Name]
		began := now.Add(-p.Age)
		known = known && began.Sub(then.began).Abs() < 100*time.Millisecond && p.BytesIn >= then.in && p.BytesOut >= then.out
		is := sight{in: p.BytesIn, out: p.BytesOut, began: began}
		if known {
			is.began = then.began
			if seconds := now.Sub(s.at).Seconds(); seconds > 0 {
				r.inRate, r.outRate = float64(is.in-then.in)/seconds, float64(is.out-then.out)/seconds
			}
			is.halt = then.halt
		}
		is.halt.note(now, p, is.out != then.out)
		r.stuck = is.halt.stuck(now)
		seen[p.Name] = is
		rows = append(rows, r)
	}
	s.seen, s.at = seen, now
	slices.SortStableFunc(rows, func(x, y row) int {
		return cmp.Or(cmp.Compare(y.stuck, x.stuck), cmp.Compare(y.inRate+y.outRate, x.inRate+x.outRate))
	})
	return rows
}

func (s *screen) paint(status zpipes.Status, now time.Time) []byte {
	seconds := now.Sub(s.at).Seconds()
	delta := status.Stats.Sub(s.stats)
	if s.at.IsZero() {
		delta, seconds = zpipes.BrokerStats{}, 1
	}
	s.stats = status.Stats
	rows := s.rows(status.Pipes, now)

	var text bytes.Buffer
	fmt.Fprintf(&text, "broker %s, up %s: %s, in %s/s, out %s/s\n\n", visible(status.Name), ageText(status.Uptime), census(status.Stats),
		bytesText(int64(float64(delta.BytesIn)/seconds)), bytesText(int64(float64(delta.BytesOut)/seconds)))
	width, height := 120, 0
	if s.terminal {
		width, height = terminalSize()
	}
	text.WriteString(table(rows, width))
	if !s.terminal {
		return append(text.Bytes(), '\n')
	}
	return fit(text.String(), rows, width, height)
}

// A column of the table; those that matter least go first where there is no room.
type column struct {
	title string
	goes  int // 1 is the first; 0: it stays
	text  func(row) string
}

var columns = []column{
	{"PIPE", 0, func(r row) string { return visible(r.Name) }},
	{"MODE", 2, func(r row) string { return r.Mode.String() }},
	{"ENDS", 4, func(r row) string { return ends(r.PipeInfo) }},
	{"QUEUED", 0, func(r row) string { return queued(r.PipeInfo) }},
	{"IN/s", 5, func(r row) string { return bytesText(int64(r.inRate)) }},
	{"OUT/s", 6, func(r row) string { return bytesText(int64(r.outRate)) }},
	{"OUT", 1, func(r row) string { return bytesText(r.BytesOut) }},
	{"AGE", 3, func(r row) string { return ageText(r.Age) }},
	{"STATE", 0, func(r row) string {
		if r.stuck > 0 {
			return "STUCK for " + ageText(r.stuck) + ", " + state(r.PipeInfo)
		}
		return state(r.PipeInfo)
	}},
}

const (
	// leastName is how much of a name is shown before other columns go.
	leastName = 20
	columnGap = 2
)

// table shows the rows in so many columns of characters. Who names a pipe decides how
// long its name is, so it has what the others leave.
func table(rows []row, width int) string {
	cells := make([][]string, len(columns))
	wide := make([]int, len(columns))
	left := width + columnGap
	for i, c := range columns {
		cells[i] = append(cells[i], c.title)
		for _, r := range rows {
			cells[i] = append(cells[i], c.text(r))
		}
		for _, text := range cells[i] {
			wide[i] = max(wide[i], uniseg.StringWidth(text)+columnGap)
		}
		left -= wide[i]
	}
	least := min(wide[0], leastName+columnGap)
	left += wide[0]
	for goes := 1; left < least && goes <= len(columns); goes++ {
		if i := slices.IndexFunc(columns, func(c column) bool { return c.goes == goes }); i > 0 {
			left += wide[i]
			wide[i] = 0
		}
	}
	wide[0] = min(wide[0], max(left, least))
	var text strings.Builder
	for k := range len(rows) + 1 {
		line := ""
		for i := range columns {
			if wide[i] > 0 {
				cell := clip(cells[i][k], wide[i]-columnGap)
				line += cell + strings.Repeat(" ", wide[i]-uniseg.StringWidth(cell))
			}
		}
		text.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return text.String()
}

// clip leaves out the middle of a text that is wider than so many columns: names often
// differ at the end.
func clip(text string, width int) string {
	if uniseg.StringWidth(text) <= width || width < 1 {
		return text
	}
	end := (width - 1) / 2
	start := cut(text, width-1-end)
	for rest := text[len(start):]; rest != ""; _, rest, _, _ = uniseg.FirstGraphemeClusterInString(rest, -1) {
		if uniseg.StringWidth(rest) <= end {
			return start + "…" + rest
		}
	}
	return start + "…"
}

// cut is what of a text there is room for in so many columns.
func cut(text string, width int) string {
	n := 0
	for rest := text; rest != ""; {
		var wide int
		_, rest, wide, _ = uniseg.FirstGraphemeClusterInString(rest, -1)
		if width -= wide; width < 0 {
			break
		}
		n = len(text) - len(rest)
	}
	return text[:n]
}

func terminalSize() (width, height int) {
	width, height, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil || width < 1 {
		return 80, 24
	}
	return width, height
}

// fit makes the text a screen: over what was there, no wider and no higher than the
// terminal, and pipes that are stuck in reverse.
func fit(text string, rows []row, width, height int) []byte {
	const head = 3 // lines before the first pipe
	var out bytes.Buffer
	out.WriteString("\x1b[H")
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if i == height-1 {
			break
		}
		line = cut(line, width)
		if k := i - head; k >= 0 && rows[k].stuck > 0 {
			line = "\x1b[7m" + line + "\x1b[0m"
		}
		out.WriteString(line + "\x1b[K\n")
	}
	out.WriteString("\x1b[J")
	return out.Bytes()
}
