package policyd

import (
	"context"
	"time"

	"github.com/postern-mail/postern/dnsbl"
	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/service/dnslists"
	"github.com/postern-mail/postern/policy/checks"
)

func dnsblCommands(c *current) map[string]admin.Handler {
	return map[string]admin.Handler{
		api.DNSBLCheck:    command(c, checks.DNSBLName, (*dnsblPart).check),
		api.DNSBLSelfTest: command(c, checks.DNSBLName, (*dnsblPart).selfTest),
	}
}

func (o *dnsblPart) check(ctx context.Context, args api.DNSBLCheckArgs, _ func(any)) (any, error) {
	subject := args.Subject
	if name, err := mailaddr.ParseDomain(subject); err == nil {
		subject = name
	}
	out := api.DNSBLCheckResult{Subject: subject, Threshold: o.DNSBLThreshold, Zones: []api.DNSBLZone{}}
	for _, e := range o.lists.Explain(ctx, subject) {
		z := zoneState(e.Status)
		z.Millis = millis(e.Took)
		if e.Failure != nil {
			z.Error = e.Failure.Cause
		}
		if h := e.Hit; h != nil {
			z.Codes, z.Text, z.Weight, z.Counted = meanings(h.Codes), e.Text, h.Weight, h.Counted
			z.Listed = e.Failure == nil
			out.Score += h.Weight
		}
		out.Zones = append(out.Zones, z)
	}
	out.Asked = len(out.Zones) > 0
	out.Refused = out.Score >= out.Threshold
	return out, nil
}

func (o *dnsblPart) selfTest(ctx context.Context, _ struct{}, _ func(any)) (any, error) {
	results, err := o.lists.SelfTest(ctx)
	if err != nil {
		return nil, err
	}
	out := api.DNSBLSelfTestResult{Healthy: true}
	for _, r := range results {
		t := api.DNSBLTest{DNSBLZone: zoneState(r.Status)}
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
	z := api.DNSBLZone{Zone: s.Zone, Kind: s.Kind.String(), State: dnslists.Word(s.Problem), Cause: s.Cause, Mend: s.Problem.Mend()}
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
