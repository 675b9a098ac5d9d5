package record

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"testing"
)

// inSteps are the reasons that no decision rests on: a check that has nothing to
// say leaves them in its step.
var inSteps = []Reason{
	OwnerUnauthenticated,
	DNSBLAuthenticated, DNSBLClientExempt, DNSBLRecipientExempt, DNSBLNothingToAsk,
	GreylistAuthenticated, GreylistLocalClient, GreylistNoClient, GreylistClientAllowed, GreylistRecipientAllowed, GreylistSenderAllowed,
}

// Every reason is counted for some check, or is only found in steps.
func TestEveryReasonIsKnown(t *testing.T) {
	known := make(map[Reason]bool)
	for _, check := range []string{"", "policy_context", "ownership", "dnsbl", "greylist", "sign", "verify"} {
		for _, l := range Known(check, false) {
			known[l.Reason] = true
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
		literal, ok := spec.Values[0].(*ast.BasicLit)
		if !ok {
			return true
		}
		text, err := strconv.Unquote(literal.Value)
		if err != nil {
			t.Fatal(err)
		}
		n++
		if reason := Reason(text); known[reason] == slices.Contains(inSteps, reason) {
			t.Errorf("%s: counted %t, only in steps %t", reason, known[reason], !known[reason])
		}
		return true
	})
	if n < 50 {
		t.Errorf("found %d reasons in reason.go", n)
	}
}

func TestKnownInTheShadow(t *testing.T) {
	all := Known("verify", true)
	for _, want := range []Labels{
		{"verify", "reject", DMARCRejected, ModeShadow}, {"verify", "pass", DMARCQuarantined, ModeShadow}, {"verify", "pass", Verified, ModeEnforce},
	} {
		if !slices.Contains(all, want) {
			t.Errorf("%v is missing in %v", want, all)
		}
	}
	if other := (Labels{"verify", "reject", DMARCRejected, ModeEnforce}); slices.Contains(all, other) {
		t.Errorf("%v is known although the check is only watched", other)
	}
	if got := Known("no such check", false); got != nil {
		t.Errorf("%v", got)
	}
}
