package zpipes_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// ARCHITECTURE.md has each file on its map, and names no file, method or field that is
// not there.
func TestArchitectureIsTrue(t *testing.T) {
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("`([^`\n]+)`").FindAllStringSubmatch(string(text), -1)
	mapped := make(map[string]bool)
	for _, name := range names {
		for _, dir := range []string{"", "docs/", "cmd/zpipes/", "internal/ring/"} {
			found, _ := filepath.Glob(dir + name[1])
			for _, file := range found {
				mapped[file], mapped[name[1]] = true, true
			}
		}
	}
	var sources []byte
	files, _ := filepath.Glob("*.go")
	inC, _ := filepath.Glob("*.c")
	for _, file := range append(files, inC...) {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		if !mapped[file] {
			t.Errorf("%s is not on the map", file)
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, source...)
	}
	words := make(map[string]bool)
	for _, word := range regexp.MustCompile(`\w+`).FindAllString(string(sources), -1) {
		words[word] = true
	}
	isFile := regexp.MustCompile(`\.(go|md|\*)$|/`)
	isMember := regexp.MustCompile(`^(\w+)\.(\w+)$`)
	for _, name := range names {
		if isFile.MatchString(name[1]) && !strings.Contains(name[1], " ") {
			if !mapped[name[1]] && !strings.Contains(name[1], "://") {
				t.Errorf("there is no %s", name[1])
			}
			continue
		}
		for _, word := range strings.Split(isMember.FindString(name[1]), ".") {
			if word != "" && !words[word] {
				t.Errorf("%s: there is no %s", name[1], word)
			}
		}
	}
}

// Between hosts nothing depends on what a clock on the wall shows, which may be wrong, jump, and differ
// from another's: all times there are differences, by the clock that only goes on.
func TestOnlyDifferencesOfTimeBetweenHosts(t *testing.T) {
	wall := regexp.MustCompile(`\.(Unix\w*|UTC|Local|Round\(0\)|MarshalBinary|Format|AppendFormat|Date|Parse)\(`)
	seen := 0
	for _, glob := range []string{
		"mesh*.go", "far.go", "member.go", "strands.go", "exchange*.go", "rendezvous.go", "relay.go", "pipe_relay.go", "conn_relay.go", "conn_call.go",
		"conn_forward.go", "conn_fellow.go", "session_peer.go", "session_forward.go", "duplex_far.go", "broadcast_far.go", "broker_meetings.go", "homes.go", "session_homes.go",
		"internal/meet/*.go", "cluster/*.go",
	} {
		files, err := filepath.Glob(glob)
		if err != nil || len(files) == 0 {
			t.Errorf("%s: %v", glob, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			seen++
			for _, line := range strings.Split(string(source), "\n") {
				if wall.MatchString(line) {
					t.Errorf("%s: %s", file, strings.TrimSpace(line))
				}
			}
		}
	}
	if seen < 25 {
		t.Errorf("%d files were looked at", seen)
	}
}
