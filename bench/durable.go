package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// A bout is the same work done by several keepers, in turns.
type bout struct {
	place   string
	does    string
	size    int
	callers int
	rounds  map[string][]float64 // jobs a second, by who did it
	shared  []float64            // how many jobs zpipes had for each sync
}

func (b *bout) title() string {
	return fmt.Sprintf("%s, %s, %s, %d", b.place, b.does, sizeText(float64(b.size)), b.callers)
}

const (
	floor     = "floor"
	synced    = "JetStream, SyncAlways"
	unsynced  = "JetStream, without syncing"
	keptSmall = 100
)

var callers = []int{1, 16, 256}

// bouts are all of them.
func bouts() (all []*bout) {
	for _, place := range []string{onePlace, manyPlace} {
		for _, size := range []int{keptSmall, 1 << 10, 64 << 10} {
			for _, n := range callers {
				all = append(all, &bout{place: place, does: puts, size: size, callers: n})
			}
		}
		for _, n := range callers {
			all = append(all, &bout{place: place, does: dones, size: keptSmall, callers: n})
		}
	}
	return all
}

// keepers are who takes part.
func (b *bout) keepers() []string {
	all := []string{"zpipes", synced}
	if b.place == manyPlace {
		all = append(all, "zpipes over ipc")
	} else if b.does == puts {
		all = append(all, floor)
		if b.size == keptSmall && b.callers == 256 {
			all = append(all, unsynced)
		}
	}
	return all
}

// durable measures queues that outlive their broker.
func (s settings) durable(ctx context.Context) (report, error) {
	var all []*bout
	for _, b := range bouts() {
		if b.rounds = make(map[string][]float64); s.only.MatchString(b.title()) {
			all = append(all, b)
		}
	}
	for round := range s.rounds {
		began := time.Now()
		for _, b := range all {
			in := b.keepers()
			for i := range in {
				name := in[(i+round)%len(in)]
				got, err := s.confirmed(ctx, b, name)
				if err != nil {
					return report{}, fmt.Errorf("%s, %s: %w", b.title(), name, err)
				}
				b.rounds[name] = append(b.rounds[name], float64(got.Jobs)/got.Took.Seconds())
				if name == "zpipes" {
					b.shared = append(b.shared, float64(got.Jobs)/float64(max(1, got.Syncs)))
				}
			}
		}
		fmt.Fprintf(os.Stderr, "round %d of %d took %v\n", round+1, s.rounds, time.Since(began).Round(time.Second))
	}
	var b strings.Builder
	b.WriteString(keptGoals(all).String() + "\n" + sharedTable(all).String())
	for _, place := range []string{onePlace, manyPlace} {
		for _, does := range []string{puts, dones} {
			if t := keptTable(all, place, does); t != nil {
				fmt.Fprintf(&b, "\n### %s, %s: confirmed jobs a second\n\n%s", strings.ToUpper(place[:1])+place[1:], does, t)
			}
		}
	}
	if s.only.MatchString("room") {
		if err := s.keptRoom(ctx, &b); err != nil {
			return report{}, err
		}
	}
	return report{"durable", b.String(), nil}, nil
}

// sharedTable says how many jobs had a sync in common.
func sharedTable(all []*bout) *table {
	t := newTable("jobs for each fdatasync", "callers", "at least", "", "reached")
	for _, b := range all {
		if b.callers > 1 && b.size < 64<<10 { // a commit has MaxPending at most
			s, g := spreadOf(b.shared), bounds{float64(b.callers) / 2, float64(b.callers), false}
			t.row(fmt.Sprintf("%s, %s, %s", b.place, b.does, sizeText(float64(b.size))), fmt.Sprint(b.callers),
				wholeText(g.least), "**"+digits(s.median)+"**", g.mark(s.median))
		}
	}
	return t
}

// confirmed measures one of them once, in processes of its own.
func (s settings) confirmed(ctx context.Context, b *bout, name string) (got Kept, err error) {
	dir, err := os.MkdirTemp("", "zpipes-bench-")
	if err != nil {
		return got, err
	}
	defer os.RemoveAll(dir)
	processes := 1
	if b.place == manyPlace {
		processes = 2
	}
	cast, err := newCast(ctx, processes)
	if err != nil {
		return got, err
	}
	defer cast.end()
	k := Keeping{Task: Task{Transport: name, Size: b.size, Streams: b.callers, Dir: dir}, Does: b.does, Time: s.pace.run}
	if name == floor {
		return got, cast.server.call(ctx, "Floor", k, &got)
	}
	if b.does == dones {
		if k.Fill = 40_000; name == synced {
			k.Fill = 2000 // which it takes a second for
		}
	}
	if err := cast.server.call(ctx, "Keep", k, &k.Address); err != nil {
		return got, err
	}
	return got, cast.writer.call(ctx, "Confirm", k, &got)
}

// keptTable has a row for each keeper, and a column for each size and number of callers.
func keptTable(all []*bout, place, does string) *table {
	head, names, cells := []string{""}, []string(nil), make(map[string][]string)
	for _, b := range all {
		if b.place != place || b.does != does {
			continue
		}
		head = append(head, fmt.Sprintf("%s, %d", sizeText(float64(b.size)), b.callers))
		for _, name := range b.keepers() {
			if cells[name] == nil {
				names = append(names, name)
			}
			s := spreadOf(b.rounds[name])
			for len(cells[name]) < len(head)-2 {
				cells[name] = append(cells[name], "")
			}
			cells[name] = append(cells[name], wholeText(s.median)+s.margin())
		}
	}
	if len(names) == 0 {
		return nil
	}
	t := newTable(head...)
	for _, name := range names {
		for len(cells[name]) < len(head)-1 {
			cells[name] = append(cells[name], "")
		}
		t.row(append([]string{name}, cells[name]...)...)
	}
	return t
}

// keptGoals says what was reached; for 1, 16 and 256 callers there are least and aim.
func keptGoals(all []*bout) *table {
	t := newTable("what", "against", "callers", "at least", "aim", "median", "range", "reached")
	half := func(g [3][2]float64) [3][2]float64 {
		for i := range g {
			g[i] = [2]float64{g[i][0] / 2, g[i][1] / 2}
		}
		return g
	}
	row := func(place, does string, size int, name, peer string, goals [3][2]float64) {
		for i, n := range callers {
			if goals[i][0] == 0 {
				continue
			}
			for _, b := range all {
				of, to := b.rounds[name], b.rounds[peer]
				if b.place != place || b.does != does || b.size != size || b.callers != n || len(to) == 0 {
					continue
				}
				ratios := make([]float64, len(of))
				for i := range of {
					ratios[i] = of[i] / to[i]
				}
				s, g := spreadOf(ratios), bounds{goals[i][0], goals[i][1], false}
				t.row(place+", "+name+": "+does+", "+sizeText(float64(size)), peer, fmt.Sprint(n), ratioText(g.least), ratioText(g.aim),
					"**"+ratioText(s.median)+"**", s.text(ratioText), g.mark(s.median))
			}
		}
	}
	small := [3][2]float64{{1, 1.5}, {8, 15}, {30, 75}}
	large := [3][2]float64{{1, 1.5}, {5, 13}, {2.5, 4.4}}
	done := [3][2]float64{{1.2, 2}, {10, 20}, {40, 100}}
	for _, size := range []int{keptSmall, 1 << 10} {
		row(onePlace, puts, size, "zpipes", floor, [3][2]float64{{.5, .8}, {.5, .8}, {.2, .5}})
	}
	for _, size := range []int{keptSmall, 1 << 10} {
		row(onePlace, puts, size, "zpipes", synced, small)
	}
	row(onePlace, puts, 64<<10, "zpipes", synced, large)
	row(onePlace, puts, keptSmall, "zpipes", unsynced, [3][2]float64{2: {1.2, 2}})
	row(onePlace, dones, keptSmall, "zpipes", synced, done)
	for _, name := range []string{"zpipes", "zpipes over ipc"} {
		for _, size := range []int{keptSmall, 1 << 10} {
			row(manyPlace, puts, size, name, synced, half(small))
		}
		row(manyPlace, puts, 64<<10, name, synced, half(large))
		row(manyPlace, dones, keptSmall, name, synced, half(done))
	}
	return t
}
