package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const bashBreaks = " \t\n\"'@><=;|&(:"

// What bash has on its line is read without being run.
func TestReadBashLine(t *testing.T) {
	for text, want := range map[string]bashLine{
		"zpipes receive ":             {words: []string{"zpipes", "receive"}},
		"zpipes receive db:or":        {words: []string{"zpipes", "receive"}, current: "db:or", base: 3},
		`zpipes receive two\ wo`:      {words: []string{"zpipes", "receive"}, current: "two wo"},
		`zpipes receive "two wo`:      {words: []string{"zpipes", "receive"}, current: "two wo", quote: '"'},
		`zpipes send 'a b' x`:         {words: []string{"zpipes", "send", "a b"}, current: "x"},
		`zpipes read $'caf\351`:       {words: []string{"zpipes", "read"}, current: "caf\xe9", quote: '$'},
		"zpipes receive jobs >out":    {words: []string{"zpipes", "receive", "jobs"}, current: "out", redirect: true},
		"zpipes receive jobs 2>>out ": {words: []string{"zpipes", "receive", "jobs"}},
		"zpipes receive 2>&1 jo":      {words: []string{"zpipes", "receive"}, current: "jo"},
		"zpipes read $(touch ran) x":  {words: []string{"zpipes", "read", unknownWord}, current: "x"},
		"zpipes read `touch`":         {words: []string{"zpipes", "read"}, current: "touch", unknown: true},
		`zpipes -b "$B" read `:        {words: []string{"zpipes", "-b", unknownWord, "read"}},
		"zpipes read ''":              {words: []string{"zpipes", "read"}},
		"zpipes read a@b":             {words: []string{"zpipes", "read"}, current: "a@b", base: 1},
	} {
		got := readBashLine(text, bashBreaks)
		if !slices.Equal(got.words, want.words) || got.current != want.current || got.base != want.base ||
			got.quote != want.quote || got.redirect != want.redirect || got.unknown != want.unknown {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
	}
}

// Whatever of a name is there, in whatever quotes: with what is offered, bash reads the name.
func TestOffersAreTheNames(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("there is no bash")
	}
	var script strings.Builder
	var want []string
	for _, name := range oddNames {
		for _, typed := range []struct {
			open, body, end string
			quote           byte
		}{{"", "", "", 0}, {`"`, "", `"`, '"'}, {"'", "", "'", '\''}, {"$'", "", "'", '$'}} {
			l := readBashLine("zpipes read "+typed.open, bashBreaks)
			if l.quote != typed.quote {
				t.Fatalf("%s is read as %+v", typed.open, l)
			}
			if offer, ok := l.offer(name); ok && (name != "" || typed.open != "") {
				script.WriteString("printf '%s\\0' " + typed.open + offer + typed.end + "\n")
				want = append(want, name)
			}
		}
	}
	out, err := exec.Command("bash", "-c", script.String()).Output()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	if len(got) != len(want) {
		t.Fatalf("%d words, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("bash reads %q, want %q", got[i], want[i])
		}
	}
}

func FuzzBashLine(f *testing.F) {
	f.Add(`zpipes read $(x "y`)
	f.Fuzz(func(t *testing.T, text string) {
		l := readBashLine(text, bashBreaks)
		if l.base < 0 || l.base > len(l.current) {
			t.Fatalf("%q: %+v", text, l)
		}
	})
}
