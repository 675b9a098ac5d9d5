package author

import (
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/mailaddr"
)

func FuzzParseFrom(f *testing.F) {
	for _, tt := range fields {
		f.Add("From", tt.value[:min(len(tt.value), 500)])
	}
	for _, seed := range []string{` "a\"" (b(\)) <a@b.c>, d@e`, "<<>>", "((((", `"\`, ":;@,<>", " a@b.c,\x00", "=?=?=?@?=", `"a"@b@"c`,
		strings.Repeat("a@b.example,", MaxAddresses) + "c@d.example", strings.Repeat("(", 10_000) + strings.Repeat(")", 10_000) + "a@b.example",
		" a@" + strings.Repeat("x.", 299) + "example", " a@" + strings.Repeat("\u00e4.", 299) + "example", " a@b.example.", " a@b.example..", "a@b\x00.c.example",
		":;", "x:;", "x:a@b.example,y:c@d.example;;", "x:a@b.example", "<@a.example,@b.example:c@d.example>", "=?utf-8?b?PGFAYi5leGFtcGxlPg==?= <c@d.example>",
		strings.Repeat("=?utf-8?q?=40b.example?= ", 20), "a\r\n\t@b\r\n .example",
	} {
		f.Add("From", seed)
	}
	f.Add("From", "=??q?=400.0?=<0@0")
	for _, name := range []string{"from", "From ", "From\r\n ", "Fr\x00om", "Resent-From", "From:"} {
		f.Add(name, " a@b.example")
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		a := ParseFrom(only(name, value))
		if a.Fields > 1 || len(a.Domains) > MaxDomains || a.Addresses > MaxAddresses {
			t.Fatalf("%q: out of bounds: %+v", value, a)
		}
		if len(a.Domains) == 0 && a.Defect == "" {
			t.Fatalf("%q: no outcome", value)
		}
		for i, domain := range a.Domains {
			if canonical, err := mailaddr.ParseDomain(domain); err != nil || canonical != domain || slices.Contains(a.Domains[:i], domain) {
				t.Fatalf("%q: domain %q", value, domain)
			}
		}
		if len(a.Mailboxes) > a.Addresses {
			t.Fatalf("%q: %d mailboxes", value, len(a.Mailboxes))
		}
		for _, m := range a.Mailboxes {
			m.DisplayName()
			if canonical, err := mailaddr.ParseDomain(m.Domain); err != nil || canonical != m.Domain {
				t.Fatalf("%q: mailbox %+v", value, m)
			}
			judged := slices.Contains(a.Domains, m.Domain) || a.Defect == TooManyDomains
			// In a broken field, a single label does not count beside a real
			// domain.
			if !judged && (!a.Malformed || strings.Contains(m.Domain, ".")) {
				t.Fatalf("%q: the domain of mailbox %+v is not judged: %+v", value, m, a)
			}
		}
		// A careless reader may split the field at the last "@". The domain
		// there must be among the results, unless it is opaque.
		if domain, ok := strings.CutPrefix(value, "x@"); ok && a.Fields == 1 {
			if plain, err := mailaddr.ParseDomain(domain); err == nil && !slices.Contains(a.Domains, plain) {
				t.Fatalf("%q: %q is not judged: %+v", value, plain, a)
			}
		}
	})
}
