package record

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"
)

// Every reason is in the vocabulary, which has the labels of its counters.
func TestEveryReasonIsKnown(t *testing.T) {
	known := make(map[Reason]bool)
	for _, uses := range vocabulary() {
		for _, u := range uses {
			known[u.reason] = true
		}
	}
	file, err := parser.ParseFile(token.NewFileSet(), "reason.go", nil, 0)
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
		if reason := Reason(text); !known[reason] {
			t.Errorf("%s is not in the vocabulary of reason.go", reason)
		}
		return true
	})
	if n < 50 {
		t.Errorf("found %d reasons in reason.go", n)
	}
}
