package zpipes

import (
	"encoding/json"
	"testing"
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
