// Package dmarcreport counts what DMARC found and reports it to the domains that
// ask for it (RFC 9990).
//
// A message becomes a Row: who sent it, what was found, what was done. Equal rows
// are counted up. Collector takes them from the path of the mail and hands them to
// a Store in batches; Sender makes one report of each Policy Domain and UTC day
// (write.go), finds out who wants it (destinations.go), and mails it (mail.go,
// send.go). Bounces come back through their envelope sender (bounce.go).
//
// Invariants:
//
//   - Counting never waits: what does not fit is dropped and counted.
//   - No local part and no subject is kept, and nothing for longer than Retention.
//   - The name, the ID and the Message-ID of a report depend on its day and its
//     domain only, and its state is written before each step: a host that dies
//     sends the same report again, never another one.
//   - Rows are read once and in a fixed order: memory does not depend on their
//     number.
//   - One host at a time works on a report (a lease in the store).
package dmarcreport

import (
	"encoding/json"
	"time"
)

// Retention is how long rows are kept.
const Retention = 14 * 24 * time.Hour

// Row is what messages have in common that are counted as one.
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
	// Report says that the messages were DMARC reports themselves. They are
	// reported with others, but are no reason to send a report: two hosts would
	// report to each other for ever.
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

// key is the row as stores keep it. Equal rows have equal keys.
func (r *Row) key() string {
	b, _ := json.Marshal(r) // of strings and booleans alone
	return string(b)
}

// ParseRow reads a row as stores keep it.
func ParseRow(key string) (r Row, err error) {
	err = json.Unmarshal([]byte(key), &r)
	return r, err
}

// Day is a UTC day, counted from 1 January 1970.
type Day int32

const dayFormat = "2006-01-02"

// DayOf returns the day of a time.
func DayOf(t time.Time) Day { return Day(t.Unix() / 86400) }

// ParseDay reads a day such as 2026-11-25.
func ParseDay(s string) (Day, error) {
	t, err := time.Parse(dayFormat, s)
	return DayOf(t), err
}

// Begin is the first second of the day.
func (d Day) Begin() time.Time { return time.Unix(int64(d)*86400, 0).UTC() }

// End is the last second of the day.
func (d Day) End() time.Time { return (d + 1).Begin().Add(-time.Second) }

// String is the day as 2026-11-25.
func (d Day) String() string { return d.Begin().Format(dayFormat) }
