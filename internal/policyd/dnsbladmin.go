package policyd

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/postern-mail/postern/dnsbl"
	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/replay"
	"github.com/postern-mail/postern/internal/service/dnslists"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/policy/checks"
)

func dnsblCommands(c *current) map[string]admin.Handler {
	return map[string]admin.Handler{
		api.DNSBLCheck:    command(c, checks.DNSBLName, (*dnsblPart).check),
		api.DNSBLSelfTest: command(c, checks.DNSBLName, (*dnsblPart).selfTest),
	}
}

func (o *dnsblPart) check(ctx context.Context, args api.DNSBLCheckArgs, _ func(any)) (any, error) {
	return o.explain(ctx, args.Subject), nil
}

// explain asks the lists about a subject, and returns what the check does with it.
func (o *dnsblPart) explain(ctx context.Context, subject string) api.DNSBLCheckResult {
	if name, err := mailaddr.ParseDomain(subject); err == nil {
		subject = name
	}
	out := api.DNSBLCheckResult{Subject: subject, Threshold: o.DNSBLThreshold, Zones: []api.DNSBLZone{}}
	explained, result, err := o.lists.Explain(ctx, subject)
	for _, e := range explained {
		z := zoneState(e.Status)
		z.Unused = e.Status.Problem != dnsbl.Healthy
		z.Millis = millis(e.Took)
		if e.Failure != nil {
			z.Error = e.Failure.Cause
		}
		if h := e.Hit; h != nil {
			z.Codes, z.Text, z.Counted = meanings(h.Codes), e.Text, h.Counted && !z.Unused
			z.Listed = e.Failure == nil
			if z.Counted {
				z.Weight = h.Weight
			}
		}
		out.Zones = append(out.Zones, z)
	}
	out.Asked = len(out.Zones) > 0
	out.Score = result.Score
	o.decide(&out, result.Outcome, err)
	return out
}

// decide sets what the check does. If the listings alone do not decide, it also names
// the setting that does.
func (o *dnsblPart) decide(out *api.DNSBLCheckResult, outcome dnsbl.Outcome, err error) {
	addr, addrErr := netip.ParseAddr(out.Subject)
	switch {
	case !out.Asked:
		out.Verdict = api.DNSBLNotAsked
		return
	case addrErr == nil && o.made.Relays.Has(addr.Unmap()):
		out.Verdict, out.Why = api.DNSBLNotRefused, "the client is in trusted-relays, and no list is asked"
		return
	case addrErr == nil && o.made.AllowClients != nil && o.made.AllowClients.Has(addr.Unmap(), ""):
		out.Verdict, out.Why = api.DNSBLNotRefused, "the client is in dnsbl-allow-clients, and no list is asked"
		return
	case outcome == dnsbl.Listed:
		out.Verdict = api.DNSBLRefused
	case outcome == dnsbl.Clean:
		out.Verdict = api.DNSBLNotRefused
	case o.DNSBLOnError == wordDefer:
		out.Verdict, out.Why = api.DNSBLDeferred, "dnsbl-on-error defer, and the lists do not answer: "+err.Error()
	default:
		out.Verdict, out.Why = api.DNSBLNotRefused, "dnsbl-on-error pass, and the lists do not answer: "+err.Error()
	}
	if o.shadowed && out.Verdict != api.DNSBLNotRefused {
		out.Verdict, out.Why = api.DNSBLNotRefused, "the check is in shadow; it records: "+out.Verdict
	}
	out.Refused = out.Verdict == api.DNSBLRefused
}

func (o *dnsblPart) selfTest(ctx context.Context, _ struct{}, _ func(any)) (any, error) {
	out, err := o.testLists(ctx)
	return out, err
}

func (o *dnsblPart) testLists(ctx context.Context) (api.DNSBLSelfTestResult, error) {
	results, err := o.lists.SelfTest(ctx)
	if err != nil {
		return api.DNSBLSelfTestResult{}, err
	}
	out := api.DNSBLSelfTestResult{Healthy: true}
	for _, r := range results {
		t := api.DNSBLTest{DNSBLZone: zoneState(r.Status), Off: r.Off}
		for i := range r.Points {
			t.Points = append(t.Points, point(&r.Points[i]))
		}
		out.Healthy = out.Healthy && r.Problem == dnsbl.Healthy
		out.Zones = append(out.Zones, t)
	}
	return out, nil
}

func point(p *dnsbl.Point) api.DNSBLPoint {
	out := api.DNSBLPoint{Subject: p.Subject, Want: "not listed", Optional: p.Optional, Codes: meanings(p.Codes), OK: p.OK(), Millis: millis(p.Took)}
	if p.Listed {
		out.Want = "listed"
	}
	if p.Failure != nil {
		out.Error = p.Failure.Cause
	}
	return out
}

func zoneState(s dnsbl.Status) api.DNSBLZone {
	z := api.DNSBLZone{Zone: s.Zone, Kind: s.Kind.String(), State: dnslists.Word(s.Problem), Cause: s.Cause, Fix: s.Problem.Fix()}
	if !s.Since.IsZero() {
		z.Since = &s.Since
	}
	return z
}

func meanings(all []dnsbl.Code) []api.DNSBLCode {
	var out []api.DNSBLCode
	for _, c := range all {
		out = append(out, api.DNSBLCode{Code: c.Addr.String(), Meaning: c.Name, Class: c.Class.String()})
	}
	return out
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// advise implements adviser.
func (o *dnsblPart) advise(_ context.Context, r *policy.Request, step *policy.Step) []string {
	if step.Err != nil {
		return []string{"the lists must answer (`postern dnsbl selftest` shows which do not), or --dnsbl-on-error=pass"}
	}
	var texts []string
	if score := step.Verdict.Signals[policy.DNSBLScore]; score < maxThreshold {
		texts = append(texts, fmt.Sprintf("score %d of %d; --dnsbl-threshold=%d would pass it", score, o.DNSBLThreshold, score+1))
	}
	return append(texts,
		fmt.Sprintf("an entry for %s in --dnsbl-allow-clients would pass it", r.Client.Address),
		fmt.Sprintf("an entry for %s in --dnsbl-allow-recipients would pass it", r.Recipient.Raw))
}

// replay implements replayer.
func (o *dnsblPart) replay(_ *needs, to *replay.Settings) error {
	to.Threshold = o.DNSBLThreshold
	return nil
}
