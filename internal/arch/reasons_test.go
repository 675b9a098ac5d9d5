package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/postern-mail/postern/internal/record"
)

// Every reason is in the vocabulary, which says what is counted of it.
func TestEveryReasonIsKnown(t *testing.T) {
	known := record.Reasons()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root(t), "internal/record/reason.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); !ok || kind.Name != "Reason" {
			return true
		}
		literal, ok := spec.Values[0].(*ast.BasicLit)
		if !ok {
			return true
		}
		text, err := strconv.Unquote(literal.Value)
		if err != nil {
			t.Fatal(err)
		}
		n++
		if reason := record.Reason(text); !known[reason] {
			t.Errorf("%s is not in the vocabulary of internal/record/reason.go", reason)
		}
		return true
	})
	if n < 50 {
		t.Errorf("found %d reasons in reason.go", n)
	}
}
