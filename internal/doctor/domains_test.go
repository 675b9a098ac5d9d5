package doctor

import (
	"slices"
	"strings"
	"testing"
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
