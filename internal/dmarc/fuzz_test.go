package dmarc

import (
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/mailaddr"
)

func FuzzParseRecord(f *testing.F) {
	for _, seed := range []string{
		"v=DMARC1; p=reject; sp=none; np=quarantine; psd=y; t=y; adkim=s; aspf=s; fo=1:d:s; rua=mailto:a@b.c!10m,https://x/; ruf=mailto:d@e.f",
		"v = DMARC1 ;; = ; p ; p=", "v=DMARC1\x00;p=reject", "v=DMARC1; p=\xff", "v=DMARC1;" + strings.Repeat("p=none;", 50), "", "v", "v=", ";",
		// Ten thousand octets: of one address, of many, of unknown tags, of separators.
		"v=DMARC1; rua=mailto:" + strings.Repeat("a", 9950) + "@b.example; p=reject",
		"v=DMARC1; rua=" + strings.Repeat("mailto:a@b.example,", 526) + "; p=reject",
		"v=DMARC1; p=reject;" + strings.Repeat("x=y;", 2495), "v=DMARC1; p=reject" + strings.Repeat(";", 9982),
		"v=DMARC1; p=rej\x00ect; sp=quarantine", "v=DMARC1; \xe4=\xf6; p=quarantine; rua=mailto:\xfc@b.example", "v=DMARC1\u00a0; p=reject",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, ok := ParseRecord(text)
		if ok && !strings.HasPrefix(text, "v") {
			t.Fatalf("%q begins with no version", text)
		}
		if len(r.Broken) > len(tagNames) || len(r.RUA) > maxURIs || len(r.RUF) > maxURIs || r.Percent < 0 || r.Percent > 100 {
			t.Fatalf("%q: out of bounds: %+v", text, r)
		}
		for _, p := range []Policy{r.P, r.SP, r.NP} {
			if _, valid := parsePolicy(string(p)); p != "" && !valid {
				t.Fatalf("%q: policy %q", text, p)
			}
		}
		if u, ok := r.usable(); ok && u.P == "" {
			t.Fatalf("%q: usable without a policy", text)
		}
	})
}

func FuzzParseFrom(f *testing.F) {
	for _, file := range []string{"testdata/golden/from.txt", "testdata/golden/espoofer.txt"} {
		_, cases := readGolden(f, file)
		for _, g := range cases {
			for _, field := range g.header {
				f.Add(field[0], field[1][:min(len(field[1]), 500)])
			}
		}
	}
	for _, seed := range []string{` "a\"" (b(\)) <a@b.c>, d@e`, "<<>>", "((((", `"\`, ":;@,<>", " a@b.c,\x00", "=?=?=?@?=", `"a"@b@"c`,
		strings.Repeat("a@b.example,", MaxAddresses) + "c@d.example", strings.Repeat("(", 10_000) + strings.Repeat(")", 10_000) + "a@b.example",
		" a@" + strings.Repeat("x.", 299) + "example", " a@" + strings.Repeat("\u00e4.", 299) + "example", " a@b.example.", " a@b.example..", "a@b\x00.c.example",
		":;", "x:;", "x:a@b.example,y:c@d.example;;", "x:a@b.example", "<@a.example,@b.example:c@d.example>", "=?utf-8?b?PGFAYi5leGFtcGxlPg==?= <c@d.example>",
		strings.Repeat("=?utf-8?q?=40b.example?= ", 20), "a\r\n\t@b\r\n .example",
	} {
		f.Add("From", seed)
	}
	for _, name := range []string{"from", "From ", "From\r\n ", "Fr\x00om", "Resent-From", "From:"} {
		f.Add(name, " a@b.example")
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		a := ParseFrom(pairs([][2]string{{name, value}}))
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
		// A field that a careless reader cuts at the last "@" must have judged
		// that domain, unless it is opaque.
		if domain, ok := strings.CutPrefix(value, "x@"); ok && a.Fields == 1 {
			if plain, err := mailaddr.ParseDomain(domain); err == nil && !slices.Contains(a.Domains, plain) {
				t.Fatalf("%q: %q is not judged: %+v", value, plain, a)
			}
		}
	})
}
