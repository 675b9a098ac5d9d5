package reportread

import (
	"net/netip"
	"time"
)

// Report is a DMARC aggregate report: who reports about whose mail, with the results.
type Report struct {
	Org, Email, Contact, ID string
	Begin, End              time.Time
	Generator               string
	Errors                  []string // of the reporter
	Policy                  Policy
	Groups                  []Group // the rows; equal rows are one group
	Rows                    int
	Unusable                int    // rows that cannot be counted
	UnusableWhy             string // the reason for the first
	Messages                int64
}

// Policy is the published policy that the reporter found.
type Policy struct {
	Domain    string
	Discovery string // psl, treewalk
	P, SP, NP string
	ADKIM     string
	ASPF      string
	Percent   string
	FO        string
	Testing   string
}

// Group is the mail of one source with the same results.
type Group struct {
	Source      netip.Addr // not valid: sources beyond the limit
	From        string     // the domain of the From field
	Disposition string     // none, quarantine or reject
	DKIM, SPF   bool       // aligned and passed
	Why         string     // what failed and why; "" if nothing failed
	Messages    int64
}

// Passed reports whether DMARC passed.
func (g Group) Passed() bool { return g.DKIM || g.SPF }

// Day returns the UTC day that has most of the report. Days of reporters can begin at
// other times.
func (r *Report) Day() time.Time {
	return r.Begin.Add(r.End.Sub(r.Begin) / 2).UTC().Truncate(24 * time.Hour)
}
