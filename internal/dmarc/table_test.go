package dmarc_test

import (
	"context"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/author"
	"github.com/postern-mail/postern/internal/dmarc"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/spf"
	"github.com/postern-mail/postern/milter/verify"
)

// TestGoldenDispositions checks what the table of package verify makes of the
// verdicts of the golden cases.
func TestGoldenDispositions(t *testing.T) {
	rules := map[string]int{}
	dmarc.EachGolden(t, func(t testing.TB, fields map[string]string, v dmarc.Result) {
		d := verify.Decide(situation(fields, v))
		rules[d.Rule]++
		for key, value := range map[string]string{
			"action": string(d.Action), "rule": d.Rule, "override": orDash(string(d.Override)),
		} {
			if want, ok := fields[key]; ok && want != value {
				t.Errorf("%s: got %q, want %q (error: %v)", key, value, want, v.Err)
			}
		}
	})
	for _, r := range verify.Rules() {
		if rules[r.Name] == 0 {
			t.Errorf("rule %s in no case", r.Name)
		}
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// situation reads what a golden case gives besides the verdict.
func situation(fields map[string]string, v dmarc.Result) verify.Situation {
	s := verify.Situation{Enforce: verify.EnforceQuarantine, Verdict: v}
	if e := fields["enforce"]; e != "" {
		s.Enforce = verify.Enforcement(e)
	}
	flags := map[string]*bool{
		"marked": &s.Marked, "authenticated": &s.Authenticated, "allowed": &s.LocalAllow, "forwarder": &s.TrustedForwarder,
		"sealer": &s.TrustedSealer, "list": &s.ListTraits, "forwarded": &s.ForwarderTraits,
	}
	for name := range strings.FieldsSeq(fields["flags"]) {
		*flags[name] = true
	}
	for name := range strings.FieldsSeq(fields["signals"]) {
		s.Signals = append(s.Signals, verify.SignalKind(name))
	}
	return s
}

func FuzzEvaluate(f *testing.F) {
	f.Add("v=DMARC1; p=reject; psd=n", "v=DMARC1; p=none; psd=y", "a.b.c.d.e.f.g.h.i.j", "b.c.d", "c.d", uint8(3))
	f.Add("v=DMARC1; p=reject; np=none", "SERVFAIL", "x.y.z", "y.z", "z", uint8(0))
	f.Fuzz(func(t *testing.T, first, second, from, mailFrom, signer string, at uint8) {
		domain, err := mailaddr.ParseDomain(from)
		if err != nil {
			return
		}
		z := dmarc.NewZone()
		names := dmarc.WalkNames(domain)
		for i, text := range []string{first, second} {
			name := "_dmarc." + names[(int(at)>>(4*i))%len(names)]
			if text == "SERVFAIL" {
				z.Add(name, text, "")
			} else {
				z.Add(name, "TXT", text)
			}
		}
		m := dmarc.Message{Author: author.Author{Domains: []string{domain}}, Signatures: []dmarc.Signature{{signer, dmarc.SignaturePass}}}
		m.SPF.Status, m.SPF.Domain = spf.Pass, mailFrom
		for _, method := range []dmarc.Method{dmarc.MethodTreeWalk, dmarc.MethodPSL} {
			e := dmarc.Evaluator{Resolver: z.Full(), Method: method}
			r := e.Evaluate(context.Background(), m)
			dmarc.CheckInvariants(t, r)
			if limit := 3*dmarc.MaxWalkQueries + 1; r.Queries > limit {
				t.Fatalf("%d questions", r.Queries)
			}
			for _, enforce := range verify.Enforcements() {
				d := verify.Decide(verify.Situation{Enforce: enforce, Verdict: r.Verdict})
				if d.Action == verify.ActionReject && (enforce != verify.EnforceStrict || r.Verdict.Policy != dmarc.PolicyReject) {
					t.Fatalf("%s: rejected by %s", enforce, d.Rule)
				}
			}
		}
	})
}
