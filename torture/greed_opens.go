package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zpipes/zpipes"
)

// Ends that are opened and closed, or whose connection or process goes without a word; and
// more ends than one may have.

func opens(ctx context.Context, b *bench) (outcome, error) {
	f, err := newFeastOf(ctx, b, errand{Count: 1 << 20}) // so that nothing is refused
	if err != nil {
		return outcome{}, err
	}
	defer f.end()
	ends := max(5000, b.size(1e6))
	// Who has gone without a word keeps its pipes until the broker finds out, after half a
	// second. That is about as many as a fast machine opens in that time.
	const most = 1<<16*perPipe + slack
	f.stays = most / 4
	for _, kind := range []struct {
		what string
		ways []way
		e    errand
	}{
		{"bare clients", f.ways(), errand{Do: "open", Count: ends * 6 / 10}},
		{"bare clients that vanish", f.ways(), errand{Do: "open", Kind: "vanish", Count: ends * 27 / 100}},
		{"the library's ends", f.ways(), errand{Do: "open ends", Count: ends * 6 / 100, AtOnce: 16}},
		{"text", f.zeromq(), errand{Do: "open by text", Count: ends * 1 / 100}},
	} {
		e := kind.e
		e.Pipe, e.Count = "opened", e.Count/int64(len(kind.ways))
		err := f.courses(kind.what, most, kind.ways, func(endpoint string) (tally, error) {
			e.Endpoint = endpoint
			return f.send(e)
		})
		if err != nil {
			return outcome{}, err
		}
	}
	err = f.courses("processes that are killed", most, f.ways(), func(endpoint string) (tally, error) { return f.killed(endpoint, ends*3/100, 10) })
	if err != nil {
		return outcome{}, err
	}
	return f.outcome()
}

// killed has so many ends opened by so many processes, each of which is killed.
func (f *feast) killed(endpoint string, ends, processes int64) (t tally, err error) {
	for i := range processes {
		g, err := f.guest()
		if err != nil {
			return t, err
		}
		u, err := f.ask(g, errand{Do: "open ends", Kind: "keep", Endpoint: endpoint, Pipe: fmt.Sprint("killed ", i), Count: max(1, ends/processes), AtOnce: 4})
		f.dismiss(g)
		if err != nil {
			return t, err
		}
		t.add(u)
	}
	t.Found = fmt.Sprintf("%s ends of %d processes", count(t.Times), processes)
	return t, nil
}

func init() {
	errands["open"] = openBare
	errands["open too many"] = openTooMany
	errands["open ends"] = openEnds
	errands["open by text"] = openByText
}

// atOnce is how many ends a bare client opens on one connection before it looks for answers.
const atOnce = 1000

// openBare opens ends of pipes by bare clients, each of them a thousand, and closes them, or
// just the connection.
func openBare(h *host, e errand) (t tally, err error) {
	for n := 0; t.Times < e.Count; n++ {
		c, err := rawConfig{}.connect(e.Endpoint)
		if err == nil {
			c, err = c.agree(250 * time.Millisecond)
		}
		if err != nil {
			return t, err
		}
		batch := min(atOnce, e.Count-t.Times)
		expected, most := map[byte]int64{idInputOK: batch / 2, idOutputOK: batch - batch/2}, batch
		next := func(i int64) [][]byte {
			channel, name := 1+uint32(i), fmt.Sprintf("%s %d %d", e.Pipe, n, i/2)
			if i%2 > 0 {
				return c.input(channel, name, modeBytes)
			}
			return c.output(channel, name)
		}
		if e.Kind != "vanish" {
			expected[idCloseOK], most = batch, 2*batch
			open := next
			next = func(i int64) [][]byte {
				if i%2 > 0 {
					return c.closing(1 + uint32(i/2))
				}
				return open(i / 2)
			}
		}
		if err := c.exchange(most, next, expected); err != nil {
			return t, err
		}
		t.Times += batch
		c.close()
	}
	t.Found = count(t.Times) + " ends"
	return t, nil
}

// exchange sends messages, and waits for as many answers of each kind.
func (c *rawClient) exchange(count int64, next func(i int64) [][]byte, expected map[byte]int64) error {
	var wrong error
	got := func(a answer) {
		if expected[a.id()]--; expected[a.id()] == 0 {
			delete(expected, a.id())
		} else if expected[a.id()] < 0 && wrong == nil {
			wrong = fmt.Errorf("an answer that was not expected: %.80q", a)
		}
	}
	if _, _, err := c.pour(count, next, got); err != nil {
		return err
	}
	for wrong == nil && len(expected) > 0 {
		a, err := c.next()
		if err != nil {
			return fmt.Errorf("%w, where %v are to come", err, expected)
		}
		got(a)
	}
	return wrong
}

// openTooMany opens ends without closing any: of one client until it may have no more, then
// of another until their user may not, and then one of the library's.
func openTooMany(h *host, e errand) (t tally, err error) {
	left := int64(userEnds - neighbourEnds)
	for i, most := range []int64{clientEnds, left - clientEnds} {
		c, err := connect(e.Endpoint, newDialect)
		if err != nil {
			return t, err
		}
		defer c.close()
		opens := max(most+1000, e.Count-t.Times)
		next := func(n int64) [][]byte {
			return c.input(1+uint32(n), fmt.Sprintf("%s %d %d", e.Pipe, i, n), modeBytes)
		}
		if err := c.exchange(opens, next, map[byte]int64{idInputOK: most, idInputFailed: opens - most}); err != nil {
			return t, err
		}
		a, err := c.ask(idInputFailed, next(opens))
		if err == nil && !a.failedFor(causeTooMany, c.dialect) {
			err = fmt.Errorf("one end too many was answered with %.80q", a)
		}
		if err != nil {
			return t, err
		}
		t.Times += opens + 1
	}
	c, err := client(e.Endpoint)
	if err != nil {
		return t, err
	}
	defer c.Close()
	if _, err := c.OpenWriter(background, e.Pipe); !errors.Is(err, zpipes.ErrTooManyPipes) {
		return t, fmt.Errorf("one end too many of the library: %w", err)
	}
	t.Found = fmt.Sprintf("%s sent, %s ends of two clients opened, the others refused", count(t.Times), count(left))
	return t, nil
}

// openEnds opens ends by the library, so many at once, and closes them, or keeps them.
func openEnds(h *host, e errand) (t tally, err error) {
	newClient := client
	if e.Kind == "keep" {
		newClient = mortalClient
	}
	c, err := newClient(e.Endpoint)
	if err != nil {
		return t, err
	}
	h.kept = append(h.kept, c)
	var begun, done atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, e.AtOnce)
	for k := range errs {
		wg.Go(func() {
			for i := begun.Add(1); i <= e.Count && errs[k] == nil; i = begun.Add(1) {
				var end interface{ CloseWithError(error) error } // Close of a Writer would wait for a reader
				name := fmt.Sprintf("%s %d", e.Pipe, i/2)
				if i%2 > 0 {
					end, errs[k] = c.OpenReader(background, name)
				} else {
					end, errs[k] = c.OpenWriter(background, name)
				}
				if errs[k] == nil && e.Kind != "keep" {
					errs[k] = end.CloseWithError(errUnwanted)
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	if e.Kind != "keep" {
		errs = append(errs, c.Close())
	}
	t.Times = done.Load()
	t.Found = count(t.Times) + " ends"
	return t, errors.Join(errs...)
}

var errUnwanted = errors.New("not needed")

// openByText opens and closes queues by text. A third of the OPENs is another client's than
// the CLOSE, and its connection is gone by then.
func openByText(h *host, e errand) (t tally, err error) {
	c, err := connect(e.Endpoint, oldDialect)
	if err != nil {
		return t, err
	}
	defer c.close()
	for ; t.Times < e.Count; t.Times++ {
		name, opener := fmt.Sprintf("%s %d", e.Pipe, t.Times), c
		if t.Times%3 == 0 {
			if opener, err = connect(e.Endpoint, oldDialect); err != nil {
				return t, err
			}
		}
		a, err := opener.ask(0, text("OPEN", name))
		if opener != c {
			opener.close()
		}
		if err == nil && len(a) == 1 {
			a, err = c.ask(0, text("CLOSE", name))
		}
		if err == nil && len(a) != 1 {
			err = fmt.Errorf("OPEN or CLOSE was answered with %q", a)
		}
		if err != nil {
			return t, err
		}
	}
	t.Found = count(t.Times) + " queues"
	return t, nil
}
