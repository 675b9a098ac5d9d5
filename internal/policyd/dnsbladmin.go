package policyd

import (
	"context"
	"time"

	"github.com/postern-mail/postern/dnsbl"
	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/service/dnslists"
	"github.com/postern-mail/postern/policy/checks"
)

// DNSBLCheckArgs asks what the lists say about an address or a name
// ("dnsbl.check").
type DNSBLCheckArgs struct {
	Subject string `json:"subject"`
}

// DNSBLZone is one list's answer, or the state it is in.
type DNSBLZone struct {
	Zone    string      `json:"zone"`
	Kind    string      `json:"kind"`
	State   string      `json:"state"` // "in service", or the problem that opened the breaker
	Cause   string      `json:"cause,omitempty"`
	Mend    string      `json:"mend,omitempty"`
	Since   *time.Time  `json:"since,omitempty"`
	Listed  bool        `json:"listed"`
	Codes   []DNSBLCode `json:"codes,omitempty"`
	Weight  int         `json:"weight"`            // what it adds to the score
	Counted bool        `json:"counted,omitempty"` // a filter or the list's meaning lets it count
	Text    string      `json:"text,omitempty"`
	Error   string      `json:"error,omitempty"` // the list could not tell
	Millis  float64     `json:"latency_ms"`
}

// DNSBLCode is one answer of a list with its meaning.
type DNSBLCode struct {
	Code    string `json:"code"`
	Meaning string `json:"meaning"`
	Class   string `json:"class"` // listed, allowed, abused, fresh, other, refused
}

// DNSBLCheckResult is what all lists of the subject's kind say.
type DNSBLCheckResult struct {
	Subject   string      `json:"subject"` // as it was asked: A-labels, lower case
	Asked     bool        `json:"asked"`   // false: no list can know it
	Score     int         `json:"score"`
	Threshold int         `json:"threshold"`
	Refused   bool        `json:"refused"` // the score reaches the threshold, by this subject alone
	Zones     []DNSBLZone `json:"zones"`
}

// DNSBLTest is the self-test of one list.
type DNSBLTest struct {
	DNSBLZone
	Points []DNSBLPoint `json:"points"`
}

// DNSBLPoint is one question of a self-test.
type DNSBLPoint struct {
	Subject  string      `json:"subject"`
	Want     string      `json:"want"`     // listed, not listed
	Optional bool        `json:"optional"` // it may be missing: no IPv6, one of several test names
	Codes    []DNSBLCode `json:"codes,omitempty"`
	Error    string      `json:"error,omitempty"`
	OK       bool        `json:"ok"`
	Millis   float64     `json:"latency_ms"`
}

// DNSBLSelfTestResult is the outcome of "dnsbl.selftest".
type DNSBLSelfTestResult struct {
	Healthy bool        `json:"healthy"` // all lists are in service
	Zones   []DNSBLTest `json:"zones"`
}

func dnsblCommands(c *current) map[string]admin.Handler {
	return map[string]admin.Handler{
		"dnsbl.check":    command(c, checks.DNSBLName, (*dnsblPart).check),
		"dnsbl.selftest": command(c, checks.DNSBLName, (*dnsblPart).selfTest),
	}
}

func (o *dnsblPart) check(ctx context.Context, args DNSBLCheckArgs, _ func(any)) (any, error) {
	subject := args.Subject
	if name, err := mailaddr.ParseDomain(subject); err == nil {
		subject = name
	}
	out := DNSBLCheckResult{Subject: subject, Threshold: o.DNSBLThreshold, Zones: []DNSBLZone{}}
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
	out := DNSBLSelfTestResult{Healthy: true}
	for _, r := range results {
		t := DNSBLTest{DNSBLZone: zoneState(r.Status)}
		for i := range r.Points {
			t.Points = append(t.Points, point(&r.Points[i]))
		}
		out.Healthy = out.Healthy && r.Problem == dnsbl.Healthy
		out.Zones = append(out.Zones, t)
	}
	return out, nil
}

func point(p *dnsbl.Point) DNSBLPoint {
	out := DNSBLPoint{Subject: p.Subject, Want: "not listed", Optional: p.Optional, Codes: meanings(p.Codes), OK: p.OK(), Millis: millis(p.Took)}
	if p.Listed {
		out.Want = "listed"
	}
	if p.Failure != nil {
		out.Error = p.Failure.Cause
	}
	return out
}

func zoneState(s dnsbl.Status) DNSBLZone {
	z := DNSBLZone{Zone: s.Zone, Kind: s.Kind.String(), State: dnslists.Word(s.Problem), Cause: s.Cause, Mend: s.Problem.Mend()}
	if !s.Since.IsZero() {
		z.Since = &s.Since
	}
	return z
}

func meanings(all []dnsbl.Code) []DNSBLCode {
	var out []DNSBLCode
	for _, c := range all {
		out = append(out, DNSBLCode{Code: c.Addr.String(), Meaning: c.Name, Class: c.Class.String()})
	}
	return out
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
