package api

import "time"

// DMARCSenders asks who sends mail in the names of our domains, as the received DMARC
// reports have it. The answer is a *DMARCSendersResult, null if received-reports is "".
const DMARCSenders = "dmarc.senders"

// DMARCSendersResult is the answer to "dmarc.senders". Anyone can send a report, so that
// all its texts may be those of a stranger.
type DMARCSendersResult struct {
	File    string        `json:"file"`
	Since   string        `json:"since"`             // the first UTC day, as 2026-11-25
	Changed *time.Time    `json:"changed,omitempty"` // when the file was written; null if there is none
	Error   string        `json:"error,omitempty"`   // why the file cannot be read; the rest is then what was read before
	Domains []DMARCDomain `json:"domains"`           // those of our keys first, then by mails
	More    int           `json:"more,omitempty"`    // domains that are left out
}

// DMARCMails counts mails.
type DMARCMails struct {
	Messages    int64 `json:"messages"`
	Passed      int64 `json:"passed"` // DMARC
	DKIM        int64 `json:"dkim"`   // aligned and passed
	SPF         int64 `json:"spf"`
	Quarantined int64 `json:"quarantined"`
	Rejected    int64 `json:"rejected"`
}

// DMARCDomain is what was reported about the mail of one domain.
type DMARCDomain struct {
	Domain    string   `json:"domain"`
	Policy    string   `json:"policy"`    // of the latest report
	Reporters []string `json:"reporters"` // as they name themselves
	DMARCMails
	Sources []DMARCSource `json:"sources"` // the largest first
	More    int           `json:"more,omitempty"`
}

// DMARCSource is one sender of mail: a host, or several that belong together.
type DMARCSource struct {
	// Name is the confirmed name of a host, or what several hosts have in common: the
	// domain of their names, or the include of the SPF record.
	Name    string `json:"name,omitempty"`
	Address string `json:"address,omitempty"` // of one host
	Hosts   int    `json:"hosts"`
	SPF     string `json:"spf_record,omitempty"` // the part of the domain's SPF record that covers it
	DMARCMails
	Why  []string `json:"why,omitempty"` // what failed and why
	Last string   `json:"last"`          // day
}
