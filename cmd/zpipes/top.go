package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v3"
	"github.com/zpipes/zpipes"
	"golang.org/x/term"
)

// stuckAfter is for how long nothing must have moved in a pipe that somebody waits for.
const stuckAfter = 3 * time.Second

func topCommand() *cli.Command {
	every := duration(time.Second)
	return &cli.Command{
		Name:  "top",
		Usage: "watch the pipes of a broker",
		Description: `Lists the pipes again and again, the busiest first, with rates; ` + "those that are stuck\n" +
			`(something waits to be read, and nothing has moved for ` + stuckAfter.String() + `) come before all and stand out.
Ends with Ctrl-C, or after -n times.`,
		Flags: []cli.Flag{
			&cli.GenericFlag{Name: "interval", Aliases: []string{"i"}, Value: &every, Usage: "look every `DURATION`"},
			&cli.IntFlag{Name: "count", Aliases: []string{"n"}, Usage: "end after so many `TIMES`", HideDefault: true},
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
			return s.watch(ctx, c, time.Duration(every), cmd.Int("count"))
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
	moved   time.Time
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
		status, err := c.Status(ctx)
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

// rows compares with the last look.
func (s *screen) rows(pipes []zpipes.PipeInfo, now time.Time) []row {
	seen := make(map[string]sight, len(pipes))
	rows := make([]row, 0, len(pipes))
	for _, p := range pipes {
		r := row{PipeInfo: p}
		then, known := s.seen[p.Name]
		began := now.Add(-p.Age)
		known = known && began.Sub(then.began).Abs() < 100*time.Millisecond && p.BytesIn >= then.in && p.BytesOut >= then.out
		is := sight{in: p.BytesIn, out: p.BytesOut, began: began, moved: now}
		if known {
			is.began = then.began
			if seconds := now.Sub(s.at).Seconds(); seconds > 0 {
				r.inRate, r.outRate = float64(is.in-then.in)/seconds, float64(is.out-then.out)/seconds
			}
			if is.out == then.out {
				is.moved = then.moved
			}
			if still := now.Sub(is.moved); (p.Queued > 0 || p.Writes) && still >= stuckAfter {
				r.stuck = still
			}
		}
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
	fmt.Fprintf(&text, "broker %s, up %s: %d pipes, %d clients, in %s/s, out %s/s\n\n", visible(status.Name), ageText(status.Uptime),
		status.Stats.Pipes, status.Stats.Clients, bytesText(int64(float64(delta.BytesIn)/seconds)), bytesText(int64(float64(delta.BytesOut)/seconds)))
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PIPE\tMODE\tENDS\tQUEUED\tIN/s\tOUT/s\tOUT\tAGE\tSTATE")
	for _, r := range rows {
		what := state(r.PipeInfo)
		if r.stuck > 0 {
			what = fmt.Sprintf("STUCK for %s, %s", ageText(r.stuck), what)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", visible(r.Name), r.Mode, ends(r.PipeInfo), queued(r.PipeInfo),
			bytesText(int64(r.inRate)), bytesText(int64(r.outRate)), bytesText(r.BytesOut), ageText(r.Age), what)
	}
	w.Flush()
	if !s.terminal {
		return append(text.Bytes(), '\n')
	}
	return fit(text.String(), rows)
}

// fit makes the text a screen: over what was there, no wider and no higher than the
// terminal, and pipes that are stuck in reverse.
func fit(text string, rows []row) []byte {
	const head = 3 // lines before the first pipe
	width, height, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil {
		width, height = 80, 24
	}
	var out bytes.Buffer
	out.WriteString("\x1b[H")
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if i == height-1 {
			break
		}
		if r := []rune(line); len(r) > width {
			line = string(r[:width])
		}
		if k := i - head; k >= 0 && rows[k].stuck > 0 {
			line = "\x1b[7m" + line + "\x1b[0m"
		}
		out.WriteString(line + "\x1b[K\n")
	}
	out.WriteString("\x1b[J")
	return out.Bytes()
}
