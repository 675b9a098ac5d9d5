package verify

import (
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/dmarc"
)

// TestEverySituationHasARule tries all combinations that the table depends on.
func TestEverySituationHasARule(t *testing.T) {
	reasons := map[dmarc.Status][]dmarc.Reason{
		dmarc.None: {dmarc.NoRecord, dmarc.FromNoDomain}, dmarc.Pass: {dmarc.Aligned}, dmarc.Fail: {dmarc.NotAligned}, dmarc.TempError: {dmarc.DNSPolicy, dmarc.DNSAlignment},
		dmarc.PermError: {dmarc.BadRecord, dmarc.FromMissing, dmarc.FromUnusable, dmarc.TooManyDomains},
	}
	for status, all := range reasons {
		for _, reason := range all {
			for _, policy := range []dmarc.Policy{"", dmarc.PolicyNone, dmarc.PolicyQuarantine, dmarc.PolicyReject} {
				if (status == dmarc.Fail) == (policy == "") {
					continue
				}
				for flags := range 1 << 6 {
					for signals := range 5 {
						checkSituation(t, situation(dmarc.Result{Status: status, Reason: reason, Policy: policy, Published: policy}, flags, signals))
					}
				}
			}
		}
	}
}

func situation(v dmarc.Result, flags, signals int) Situation {
	s := Situation{Verdict: v}
	for i, flag := range []*bool{&s.Authenticated, &s.LocalAllow, &s.TrustedForwarder, &s.TrustedSealer, &s.ListTraits, &s.ForwarderTraits} {
		*flag = flags&(1<<i) != 0
	}
	s.Signals = []SignalKind{SignalReverseName, SignalHelo, SignalOurDomain, SignalBlockList}[:signals]
	return s
}

// checkSituation asserts the rules that every decision of the table has to keep.
func checkSituation(t *testing.T, s Situation) {
	t.Helper()
	var before Action
	for _, s.Enforce = range Enforcements() {
		d := Decide(s)
		exempt := s.Authenticated || s.LocalAllow || s.TrustedForwarder || s.TrustedSealer
		switch {
		case d.Rule == "not_judged":
			t.Errorf("no rule: %+v", s)
		case d.Action.strength() < before.strength():
			t.Errorf("%s is milder than the column before: %+v", s.Enforce, s)
		case d.Action.strength() >= 0 && (exempt || s.Enforce == EnforceOff):
			t.Errorf("%s: %s by %s: %+v", s.Enforce, d.Action, d.Rule, s)
		case d.Action == ActionReject && s.Verdict.Policy != dmarc.PolicyReject:
			t.Errorf("rejected without p=reject: %+v", s)
		case d.Action == ActionReject && s.Enforce != EnforceStrict && (len(s.Signals) < NeededSignals || s.ListTraits || s.ForwarderTraits):
			t.Errorf("rejected without evidence: %+v", s)
		case s.Verdict.Policy == dmarc.PolicyNone && d.Action != ActionNone:
			t.Errorf("p=none changed handling: %+v", s)
		case (d.Override == "") == (s.Verdict.Status == dmarc.Fail && !s.Authenticated && d.Action.strength() < strength(s.Verdict.Published)):
			t.Errorf("%s: %s instead of %s with override %q by %s", s.Enforce, d.Action, s.Verdict.Published, d.Override, d.Rule)
		}
		before = d.Action
	}
}

func TestNotJudged(t *testing.T) {
	if d := Decide(Situation{Enforce: EnforceStrict}); d.Action != ActionNone || d.Rule != "not_judged" {
		t.Errorf("got %+v", d)
	}
}

func TestTable(t *testing.T) {
	table := Table()
	lines := strings.Split(strings.TrimSpace(table), "\n")
	if len(lines) != len(Rules())+2 {
		t.Fatalf("%d lines for %d rules", len(lines), len(Rules()))
	}
	columns := strings.Count(lines[0], "|")
	for i, line := range lines {
		if strings.Count(line, "|") != columns {
			t.Errorf("line %d has other columns: %s", i+1, line)
		}
	}
	for i, r := range Rules() {
		if !strings.HasPrefix(lines[i+2], "| `"+r.Name+"` | "+r.When+" |") {
			t.Errorf("row %d: %s", i, lines[i+2])
		}
	}
	if want := "| `reject_evidence` | fails, the policy is reject, and two signals say forged | none | quarantine | reject | reject | `local_policy` (rejection not enforced) |\n"; !strings.Contains(table, want) {
		t.Errorf("no %s in\n%s", want, table)
	}
}

func TestEnforcementColumns(t *testing.T) {
	if Enforcements()[strictColumn] != EnforceStrict {
		t.Error("strictColumn is not the strict column")
	}
}
