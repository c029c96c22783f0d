package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"testing"
)

// contrib/broker.toml has all settings, and if nothing is commented out, they are fine.
func TestConfigExample(t *testing.T) {
	text, err := os.ReadFile("../../contrib/broker.toml")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "broker.toml")
	text = regexp.MustCompile(`(?m)^# (\w+ = )`).ReplaceAll(text, []byte("$1"))
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	var s settings
	if err := s.load(file); err != nil {
		t.Fatal(err)
	}
	var tags []string
	v := reflect.ValueOf(s)
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag.Get("toml")
		tags = append(tags, tag)
		if tag != "log_level" && tag != "log_json" && v.Field(i).IsZero() {
			t.Errorf("contrib/broker.toml has no %s", tag)
		}
	}
	if !slices.Equal(tags, keys) {
		t.Errorf("the settings are %q, and errors name %q", tags, keys)
	}
}
