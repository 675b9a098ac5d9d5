package milterd

import (
	"cmp"
	"slices"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/reportread"
)

// sendersOf returns what is shown of a summary: the domains of ours first, because
// anyone can send reports about any domain, and how many domains are left out.
func sendersOf(sum *reportread.Summary, ours []string) (domains []api.DMARCDomain, more int) {
	isOurs := func(d *reportread.Domain) int {
		if _, found := slices.BinarySearch(ours, d.Domain); found {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(sum.Domains, func(a, b *reportread.Domain) int { return cmp.Compare(isOurs(a), isOurs(b)) })
	listed := sum.Domains[:min(len(sum.Domains), shownDomains)]
	domains = make([]api.DMARCDomain, 0, len(listed))
	for _, d := range listed {
		domains = append(domains, senderDomain(d))
	}
	return domains, len(sum.Domains) - len(listed)
}

func senderDomain(d *reportread.Domain) api.DMARCDomain {
	listed := d.Sources[:min(len(d.Sources), shownSources)]
	shown := api.DMARCDomain{
		Domain: d.Domain, Policy: d.Policy, Reporters: textsOf(d.Reporters, shownReporters), DMARCMails: mailsOf(d.Counts),
		Sources: make([]api.DMARCSource, 0, len(listed)), More: len(d.Sources) - len(listed),
	}
	for _, s := range listed {
		source := api.DMARCSource{
			Address: s.Address, Hosts: s.Hosts, SPF: s.SPF, DMARCMails: mailsOf(s.Counts), Why: textsOf(s.Why, shownReasons), Last: s.Last,
		}
		if s.Confirmed || s.Hosts > 1 { // anyone can give their hosts the name of another
			source.Name = s.Name
		}
		shown.Sources = append(shown.Sources, source)
	}
	return shown
}

func mailsOf(c reportread.Counts) api.DMARCMails {
	return api.DMARCMails{Messages: c.Messages, Passed: c.Passed, DKIM: c.DKIM, SPF: c.SPFPassed, Quarantined: c.Quarantined, Rejected: c.Rejected}
}

// textsOf returns the texts of the greatest counts.
func textsOf(counts []reportread.Count, most int) (texts []string) {
	for _, c := range counts[:min(len(counts), most)] {
		texts = append(texts, c.Text)
	}
	return texts
}
