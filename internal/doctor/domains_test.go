package doctor

import (
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// A domain that asks for no DMARC reports is named, and is no fault.
func TestDomainWithoutReports(t *testing.T) {
	s := newSite(t)
	s.save()
	s.start()
	for _, test := range []struct {
		record string
		named  bool
	}{{`"v=DMARC1; p=reject"`, true}, {`"v=DMARC1; p=reject; rua=mailto:reports@home.example"`, false}, {`"v=DMARC1; p=reject; rua=mailto:reports@home.example!10m"`, false}} {
		s.dns.Remove("_dmarc.home.example.")
		s.must(s.dns.Add("_dmarc.home.example. IN TXT " + test.record))
		o := s.options()
		o.Only = []string{"domains"}
		r := Run(t.Context(), o)
		named := slices.ContainsFunc(r.Findings, func(f Finding) bool {
			return f.Level == OK && strings.Contains(f.Text, "home.example ask for no reports: add rua=mailto:")
		})
		if r.Level != OK || named != test.named {
			t.Errorf("%s: %+v", test.record, r.Findings)
		}
	}
}

// An address in another organisation gets no reports before that organisation agrees.
func TestDomainReportedToAnother(t *testing.T) {
	s := newSite(t)
	s.save()
	s.start()
	s.dns.Remove("_dmarc.home.example.")
	s.must(s.dns.Add(`_dmarc.home.example. IN TXT "v=DMARC1; p=reject; rua=mailto:in@home.example,mailto:home@reports.example,mailto:slow@slow.example"`))
	const agreed = "home.example._report._dmarc.reports.example"
	s.dns.Fail("home.example._report._dmarc.slow.example", resolvertest.ServFail)
	look := func() (texts, fixes string) {
		t.Helper()
		o := s.options()
		o.Only = []string{"domains"}
		for _, f := range Run(t.Context(), o).Findings {
			texts, fixes = texts+f.Text+"\n", fixes+f.Fix+"\n"
		}
		return texts, fixes
	}
	texts, fixes := look()
	if !strings.Contains(texts, "_dmarc.home.example asks for reports to mailto:home@reports.example, and receivers send none there: reports.example does not agree") ||
		!strings.Contains(fixes, agreed+`. TXT "v=DMARC1"`) || !strings.Contains(texts, "whether slow@slow.example agrees: ") || strings.Contains(texts, "in@home.example") {
		t.Errorf("%s\n%s", texts, fixes)
	}
	s.must(s.dns.Add(agreed + `. IN TXT "v=DMARC1;"`))
	if texts, _ := look(); strings.Contains(texts, "reports.example") {
		t.Error(texts)
	}
}
