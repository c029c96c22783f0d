package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if os.Getenv(partVar) != "" {
		os.Exit(playPart())
	}
	os.Exit(m.Run())
}

// Each trial, for a moment.
func TestTrials(t *testing.T) {
	for _, trial := range trials() {
		t.Run(trial.name, func(t *testing.T) {
			s := settings{duration: time.Second, only: regexp.MustCompile("^" + trial.name + "$"), seed: 1}
			table, err := s.run(t.Context(), trials())
			if err != nil {
				t.Error(err)
			}
			t.Log(strings.TrimSpace(table))
		})
	}
}
