package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/zpipes/zpipes"
)

func init() { parts["echoes"], parts["dials"] = playEchoes, playDials }

// playEchoes listens at a name.
func playEchoes(t task) error {
	client, err := t.client()
	if err != nil {
		return err
	}
	l, err := client.Listen(background, t.Pipe)
	if err != nil {
		return err
	}
	say("open")
	for {
		n, err := l.Accept()
		if err != nil {
			return err
		}
		go echo(n.(*zpipes.Conn))
	}
}

// A dialled is how long dials have taken.
type dialled struct{ Made, Answered, Refused []time.Duration }

// playDials dials where somebody listens, and where nobody does.
func playDials(t task) error {
	client, err := t.client()
	if err != nil {
		return err
	}
	var got dialled
	r := rand.New(rand.NewPCG(1, 2))
	for range t.Stint.Piece {
		began := time.Now()
		n, err := client.Dial(background, t.Pipe)
		if err != nil {
			return err
		}
		got.Made = append(got.Made, time.Since(began))
		if err := ask(n, r); err != nil {
			return err
		}
		got.Answered = append(got.Answered, time.Since(began))
		began = time.Now()
		if _, err := client.Dial(context.Background(), t.Pipe+"-nobody"); !errors.Is(err, zpipes.ErrNoListener) {
			return fmt.Errorf("a dial where nobody listens: %w", err)
		}
		got.Refused = append(got.Refused, time.Since(began))
	}
	return tell(got)
}

// dials has them measured between two hosts.
func (f *figures) dials() (string, error) {
	const trip = 40 * time.Millisecond
	there, err := f.play(1, "echoes", "dial", stint{})
	if err != nil {
		return "", err
	}
	defer there.kill()
	if _, err := there.expect("open", patience); err != nil {
		return "", err
	}
	time.Sleep(2 * time.Second) // who has just been linked may have yet to say what it knows
	here, err := f.play(0, "dials", "dial", stint{Piece: int(1 + f.b.size(30))})
	if err != nil {
		return "", err
	}
	defer here.kill()
	var got dialled
	if err := here.result(&got, patience); err != nil {
		return "", err
	}
	part := func(all []time.Duration) string {
		l := laps(all).lap()
		return fmt.Sprintf("%.1f round trips of 40 ms, half of them, at worst %.1f", float64(l.P50)/float64(trip), float64(l.Most)/float64(trip))
	}
	return fmt.Sprintf("made: %s; made, written, and all come back: %s; where nobody listens: %s", part(got.Made), part(got.Answered), part(got.Refused)), nil
}
