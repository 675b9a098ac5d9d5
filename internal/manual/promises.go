package manual

import (
	"fmt"
	"strings"
)

// Promise is a row of deploy/FAULTS.md: an event, what Postern does then, and the tests
// that show it.
type Promise struct {
	Fault, Text string
	Tests       []Test
}

// Test is a test function and the folder of its package.
type Test struct{ Package, Name string }

// Promises returns the promises of the tree at root.
func Promises(root string) ([]Promise, error) {
	page, err := Read(root, "deploy/FAULTS.md")
	if err != nil {
		return nil, err
	}
	var all []Promise
	for _, row := range Rows(page.Text) {
		text, tests := splitCell(row.Rest)
		p := Promise{Fault: row.First, Text: strings.TrimSpace(text)}
		if p.Fault == "" && len(all) > 0 {
			p.Fault = all[len(all)-1].Fault
		}
		for _, code := range Code(tests) {
			folder, name, ok := strings.Cut(code, " ")
			if !ok {
				return nil, fmt.Errorf("%s: %q is no package and test", page.Path, code)
			}
			p.Tests = append(p.Tests, Test{folder, name})
		}
		if len(p.Tests) == 0 {
			return nil, fmt.Errorf("%s: %q has no test", page.Path, p.Fault)
		}
		all = append(all, p)
	}
	return all, nil
}
