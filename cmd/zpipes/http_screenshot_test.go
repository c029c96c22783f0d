package main

import (
	"context"
	"flag"
	"io"
	"math"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/zpipes/zpipes"
)

var screenshot = flag.String("screenshot", "", "have TestPageScreenshot write a picture of the page to this `file`, which takes a minute")

// TestPageScreenshot makes the picture for the documentation.
func TestPageScreenshot(t *testing.T) {
	if *screenshot == "" {
		t.Skip("-screenshot FILE makes a picture of the page")
	}
	broker, err := zpipes.NewBroker("studio")
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	r := servePage(t, broker, viewerPatience)
	far, err := zpipes.NewClient(broker.Endpoints()[1])
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	defer busy.Wait()
	defer cancel()

	wave := func(seconds, phase float64) func(time.Duration) float64 {
		return func(at time.Duration) float64 {
			return 0.55 + 0.45*math.Sin(2*math.Pi*(at.Seconds()/seconds+phase))
		}
	}
	bursts := func(at time.Duration) float64 {
		return math.Pow(max(0, math.Sin(at.Seconds()/3)), 6) + 0.02
	}
	for _, s := range []struct {
		client    *zpipes.Client
		name      string
		perSecond float64
		shape     func(time.Duration) float64
		slow      int // bytes a second that the reader takes; 0: all
	}{
		{r.client, "camera/1", 6 << 20, wave(17, 0), 3300 << 10},
		{far, "backup.tar.gz", 11 << 20, wave(40, 0.3), 0},
		{r.client, "access.log", 300 << 10, bursts, 0},
		{r.client, "temperatures", 9 << 10, wave(25, 0.7), 0},
	} {
		w, err := s.client.OpenWriter(ctx, s.name)
		if err != nil {
			t.Fatal(err)
		}
		rd, err := s.client.OpenReader(ctx, s.name)
		if err != nil {
			t.Fatal(err)
		}
		context.AfterFunc(ctx, func() { w.CloseWithError(io.EOF); rd.Close() })
		busy.Go(func() {
			every(ctx, func(at time.Duration) {
				w.Write(make([]byte, int(s.perSecond*s.shape(at)/20)))
			})
		})
		busy.Go(func() {
			if s.slow == 0 {
				io.Copy(io.Discard, rd)
				return
			}
			every(ctx, func(time.Duration) { io.CopyN(io.Discard, rd, int64(s.slow/20)) })
		})
	}
	q, err := far.OpenQueue(ctx, "thumbnails")
	if err != nil {
		t.Fatal(err)
	}
	jobs, err := r.client.OpenQueue(ctx, "thumbnails")
	if err != nil {
		t.Fatal(err)
	}
	shape := wave(31, 0)
	busy.Go(func() {
		every(ctx, func(at time.Duration) {
			for range int(math.Round(2.4 * shape(at))) {
				q.Send(ctx, make([]byte, 2000))
			}
		})
	})
	busy.Go(func() { every(ctx, func(time.Duration) { jobs.Receive(ctx) }) })
	alerts, err := far.OpenReader(ctx, "alerts")
	if err != nil {
		t.Fatal(err)
	}
	busy.Go(func() { alerts.Read(make([]byte, 100)) })
	context.AfterFunc(ctx, func() { alerts.Close() })

	b := newPageBrowser(r, 1200, 560)
	<-time.After(22 * time.Second)
	report := r.writer("report/2026-11.csv")
	busy.Go(func() { report.Write(make([]byte, 2<<20)) })
	context.AfterFunc(ctx, func() { report.CloseWithError(io.EOF) })
	<-time.After(42 * time.Second)
	picture, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(*screenshot, picture, 0o644)
	}
	if err != nil {
		t.Error(err)
	}
}

// every calls f 20 times a second with the time that has passed.
func every(ctx context.Context, f func(time.Duration)) {
	start := time.Now()
	tick := time.NewTicker(time.Second / 20)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			f(time.Since(start))
		case <-ctx.Done():
			return
		}
	}
}
