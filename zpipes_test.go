package zpipes

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestModesAsText(t *testing.T) {
	for _, m := range []Mode{ModeStream, ModeQueue} {
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var got Mode
		if err := json.Unmarshal(text, &got); err != nil || got != m {
			t.Errorf("%s is read as %v, %v", text, got, err)
		}
	}
	if err := new(Mode).UnmarshalText([]byte("pond")); err == nil {
		t.Error("a pond is taken for a mode")
	}
}

func TestShortText(t *testing.T) {
	for _, text := range []string{"", "why", strings.Repeat("x", maxString), strings.Repeat("é", 200), strings.Repeat("長", 100), "x" + strings.Repeat("🙂", 70), strings.Repeat("\x80", 300)} {
		short := shortText(text)
		if !strings.HasPrefix(text, short) || len(short) > maxString || len(short) < min(len(text), maxString-utf8.UTFMax) || utf8.ValidString(text) != utf8.ValidString(short) {
			t.Errorf("of %q is left %q", text, short)
		}
	}
}
