package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// In a daemon each part has rooms of its own: a file is about one part at most,
// and what is common to all knows none of them. parts.go alone lists them.
func TestRoomsDoNotKnowEachOther(t *testing.T) {
	common := []string{"app.go", "options.go", "state.go"}
	for _, daemon := range []string{"internal/policyd", "internal/milterd"} {
		files, err := filepath.Glob(filepath.Join(root(t), daemon, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		listed := partsNamed(t, filepath.Join(root(t), daemon, "parts.go"))
		if len(listed) < 3 {
			t.Errorf("%s/parts.go lists %q", daemon, listed)
		}
		for _, path := range files {
			name := filepath.Base(path)
			if name == "parts.go" || strings.HasSuffix(name, "_test.go") {
				continue
			}
			named := partsNamed(t, path)
			if len(named) > 1 || len(named) > 0 && slices.Contains(common, name) {
				t.Errorf("%s/%s is about %s", daemon, name, strings.Join(named, " and "))
			}
			for _, part := range named {
				if !slices.Contains(listed, part) {
					t.Errorf("%s of %s/%s is not listed in parts.go", part, daemon, name)
				}
			}
		}
	}
}

// partsNamed are the types of parts that a file names.
func partsNamed(t *testing.T, path string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var parts []string
	ast.Inspect(file, func(node ast.Node) bool {
		id, ok := node.(*ast.Ident)
		if ok && strings.HasSuffix(id.Name, "Part") && !ast.IsExported(id.Name) && !slices.Contains(parts, id.Name) {
			parts = append(parts, id.Name)
		}
		return true
	})
	return parts
}
