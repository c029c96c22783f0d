//go:build !core

package zpipes

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// BroadcastConfig holds the options of a broadcast; a zero field means its
// default.
type BroadcastConfig struct {
	// Keep is how many bytes a reader gets first that comes while the broadcast is
	// under way: the last Writes that are no more than that together. The broker
	// holds them, up to its MaxPending. 0: such a reader begins with the next Write.
	Keep int

	// Readers is how many readers the writer waits for, as a stream's writer does
	// for its one: nothing is confirmed before, and all of them get all from the
	// beginning. Then it goes on with those that are left; but if none is, it waits
	// for the next one. Those at all brokers of a cluster count. 0: it waits for nobody, and what is written while there is
	// no reader is gone, but for what Keep keeps.
	Readers int

	// Patience is how long the slowest readers may hold the writer up: what waits
	// because of them for that time is taken then, and their Reads return
	// ErrTooSlow. 0: for ever. It is rounded up to milliseconds. Where they are at
	// another broker of a cluster, it may take a second longer.
	Patience time.Duration
}

func (cfg BroadcastConfig) check() error {
	if cfg.Keep < 0 || cfg.Readers < 0 || cfg.Patience < 0 {
		return errors.New("a negative value in BroadcastConfig; use zero for the default")
	}
	if cfg.Keep > math.MaxInt32 || cfg.Readers > math.MaxInt32 || cfg.Patience > maxPatience {
		return fmt.Errorf("BroadcastConfig.Keep and Readers must be below 2 GiB, Patience at most %v", maxPatience)
	}
	return nil
}

// maxPatience is as much as the wire has room for, and readable.
const maxPatience = 1000 * time.Hour

func (cfg BroadcastConfig) core() *broadcastConfig {
	const ms = time.Millisecond
	return &broadcastConfig{keep: cfg.Keep, await: cfg.Readers, patience: (cfg.Patience + ms - 1) / ms * ms}
}

// OpenBroadcast opens the writing end of a broadcast with default settings: a
// pipe with any number of readers, each of which gets all that is written from
// its open on. They are opened with OpenReader, and may come and go; a
// BroadcastConfig says whether the writer waits for them, and what one that
// comes late gets.
//
// The memory of a broadcast does not grow with its readers, but that a busy one
// of another process may share as much with the broker as its client's Window.
// The slowest of them may be BrokerConfig.MaxPending bytes behind before Writes
// wait for it, see BroadcastConfig.Patience. One that dies or leaves holds up
// nobody.
//
// The Writer's methods are those of a stream's, but for this: confirmed are
// bytes that the broker has taken, for all readers that there are, and
// BroadcastConfig.Readers have been there. They reach these readers even if this
// process dies, except who leaves or is too slow, or is at another broker of a
// cluster, and this one's host dies. So with Readers 0, Flush and
// Close don't wait for a reader to come, and no reader's leaving is an error of
// the writer's. When the Writer is closed, the name is free at once; readers
// read what there is for them, and then get io.EOF, or io.ErrUnexpectedEOF as
// those of a stream do.
//
// A Reader that waits for a stream's writer of that name becomes the first
// reader. As long as there is no writer it is the only one: others get
// ErrPipeBusy, so open the broadcast first, and let Readers do the waiting.
//
// The errors are those of OpenWriter, and
//
//   - ErrPipeBusy: the name has a writer already, of a broadcast or a stream;
//   - ErrPipeMode: the name is a queue's;
//   - ErrTooManyPipes also if Keep is more than the broker's MaxPending, or than
//     there is room for in this client's share;
//   - errors.ErrUnsupported: the broker is of an earlier version, or knows only
//     the base protocol;
//   - what is wrong with the BroadcastConfig.
func (c *Client) OpenBroadcast(ctx context.Context, name string) (*Writer, error) {
	return BroadcastConfig{}.OpenBroadcast(ctx, c, name)
}

// OpenBroadcast is Client.OpenBroadcast with the settings of cfg.
func (cfg BroadcastConfig) OpenBroadcast(ctx context.Context, c *Client, name string) (*Writer, error) {
	w := new(Writer)
	w.role, w.self, w.cast = writer, w, cfg.core()
	err := cfg.check()
	if err == nil {
		err = c.open(ctx, w, name)
	}
	if err != nil {
		return nil, c.opError("open broadcast", name, err)
	}
	return w, nil
}
