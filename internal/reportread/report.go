package reportread

import (
	"net/netip"
	"time"
)

// Report is a DMARC aggregate report: who reports about whose mail, and what came
// of it.
type Report struct {
	Org, Email, Contact, ID string
	Begin, End              time.Time
	Generator               string
	Errors                  []string // that the reporter had
	Policy                  Policy
	Groups                  []Group // the rows, those that say the same as one
	Rows                    int
	Unusable                int    // rows that count nothing
	UnusableWhy             string // of the first
	Messages                int64
}

// Policy is what the reporter found published.
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

// Group is the mail of one source that fared the same.
type Group struct {
	Source      netip.Addr // not valid: sources beyond the limit
	From        string     // the domain of the From field
	Disposition string     // none, quarantine or reject
	DKIM, SPF   bool       // aligned and passed
	Why         string     // what failed and why; "" when nothing did
	Messages    int64
}

// Passed reports whether DMARC passed.
func (g Group) Passed() bool { return g.DKIM || g.SPF }

// Day is the UTC day of most of the report: reporters cut days in their own zones.
func (r *Report) Day() time.Time {
	return r.Begin.Add(r.End.Sub(r.Begin) / 2).UTC().Truncate(24 * time.Hour)
}
