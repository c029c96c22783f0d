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
