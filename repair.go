//go:build !core

package zpipes

import (
	"errors"
	"fmt"

	"github.com/zpipes/zpipes/internal/seglog"
)

// A RepairedQueue says what became of a durable queue that was corrupt.
type RepairedQueue struct {
	Name  string  // empty if that could not be read, either: nothing was done, see Dir
	Jobs  int     // how many were saved
	Bad   []error // what was not as it was written
	Aside string  // the directory where the queue lies as it was
	Dir   string  // where it was found
}

// RepairQueues saves what is left of the corrupt queues in the directory of a
// broker (BrokerConfig.Dir), which must not be running: all jobs that can still
// be read. What can't be read may have said that a job is done, so some may come
// again. What was there is put aside, and queues that are whole are left alone.
// It reads all that there is. With an error, those that it returns are repaired.
func RepairQueues(dir string) (repaired []RepairedQueue, err error) {
	if err := seglog.IsStore(dir); err != nil {
		return nil, &OpError{Op: "repair queues", Err: fmt.Errorf("no broker has kept queues in %s: %w", dir, err)}
	}
	store, err := seglog.Open(dir, seglog.Options{KeyFor: onceFor})
	if errors.Is(err, seglog.ErrLocked) {
		err = fmt.Errorf("a broker runs that keeps its queues in %s, and has to end first: %w", dir, err)
	}
	if err != nil {
		return nil, &OpError{Op: "repair queues", Err: err}
	}
	defer store.Close()
	for _, f := range store.Queues() {
		if f.Name == "" {
			repaired = append(repaired, RepairedQueue{Dir: f.Dir, Bad: []error{f.Err}})
			continue
		}
		log, err := store.Load(f.Name, idleOwner{}, &diskAccount{})
		if err == nil {
			if err = readAll(log); err == nil {
				log.Close()
				continue
			}
			log.Close()
		}
		if !errors.Is(err, seglog.ErrCorrupt) {
			return repaired, &OpError{Op: "repair queues", Pipe: f.Name, Err: err}
		}
		r, err := store.Repair(f)
		if err != nil {
			return repaired, &OpError{Op: "repair queues", Pipe: f.Name, Err: err}
		}
		q := RepairedQueue{Name: r.Name, Jobs: r.Jobs, Aside: r.Aside, Dir: f.Dir}
		for i := range r.Bad {
			q.Bad = append(q.Bad, &r.Bad[i])
		}
		repaired = append(repaired, q)
	}
	return repaired, nil
}

// readAll reads all bodies, which Load does not.
func readAll(log *seglog.Log) error {
	for info, ok := log.Next(0); ok; info, ok = log.Next(info.ID + 1) {
		if _, err := log.Read(info.ID); err != nil {
			return err
		}
	}
	return nil
}

// An idleOwner has a log of which it says nothing.
type idleOwner struct{}

func (idleOwner) Gather()            {}
func (idleOwner) Committed(int, int) {}
func (idleOwner) Stalled(error)      {}
func (idleOwner) Failed(error)       {}
