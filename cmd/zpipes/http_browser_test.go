package main

import (
	"context"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// A browser shows the page.
type pageBrowser struct {
	*testing.T
	ctx context.Context
	// complaints ends what is logged, and returns it: scripts that failed, what was
	// not found, what the policy refused.
	complaints func() []string
}

func newPageBrowser(r *pageRig, width, height int64) *pageBrowser {
	r.Helper()
	ctx, cancel := chromedp.NewContext(r.Context())
	r.Cleanup(cancel)
	b := &pageBrowser{T: r.T, ctx: ctx}
	err := chromedp.Do(ctx) // without a timeout, for this starts it
	if errors.Is(err, exec.ErrNotFound) {
		r.Skip("there is no browser: install Chromium or Chrome; on Debian, apt-get install chromium")
	}
	if err != nil {
		r.Fatal(err)
	}
	messages := chromedp.Console(ctx)
	b.complaints = func() (all []string) {
		b.evaluate(`console.log('that was all')`)
		for m, err := range messages {
			if m.Text == "that was all" {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
			all = append(all, m.Text+" "+m.URL)
		}
		return all
	}
	b.do(chromedp.EmulateViewport(width, height), chromedp.Navigate(r.pageWay()))
	return b
}

func (b *pageBrowser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 3*soonest)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.Fatal(err)
	}
}

// evaluate returns the value of a script as text.
func (b *pageBrowser) evaluate(script string) string {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 3*soonest) // it hangs at a dialog
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string]("String("+script+")"))
	if err != nil && strings.Contains(err.Error(), "Inspected target navigated") {
		return "" // between two pages there is nothing
	}
	if err != nil {
		b.Fatal(err)
	}
	return text
}

// text returns what is shown of the elements that a selector finds.
func (b *pageBrowser) text(selector string) string {
	b.Helper()
	return b.evaluate(`[...document.querySelectorAll('` + selector + `')].map(e => e.innerText).join('|')`)
}

func TestPageInBrowser(t *testing.T) {
	r := newPageRig(t)
	b := newPageBrowser(r, 1200, 800)
	eventually(t, "the page is there", func() bool { return b.text("#state") == "serving" && b.text("#none") != "" })

	const hostile = "<script>alert(1)</script>"
	w := r.writer("greetings")
	if _, err := w.WriteString("unread"); err != nil {
		t.Fatal(err)
	}
	h := r.writer(hostile)
	eventually(t, "the pipes appear, the fuller one first", func() bool { return b.text("#rows bdi") == "greetings|"+hostile })
	if n := b.evaluate(`document.scripts.length`); n != "1" {
		t.Error(n, "scripts")
	}
	b.do(chromedp.Navigate(r.url)) // as the server shows them
	eventually(t, "they are shown still", func() bool { return b.text("#rows bdi") == "greetings|"+hostile })
	if n := b.evaluate(`document.scripts.length`); n != "1" {
		t.Error(n, "scripts")
	}

	rd, err := r.client.OpenReader(t.Context(), "greetings")
	if err != nil {
		t.Fatal(err)
	}
	var moving sync.WaitGroup
	moving.Go(func() {
		for buf := make([]byte, 1000); ; {
			if _, err := rd.Read(buf); err != nil {
				return
			}
		}
	})
	eventually(t, "bytes move", func() bool {
		if _, err := w.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		rates := strings.Split(b.text("#rows .out"), "|")
		return slices.ContainsFunc(rates, func(rate string) bool { return rate != "0 B/s" }) &&
			b.evaluate(`document.querySelector('#rows svg path.out') !== null`) == "true"
	})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	moving.Wait()
	rd.Close()
	eventually(t, "it goes", func() bool {
		return b.text("#rows bdi") == hostile && strings.Contains(b.text("#events .went"), "greetings")
	})

	r.writer(strings.Repeat("\xff", 255))
	eventually(t, "another one appears", func() bool { return strings.Contains(b.text("#rows bdi"), `\xff\xff`) })
	for _, width := range []int64{360, 1200} {
		b.do(chromedp.EmulateViewport(width, 800))
		if wide := b.evaluate(`document.documentElement.scrollWidth > innerWidth`); wide != "false" {
			t.Errorf("the page is wider than a screen of %d", width)
		}
	}
	if all := b.complaints(); all != nil {
		t.Errorf("the browser complains: %q", all)
	}
	h.SetWriteDeadline(time.Unix(1, 0))
	h.Close()
	r.stop()
	eventually(t, "the page notices the end", func() bool { return b.text("#state") == "no connection" })
}

func TestPageWaitsInBrowser(t *testing.T) {
	r := newPageRig(t)
	b := newPageBrowser(r, 360, 640)
	w := r.writer("full")
	w.SetWriteDeadline(time.Now().Add(time.Minute))
	var writing sync.WaitGroup
	writing.Go(func() { w.Write(make([]byte, 16<<20)) })
	eventually(t, "the writer waits", func() bool { return strings.HasPrefix(b.text("#rows .stuck"), "writer has waited ") })
	w.CloseWithError(errors.New("enough"))
	writing.Wait()
	eventually(t, "it has gone", func() bool { return b.text("#rows .stuck") == "" })
	if all := b.complaints(); all != nil {
		t.Errorf("the browser complains: %q", all)
	}
}
