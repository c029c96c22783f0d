package zpipes

import (
	"flag"
	"testing"
)

var (
	homesRuns = flag.Int("homes.runs", 20, "how many worlds TestSimulateHomes makes")
	homesSeed = flag.Uint64("homes.seed", 1, "the first one's")
)

// Whatever happens to brokers and links, each confirmed chunk is delivered or there, unless it was in the
// memory of a broker that has crashed; no open waits for much longer than the patience; and when all see each other
// again, each queue has one home. Where nothing happens, it has one from the beginning on.
//
// A failure names its seed: -homes.seed=N -homes.runs=1 -v tells what happened.
func TestSimulateHomes(t *testing.T) {
	count := make(map[string]int)
	runs := *homesRuns
	if underRace {
		runs = max(1, runs/4)
	}
	for i := range runs {
		w := newHomesWorld(*homesSeed+uint64(i), "", count)
		w.logs = testing.Verbose()
		if w.play(); w.bad != "" {
			for _, line := range w.log {
				t.Log(line)
			}
			t.Fatalf("seed %d: %s", *homesSeed+uint64(i), w.bad)
		}
	}
	for _, what := range []string{"begun", "ceded", "handed over", "moved", "kept on", "received", "taken", "crashes", "deleted"} {
		if runs >= 500 && count[what] == 0 {
			t.Errorf("%s: never; the simulation does not reach what it should", what)
		}
	}
	t.Log(count)
}

// Each rule that is left out shows.
func TestSimulateHomesFindsMutants(t *testing.T) {
	if testing.Short() || underRace {
		t.Skip("takes many worlds")
	}
	for _, mutant := range []string{
		"a queue that was ceded to who has gone stays so",
		"who is no home any more says nothing",
		"a claim is good before all know of it",
		"who was first does not count",
		"what is handed over is deleted before it is confirmed",
	} {
		t.Run(mutant, func(t *testing.T) {
			for seed := range uint64(400) {
				w := newHomesWorld(*homesSeed+seed, mutant, make(map[string]int))
				if w.play(); w.bad != "" {
					t.Logf("seed %d: %s", *homesSeed+seed, w.bad)
					return
				}
			}
			t.Error("the fault is not found")
		})
	}
}
