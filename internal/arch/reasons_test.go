package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/postern-mail/postern/internal/record"
)

// inSteps are the reasons that no decision rests on: a check that has nothing to
// say leaves them in its step.
var inSteps = []record.Reason{
	record.OwnerUnauthenticated,
	record.DNSBLAuthenticated, record.DNSBLClientExempt, record.DNSBLRecipientExempt, record.DNSBLNothingToAsk, record.DNSBLTrustedRelay,
	record.GreylistAuthenticated, record.GreylistLocalClient, record.GreylistNoClient, record.GreylistClientAllowed, record.GreylistRecipientAllowed, record.GreylistSenderAllowed, record.GreylistTrustedRelay,
}

// Every reason is counted for some check, or is only found in steps.
func TestEveryReasonIsKnown(t *testing.T) {
	known := make(map[record.Reason]bool)
	for _, check := range []string{"", "policy_context", "ownership", "dnsbl", "greylist", "sign", "verify"} {
		for _, l := range record.Known(check, false) {
			known[l.Reason] = true
		}
	}
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
		literal, ok := spec.Values[0].(*ast.BasicLit)
		if !ok {
			return true
		}
		text, err := strconv.Unquote(literal.Value)
		if err != nil {
			t.Fatal(err)
		}
		n++
		if reason := record.Reason(text); known[reason] == slices.Contains(inSteps, reason) {
			t.Errorf("%s: counted %t; add it to internal/record/labels.go, or to inSteps when no decision rests on it", reason, known[reason])
		}
		return true
	})
	if n < 50 {
		t.Errorf("found %d reasons in reason.go", n)
	}
}
