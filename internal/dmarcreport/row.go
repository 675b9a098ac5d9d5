// Package dmarcreport counts what DMARC found and reports it to the domains that
// ask for it (RFC 9990).
//
// Each message becomes a Row: who sent it, what was found, and what was done. Equal rows
// are stored once with a count. A Collector takes rows while mail is processed, and
// passes them to a Store in batches. A Sender makes one report for each Policy Domain
// and UTC day (write.go), finds out who wants it (destinations.go), and mails it
// (mail.go, send.go). Bounces are assigned to reports by the envelope sender
// (bounce.go).
//
// Invariants:
//
//   - Counting never waits. Messages for which there is no room are dropped, and the
//     drops are counted.
//   - No local part and no subject is kept, and nothing for longer than Retention.
//   - The ID and the Message-ID of a report depend only on its day and domain, and its
//     state is written before each step. The first state seals the report: the store
//     takes no more rows for it. So a host that crashes sends the same report again,
//     under the same name, never a different one.
//   - Rows that come too late for their report become part of the domain's next one,
//     whose period then begins earlier.
//   - Rows are read once and in a fixed order, so memory does not depend on their
//     number.
//   - One host at a time works on a report (a lease in the store).
package dmarcreport

import (
	"encoding/json"
	"time"
)

// Retention is how long rows are kept.
const Retention = 14 * 24 * time.Hour

// MaxSignatures is how many signatures of a mail are reported (RFC 9990).
const MaxSignatures = 100

// Row describes messages that are counted together.
type Row struct {
	Source      string      `json:"ip"`
	Disposition string      `json:"do"`
	DKIM        bool        `json:"dk,omitempty"` // an aligned signature passed
	SPF         bool        `json:"sp,omitempty"` // SPF passed for an aligned domain
	Reasons     []Reason    `json:"re,omitempty"`
	HeaderFrom  string      `json:"hf"`
	Envelope    string      `json:"ef,omitempty"` // domain of the envelope sender
	Signatures  []Signature `json:"si,omitempty"`
	SPFDomain   string      `json:"sd,omitempty"`
	SPFResult   string      `json:"sr,omitempty"`
	// Report means that the messages were DMARC reports themselves. They are reported
	// together with others, but are no reason to send a report. Otherwise two hosts
	// would send reports to each other forever.
	Report bool `json:"rp,omitempty"`
}

// Reason is why the policy was not applied as it is published.
type Reason struct {
	Type    string `json:"t"`
	Comment string `json:"c,omitempty"`
}

// Signature is the result of a DKIM signature.
type Signature struct {
	Domain   string `json:"d"`
	Selector string `json:"s"`
	Result   string `json:"r"`
}

// Policy is what the Policy Domain publishes.
type Policy struct {
	P       string `json:"p"`
	SP      string `json:"sp,omitempty"`
	NP      string `json:"np,omitempty"`
	ADKIM   string `json:"adkim"`
	ASPF    string `json:"aspf"`
	FO      string `json:"fo,omitempty"`
	Testing bool   `json:"testing,omitempty"`
	Method  string `json:"method"`
}

// key returns the row in the form for stores. Equal rows have equal keys.
func (r *Row) key() string {
	b, _ := json.Marshal(r) // cannot fail: there are only strings and booleans
	return string(b)
}

// parseRow parses a row in the form for stores.
func parseRow(key string) (r Row, err error) {
	err = json.Unmarshal([]byte(key), &r)
	return r, err
}

// Day is a UTC day, counted from 1 January 1970.
type Day int32

const dayFormat = "2006-01-02"

// DayOf returns the day of a time.
func DayOf(t time.Time) Day { return Day(t.Unix() / 86400) }

// ParseDay parses a day such as 2026-11-25.
func ParseDay(s string) (Day, error) {
	t, err := time.Parse(dayFormat, s)
	return DayOf(t), err
}

// Begin returns the first second of the day.
func (d Day) Begin() time.Time { return time.Unix(int64(d)*86400, 0).UTC() }

// End returns the last second of the day.
func (d Day) End() time.Time { return (d + 1).Begin().Add(-time.Second) }

// String returns the day in a form such as 2026-11-25.
func (d Day) String() string { return d.Begin().Format(dayFormat) }
