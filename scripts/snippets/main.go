// Command snippets makes programs of the Go code in README.md and doc.go, so that it can be
// tried that what they show works.
//
//	snippets LIBRARY DIRECTORY
//
// LIBRARY is where README.md and doc.go are. In DIRECTORY, what is a program goes to a folder
// of its own, named as its first line says, else main; a test goes to the folder test; and what
// is neither is run by one program for each file: readme and doc.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/doc/comment"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: snippets LIBRARY DIRECTORY")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "snippets:", err)
		os.Exit(1)
	}
}

func run(library, dir string) error {
	readme, err := os.ReadFile(filepath.Join(library, "README.md"))
	if err != nil {
		return err
	}
	doc, err := parser.ParseFile(token.NewFileSet(), filepath.Join(library, "doc.go"), nil, parser.ParseComments)
	if err != nil {
		return err
	}
	return errors.Join(
		write(dir, "readme", ofMarkdown(string(readme))),
		write(dir, "doc", ofComment(doc.Doc.Text())))
}

var fenced = regexp.MustCompile("(?ms)^```go\n(.*?)^```$")

func ofMarkdown(text string) []string {
	var codes []string
	for _, match := range fenced.FindAllStringSubmatch(text, -1) {
		codes = append(codes, match[1])
	}
	return codes
}

// ofComment returns all that is indented, but for the drawings: they have arrows.
func ofComment(text string) []string {
	var codes []string
	for _, block := range new(comment.Parser).Parse(text).Content {
		if code, ok := block.(*comment.Code); ok && !strings.Contains(code.Text, "--->") {
			codes = append(codes, code.Text)
		}
	}
	return codes
}

var (
	folder   = regexp.MustCompile(`^// (\w+)/main\.go\n`)
	testFunc = regexp.MustCompile(`(?m)^func Test`)
)

func write(dir, name string, codes []string) error {
	if len(codes) == 0 {
		return fmt.Errorf("no code in the text of %s", name)
	}
	var bodies []string
	for _, code := range codes {
		var err error
		switch {
		case strings.Contains(code, "package main\n"):
			to := "main"
			if match := folder.FindStringSubmatch(code); match != nil {
				to = match[1]
			}
			err = create(dir, to, "main.go", code)
		case testFunc.MatchString(code):
			err = create(dir, "test", "snippet_test.go", withImports("package snippet\n"+tested+code))
		default:
			var body string
			body, err = fragment(code)
			bodies = append(bodies, body)
		}
		if err != nil {
			return fmt.Errorf("%s: %w in\n%s", name, err, code)
		}
	}
	if len(bodies) == 0 {
		return nil
	}
	var program strings.Builder
	program.WriteString("package main\n" + harness + "var fragments = []func(){\n")
	var compiled strings.Builder
	for _, body := range bodies {
		if idle.MatchString(body) {
			fmt.Fprintf(&compiled, "var _ = func() error {\n%s\nreturn nil\n}\n", body)
		} else {
			fmt.Fprintf(&program, "func() {\n%s\n},\n", body)
		}
	}
	program.WriteString("}\n" + compiled.String())
	return create(dir, name, "main.go", withImports(program.String()))
}

func create(dir, to, file, source string) error {
	formatted, err := format.Source([]byte(source))
	if err != nil {
		return err
	}
	to = filepath.Join(dir, to)
	if err := os.MkdirAll(to, 0o777); err != nil {
		return err
	}
	to = filepath.Join(to, file)
	if _, err := os.Stat(to); err == nil {
		return fmt.Errorf("there are two for %s", to)
	}
	return os.WriteFile(to, formatted, 0o666)
}

// idle matches fragments that are compiled alone: they are a part of a function, or serve for ever, or
// keep something on the disk.
var idle = regexp.MustCompile(`\breturn\b|\bhttp\.|\bDir:`)

// harness is around the fragments of a file. They run at the same time, since one reads what
// another one writes, and find here what they take for given.
const harness = `
var (
	broker    = must(zpipes.NewBroker(""))
	client    = broker.Client()
	ctx, stop = context.WithTimeout(context.Background(), 20*time.Second)
	r         = must(client.OpenReader(ctx, "given"))
	w         = must(client.OpenWriter(ctx, "given"))
	q         = must(client.OpenQueue(ctx, "jobs"))
	data      = []byte("data")

	queue   = q
	handler = http.NotFoundHandler()
)

func resize(context.Context, []byte) error { return nil }

func must[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		log.Panic(err)
	}
}

func main() {
	var all sync.WaitGroup
	for _, run := range fragments {
		all.Go(run)
	}
	all.Wait()
	stop()
	broker.Close()
}
`

// tested is what the test of README.md tests.
const tested = `
func count(r io.Reader) (int64, error) { return io.Copy(io.Discard, r) }
`

var elided = regexp.MustCompile(`(?m)^(\t*)\.\.\.$`)

// fragment returns the statements of a function body. What a fragment leaves out, "...", is to
// look at the error before it, or in a loop to do the work once.
func fragment(code string) (string, error) {
	code = elided.ReplaceAllString(code, "${1}elided()")
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "", "package p\nfunc _() {\n"+code+"\n}", parser.ParseComments)
	if err != nil {
		return "", err
	}
	body := file.Decls[0].(*ast.FuncDecl).Body
	body.List = complete(body.List, false)
	var text bytes.Buffer
	if err := format.Node(&text, fset, body.List); err != nil {
		return "", err
	}
	return text.String(), nil
}

// complete uses all variables that statements declare, and checks all errors that they assign.
func complete(list []ast.Stmt, loop bool) []ast.Stmt {
	var done []ast.Stmt
	for i, s := range list {
		switch s := s.(type) {
		case *ast.ExprStmt:
			if isElided(s) {
				if loop {
					done = append(done, &ast.BranchStmt{Tok: token.BREAK})
				}
				continue
			}
		case *ast.AssignStmt:
			done = append(append(done, s), use(s.Tok, s.Lhs...)...)
			if i+1 == len(list) || !isSwitch(list[i+1]) {
				done = append(done, checks(s.Lhs...)...)
			}
			continue
		case *ast.RangeStmt:
			declared := use(s.Tok, s.Key, s.Value)
			checked := checks(s.Key, s.Value)
			s.Body.List = append(append(declared, checked...), complete(s.Body.List, true)...)
		}
		done = append(done, s)
	}
	return done
}

func isElided(s *ast.ExprStmt) bool {
	call, ok := s.X.(*ast.CallExpr)
	if !ok {
		return false
	}
	name, ok := call.Fun.(*ast.Ident)
	return ok && name.Name == "elided"
}

// isSwitch reports whether a statement decides, and so looks at the error by itself.
func isSwitch(s ast.Stmt) bool {
	switch s.(type) {
	case *ast.SwitchStmt, *ast.IfStmt:
		return true
	}
	return false
}

func use(tok token.Token, vars ...ast.Expr) (uses []ast.Stmt) {
	for _, v := range vars {
		if name, ok := v.(*ast.Ident); ok && tok == token.DEFINE && name.Name != "_" {
			uses = append(uses, &ast.AssignStmt{
				Lhs: []ast.Expr{ast.NewIdent("_")}, Tok: token.ASSIGN, Rhs: []ast.Expr{ast.NewIdent(name.Name)},
			})
		}
	}
	return uses
}

func checks(vars ...ast.Expr) (checks []ast.Stmt) {
	for _, v := range vars {
		if name, ok := v.(*ast.Ident); ok && name.Name == "err" {
			checks = append(checks, &ast.ExprStmt{
				X: &ast.CallExpr{Fun: ast.NewIdent("check"), Args: []ast.Expr{ast.NewIdent("err")}},
			})
		}
	}
	return checks
}

var known = []string{
	"context", "errors", "fmt", "io", "log", "net/http", "os", "sync", "testing", "time", "github.com/zpipes/zpipes", "github.com/zpipes/zpipes/door",
}

// withImports adds those of the known packages that a source without imports mentions.
func withImports(source string) string {
	head, rest, _ := strings.Cut(source, "\n")
	var imports strings.Builder
	for _, path := range known {
		if regexp.MustCompile(`\b` + filepath.Base(path) + `\.[A-Z]`).MatchString(rest) {
			fmt.Fprintf(&imports, "import %q\n", path)
		}
	}
	return head + "\n\n" + imports.String() + rest
}
