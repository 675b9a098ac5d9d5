package record

import (
	"slices"
	"testing"
)

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

func TestFailures(t *testing.T) {
	for check, want := range map[string][]Reason{
		"greylist":       {GreylistUnavailable, CheckFailed, DeadlineSpent, GreylistUnsure},
		"dnsbl":          {DNSBLUnavailable, CheckFailed, DeadlineSpent},
		"policy_context": {UnknownHook},
		"no such check":  nil,
	} {
		if got := Failures(check); !slices.Equal(got, want) {
			t.Errorf("%s: %v", check, got)
		}
	}
}
