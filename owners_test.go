package zpipes

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"strings"
	"testing"
)

// Types whose state only the files set that have their methods.
var owners = map[string]string{
	"pipe": "pipe*.go", "side": "pipe*.go", "handover": "pipe_handover.go", "relaying": "pipe_relay.go",
	"chunkQueue": "chunkqueue*.go", "senderQueue": "chunkqueue*.go", "jobBook": "chunkqueue*.go", "worker": "chunkqueue*.go", "aside": "chunkqueue*.go",
	"buffer":    "buffer.go",
	"broadcast": "broadcast*.go", "cursor": "broadcast*.go", "farBranch": "broadcast*.go", "marks": "marks.go",
}

type noImports struct{}

func (noImports) Import(string) (*types.Package, error) { return nil, errors.New("not needed here") }

// Fields of a pipe or queue are set where its methods are, and nowhere else: who wants
// something of it says what has happened.
func TestOwnersAloneSetFields(t *testing.T) {
	set := token.NewFileSet()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	// What is another package's, or another system's, is an error that does not matter.
	config := types.Config{Importer: noImports{}, Error: func(error) {}}
	info := &types.Info{Selections: make(map[*ast.SelectorExpr]*types.Selection)}
	p, _ := config.Check("zpipes", set, files, info)
	fields := make(map[types.Object]string) // whose they are
	for name := range owners {
		s, ok := p.Scope().Lookup(name).Type().Underlying().(*types.Struct)
		if !ok {
			t.Fatalf("%s is no struct any more", name)
		}
		for f := range s.Fields() {
			fields[f] = name
		}
	}
	looked := make(map[string]bool)
	check := func(x ast.Expr) {
		at := set.Position(x.Pos())
		for {
			switch y := x.(type) {
			case *ast.IndexExpr:
				x = y.X
			case *ast.StarExpr:
				x = y.X
			case *ast.ParenExpr:
				x = y.X
			case *ast.SelectorExpr:
				if s := info.Selections[y]; s != nil {
					v, _ := s.Obj().(*types.Var)
					if v != nil {
						v = v.Origin()
					}
					if of := fields[v]; of != "" {
						looked[of] = true
						if ok, _ := filepath.Match(owners[of], at.Filename); !ok {
							t.Errorf("%v sets %s of a %s; that is for %s to do", at, y.Sel.Name, of, owners[of])
						}
					}
				}
				x = y.X
			default:
				return
			}
		}
	}
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				for _, x := range n.Lhs {
					check(x)
				}
			case *ast.IncDecStmt:
				check(n.X)
			}
			return true
		})
	}
	for name := range owners {
		if !looked[name] {
			t.Errorf("nothing sets a field of a %s: the test sees nothing", name)
		}
	}
}
