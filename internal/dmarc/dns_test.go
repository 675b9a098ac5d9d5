package dmarc

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/author"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// dnsZone is served by a server of our own and asked with the resolver of the
// daemons, packet by packet.
const dnsZone = `
_dmarc.example.com. TXT "v=DMARC1; p=none; " "sp=quarantine; np=reject"
real.example.com. MX 10 mx.example.com.
below.ent.example.com. A 192.0.2.1
alias.example.com. CNAME gone.example.com.
good.example.com. CNAME real.example.com.
*.wild.example.com. A 192.0.2.2
_dmarc.cname.example. CNAME records.example.net.
records.example.net. TXT "v=DMARC1; p=reject"
_dmarc.dangling.example. CNAME nowhere.example.net.
`

func TestRealDNS(t *testing.T) {
	z := resolvertest.NewZone(t, dnsZone)
	for name, fault := range map[string]resolvertest.Fault{
		"_dmarc.servfail.example.": resolvertest.ServFail, "_dmarc.refused.example.": resolvertest.Refused,
		"_dmarc.silent.example.": resolvertest.Unavailable, "_dmarc.loop.example.": resolvertest.CNAMELoop,
		"_dmarc.garbage.example.": resolvertest.Garbage,
	} {
		z.Fail(name, fault)
	}
	long := strings.Repeat("a.", 122) + "example"
	tests := []struct {
		domain  string
		status  Status
		policy  Policy
		missing bool
	}{
		{"example.com", Fail, PolicyNone, false},
		{"real.example.com", Fail, PolicyQuarantine, false},  // an MX record
		{"ent.example.com", Fail, PolicyQuarantine, false},   // NODATA: a name below it exists
		{"alias.example.com", Fail, PolicyQuarantine, false}, // an alias exists, though what it leads to does not
		{"good.example.com", Fail, PolicyQuarantine, false},
		{"any.wild.example.com", Fail, PolicyQuarantine, false}, // the wildcard answers: no TXT, but the name exists
		{"gone.example.com", Fail, PolicyReject, true},
		{"deep.gone.example.com", Fail, PolicyReject, true},
		{"cname.example", Fail, PolicyReject, false},
		{"dangling.example", None, "", false},
		{"nobody.example", None, "", false},
		{long, None, "", false},
		{"servfail.example", TempError, "", false},
		{"refused.example", TempError, "", false},
		{"silent.example", TempError, "", false},
		{"loop.example", TempError, "", false},
		{"garbage.example", TempError, "", false},
		{"www.servfail.example", TempError, "", false},
	}
	e := Evaluator{Resolver: z}
	for _, tt := range tests {
		t.Run(tt.domain[:min(len(tt.domain), 40)], func(t *testing.T) {
			v := e.Evaluate(t.Context(), Message{Author: author.Author{Domains: []string{tt.domain}}}).Verdict
			if v.Status != tt.status || v.Policy != tt.policy || v.NonExistent != tt.missing || (v.Err != nil) != (tt.status == TempError) {
				t.Errorf("got %s %q, missing %v (%v); want %s %q, %v", v.Status, v.Policy, v.NonExistent, v.Err, tt.status, tt.policy, tt.missing)
			}
		})
	}
}

// TestStorm has names with as many records as an answer carries.
func TestStorm(t *testing.T) {
	var zone strings.Builder
	zone.WriteString(`_dmarc.storm.example. TXT "v=DMARC1; p=reject"` + "\n")
	for i := range 1000 {
		fmt.Fprintf(&zone, "_dmarc.storm.example. TXT \"noise %d\"\n", i)
		fmt.Fprintf(&zone, "_dmarc.several.example. TXT \"v=DMARC1; p=reject; x=%d\"\n", i)
	}
	z := resolvertest.NewZone(t, zone.String())
	e := Evaluator{Resolver: z}
	for domain, want := range map[string]Status{"storm.example": Fail, "several.example": None} {
		r := e.Evaluate(t.Context(), Message{Author: author.Author{Domains: []string{domain}}})
		if r.Verdict.Status != want {
			t.Errorf("%s: got %s (%v), want %s", domain, r.Verdict.Status, r.Verdict.Err, want)
		}
	}
	s := newFinder(z).record(t.Context(), "several.example")
	if s.Record != nil || s.Discarded != 1000 {
		t.Errorf("%d records discarded", s.Discarded)
	}
}
