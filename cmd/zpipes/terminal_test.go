package main

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"unicode"
)

var oddNames = []string{
	"plain", "db:orders", "a=b", "two words", " blank", "", "-n", "$HOME", "$(touch ran)", "`id`", "it's", `say "hi"`, `back\slash`,
	"{a,b}", "~", "~x", "=ls", "==", "*", "#x", "!!", "a;b", "a|b", "caf\u00e9", "caf\xe9", "caf\xe91", "\xff\xfe", "\ufffd", "tab\there", "two\nlines",
	"\x1b[31mred", "\u009b2J", "\x7f", "\u202eright to left", "\u200b", "don't \x1b!",
}

// What is shown of a name can be typed again, and does nothing to a terminal.
func TestNamesCanBeTypedAgain(t *testing.T) {
	var script strings.Builder
	for _, name := range oddNames {
		text := visible(name)
		script.WriteString("printf '%s\\0' " + text + "\n")
		for _, r := range text {
			if r == unicode.ReplacementChar && !strings.Contains(name, "\ufffd") || !unicode.IsPrint(r) {
				t.Errorf("%q is shown as %q", name, text)
			}
		}
	}
	if got := visible("db:orders-1.x"); got != "db:orders-1.x" {
		t.Errorf("a plain name is shown as %s", got)
	}
	for _, shell := range []string{"bash", "zsh"} {
		if _, err := exec.LookPath(shell); err != nil {
			t.Logf("there is no %s", shell)
			continue
		}
		out, err := exec.Command(shell, "-c", script.String()).Output()
		if err != nil {
			t.Fatal(shell, err)
		}
		got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
		if len(got) != len(oddNames) {
			t.Fatalf("%s reads %d names of %d: %q", shell, len(got), len(oddNames), got)
		}
		for i, name := range oddNames {
			if got[i] != name {
				t.Errorf("%s reads %s as %q, not %q", shell, visible(name), got[i], name)
			}
		}
	}
}

func TestHarmless(t *testing.T) {
	for text, want := range map[string]string{
		"all is well":                  "all is well",
		"na\u00efve \u4e16\u754c":      "na\u00efve \u4e16\u754c",
		"\x1b]0;title\a":               `\x1b]0;title\a`,
		"caf\xe9\u009b1m\u202e\r\nb\t": `caf\xe9\u009b1m\u202e\r\nb\t`,
		"\ufffd":                       "\ufffd",
	} {
		if got := harmless(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// JSON means the same, and does nothing to a terminal.
func TestHarmlessJSON(t *testing.T) {
	for _, text := range append(oddNames, "\U0001f469\u200d\U0001f4bb", "\U000e0041", "\u0085") {
		want, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if n, err := (harmlessJSON{&got}).Write(want); n != len(want) || err != nil {
			t.Errorf("%q: %d, %v", text, n, err)
		}
		for i, r := range got.String() {
			if !shown(r, got.String()[i:]) {
				t.Errorf("%q is written as %q", text, got.String())
			}
		}
		var is, was string
		if json.Unmarshal(got.Bytes(), &is) != nil || json.Unmarshal(want, &was) != nil || is != was {
			t.Errorf("%q is read as %q", was, is)
		}
	}
}
