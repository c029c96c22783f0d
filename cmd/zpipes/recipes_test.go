//go:build unix

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// A recipe in docs/SHELL.md is a block of shell below its name.
var recipe = regexp.MustCompile("(?s)<!-- recipe: (\\S+) -->\n```(sh|bash)\n(.*?)```\n")

// The recipes of docs/SHELL.md do what it says there. A script of testdata/recipes runs
// the recipe NAME as NAME.sh.
func TestRecipes(t *testing.T) {
	text, err := os.ReadFile("../../docs/SHELL.md")
	if err != nil {
		t.Fatal(err)
	}
	var all string
	files, err := filepath.Glob("testdata/recipes/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, f := range files {
		script, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all += string(script)
	}
	recipes := make(map[string]string)
	for _, m := range recipe.FindAllStringSubmatch(string(text), -1) {
		recipes[m[1]+".sh"] = m[3]
		if !strings.Contains(all, m[1]+".sh") {
			t.Errorf("no script runs the recipe %q", m[1])
		}
	}
	if got, want := len(recipes), strings.Count(string(text), "```sh\n")+strings.Count(string(text), "```bash\n"); got != want {
		t.Errorf("%d recipes have a name of their own, of %d", got, want)
	}
	scripts(t, testscript.Params{Dir: "testdata/recipes"}, func(e *testscript.Env) error {
		for name, text := range recipes {
			if err := os.WriteFile(filepath.Join(e.WorkDir, name), []byte(text), 0o600); err != nil {
				return err
			}
		}
		return nil
	})
}
