package dmarc

import (
	"strings"
	"testing"
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
		if ok && !strings.HasPrefix(strings.ToLower(text), "v") {
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
