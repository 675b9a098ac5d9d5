package dmarc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/author"
	"github.com/postern-mail/postern/internal/spf"
)

func TestWalkNames(t *testing.T) {
	tests := []struct{ start, want string }{
		// The example of RFC 9989 section 4.10.
		{"a.b.c.d.e.f.g.h.i.j.mail.example.com", "a.b.c.d.e.f.g.h.i.j.mail.example.com g.h.i.j.mail.example.com h.i.j.mail.example.com " +
			"i.j.mail.example.com j.mail.example.com mail.example.com example.com com"},
		// The example of section 5.1.7: the cut passes over b.c.d.e.f.g.example.com.
		{"mail.a.b.c.d.e.f.g.example.com", "mail.a.b.c.d.e.f.g.example.com c.d.e.f.g.example.com d.e.f.g.example.com e.f.g.example.com " +
			"f.g.example.com g.example.com example.com com"},
		{"1.2.3.4.5.6.7.8", "1.2.3.4.5.6.7.8 2.3.4.5.6.7.8 3.4.5.6.7.8 4.5.6.7.8 5.6.7.8 6.7.8 7.8 8"},
		{"1.2.3.4.5.6.7", "1.2.3.4.5.6.7 2.3.4.5.6.7 3.4.5.6.7 4.5.6.7 5.6.7 6.7 7"},
		{"a.mail.example.com", "a.mail.example.com mail.example.com example.com com"},
		{"com", "com"},
	}
	for _, tt := range tests {
		if got := strings.Join(walkNames(tt.start), " "); got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.start, got, tt.want)
		}
	}
}

// TestOrganizationalDomain has the examples of RFC 9989 section 4.10.2.
func TestOrganizationalDomain(t *testing.T) {
	tests := []struct {
		name, start string
		records     map[string]string
		want        string
	}{
		{"fewest labels", "a.mail.example.com", map[string]string{"mail.example.com": "", "example.com": ""}, "example.com"},
		{"psd=n", "a.mail.example.com", map[string]string{"mail.example.com": "psd=n", "example.com": ""}, "mail.example.com"},
		{"psd=y", "a.mail.example.com", map[string]string{"com": "psd=y"}, "example.com"},
		{"psd=y in the middle", "a.mail.example.com", map[string]string{"example.com": "psd=y", "com": ""}, "mail.example.com"},
		{"psd=y at the start", "example.com", map[string]string{"example.com": "psd=y", "com": ""}, "example.com"},
		{"psd=y at the parent", "example.com", map[string]string{"com": "psd=y"}, "example.com"},
		{"nothing", "a.example.com", nil, "a.example.com"},
		{"psd=y above the cut", "a.b.c.d.e.f.g.h.i.example", map[string]string{"d.e.f.g.h.i.example": "psd=y"}, "c.d.e.f.g.h.i.example"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			z := newZone()
			for domain, tags := range tt.records {
				z.Add("_dmarc."+domain, "TXT", "v=DMARC1; p=none; "+tags)
			}
			w := newFinder(z).walk(t.Context(), tt.start)
			if w.Org != tt.want || w.Err != nil {
				t.Errorf("got %q, %v; want %q", w.Org, w.Err, tt.want)
			}
		})
	}
}

func TestIsBelow(t *testing.T) {
	tests := []struct {
		name, domain string
		want         bool
	}{
		{"example.com", "example.com", true}, {"a.example.com", "example.com", true},
		{"badexample.com", "example.com", false}, {"com", "example.com", false}, {"example.org", "example.com", false},
	}
	for _, tt := range tests {
		if got := isBelow(tt.name, tt.domain); got != tt.want {
			t.Errorf("%s below %s: %v", tt.name, tt.domain, got)
		}
	}
}

// TestQuestionsAreBounded gives a mail all that costs questions.
func TestQuestionsAreBounded(t *testing.T) {
	z := newZone()
	var author author.Author
	m := Message{}
	for i := range MaxDomains {
		org := fmt.Sprintf("org%d.example", i)
		z.Add("_dmarc."+org, "TXT", "v=DMARC1; p=none; np=reject")
		author.Domains = append(author.Domains, "1.2.3.4.5.6.7.8.9."+org)
		for j := range 200 {
			domain := fmt.Sprintf("x%d.1.2.3.4.5.6.7.8.%s", j, org)
			m.Signatures = append(m.Signatures, Signature{domain, SignaturePass})
		}
	}
	m.Author = author
	e := Evaluator{Resolver: z.Full()}
	r := e.Evaluate(t.Context(), m)
	if len(r.Results[0].Identifiers) != MaxIdentifiers {
		t.Errorf("%d identifiers", len(r.Results[0].Identifiers))
	}
	if limit := (MaxDomains+MaxIdentifiers)*MaxWalkQueries + MaxDomains; r.Queries > limit || len(z.Asked()) != r.Queries {
		t.Errorf("%d questions, %d asked, limit %d", r.Queries, len(z.Asked()), limit)
	}
	asked := z.Asked()
	slices.Sort(asked)
	if once := slices.Compact(slices.Clone(asked)); len(once) != len(asked) {
		t.Errorf("%d questions for %d names", len(asked), len(once))
	}
}

func TestCancelled(t *testing.T) {
	z := newZone()
	z.Add("_dmarc.example.com", "TXT", "v=DMARC1; p=reject")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m := Message{Author: author.Author{Domains: []string{"example.com"}}}
	m.SPF.Status, m.SPF.Domain = spf.Pass, "example.com"
	e := Evaluator{Resolver: z}
	r := e.Evaluate(ctx, m)
	if r.Verdict.Status != TempError || !errors.Is(r.Verdict.Err, context.Canceled) || len(z.Asked()) != 0 {
		t.Errorf("got %+v, asked %v", r.Verdict, z.Asked())
	}
}

// TestAuthorWithoutDomains judges what ParseFrom did not make.
func TestAuthorWithoutDomains(t *testing.T) {
	e := Evaluator{Resolver: newZone()}
	if r := e.Evaluate(t.Context(), Message{}); r.Verdict.Status != PermError {
		t.Errorf("got %+v", r.Verdict)
	}
}

func TestPSLOrg(t *testing.T) {
	tests := []struct{ domain, want string }{
		{"a.b.example.com", "example.com"}, {"a.example.co.uk", "example.co.uk"}, {"co.uk", "co.uk"}, {"com", "com"},
		{"x.github.io", "x.github.io"}, {"a.b.unknown", "b.unknown"}, {"www.xn--85x722f.xn--55qx5d.cn", "xn--85x722f.xn--55qx5d.cn"},
	}
	for _, tt := range tests {
		if got := PSLOrg(tt.domain); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.domain, got, tt.want)
		}
	}
}

func TestIdentifiers(t *testing.T) {
	var result spf.MailFromResult
	result.Status, result.Domain = spf.TempError, "B.example."
	got := identifiers(result, []Signature{
		{"a.example", SignatureTempError}, {"c.example", SignatureOther}, {"d.example", SignatureTempError},
		{"A.Example", SignaturePass}, {"bad\x00.example", SignaturePass}, {"", SignaturePass}, {"a.example", SignatureTempError},
	})
	want := []Identifier{
		{Mechanism: "spf", Domain: "b.example"},
		{Mechanism: "dkim", Domain: "a.example", Passed: true},
		{Mechanism: "dkim", Domain: "d.example"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}
