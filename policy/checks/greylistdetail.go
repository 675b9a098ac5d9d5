package checks

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/internal/spf"
	"github.com/postern-mail/postern/policy"
)

// The words of the detail of a greylist step.
const (
	detailKey        = "key"
	detailSender     = "sender"
	detailSPF        = "spf"
	detailCredit     = "credit"
	detailSuspicious = "suspicious"
	detailWaited     = "waited"
	detailLeft       = "left"

	creditPool = "pool" // all servers of the pool share what they earn
)

// detail is what a verdict rests on, for the record. [ParseGreylistDetail] reads it.
func (s *sight) detail() string {
	var b strings.Builder
	b.WriteString(detailKey + "=" + s.key.Client() + " " + detailSender + "=" + s.key.Sender)
	if s.spf != nil {
		b.WriteString(" " + detailSPF + "=" + string(s.spf.Status))
	}
	if s.key.PoolCredit {
		b.WriteString(" " + detailCredit + "=" + creditPool)
	}
	if len(s.suspicions) > 0 {
		b.WriteString(" " + detailSuspicious + "=" + strings.Join(s.suspicions, ","))
	}
	return b.String()
}

// GreylistDetail is what a record says of a request that was greylisted.
type GreylistDetail struct {
	HasKey     bool // the request was looked at: it was not exempt
	HasSPF     bool // SPF was asked
	Source     greylist.Source
	Suspicious bool
	Waited     time.Duration // since the first sighting, rounded up; of what passes for the first time, and of what Peek would delay
	Left       time.Duration // until it would pass, rounded up; of what Peek would delay
}

// ParseGreylistDetail reads the detail of a greylist step.
func ParseGreylistDetail(detail string) GreylistDetail {
	var d GreylistDetail
	for word := range strings.FieldsSeq(detail) {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case detailKey:
			d.HasKey = true
			if domain, ok := strings.CutPrefix(value, greylist.DomainMark); ok {
				d.Source.Domain, d.Source.Pool, _ = strings.Cut(domain, "/")
			}
		case detailSPF:
			d.HasSPF = true
			d.Source.Denied = value == string(spf.Fail) || value == string(spf.SoftFail)
		case detailCredit:
			d.Source.PoolCredit = value == creditPool
		case detailSuspicious:
			d.Suspicious = true
		case detailWaited:
			d.Waited = parseSeconds(value)
		case detailLeft:
			d.Left = parseSeconds(value)
		}
	}
	return d
}

// Proven reports whether SPF ties the client to the sender's domain, as
// --greylist-allow-senders asks for.
func (d GreylistDetail) Proven() bool { return d.Source.Domain != "" && d.Source.Pool == "" }

// AllowsSender reports whether --greylist-allow-senders holds the sender.
func (g *Greylist) AllowsSender(r *policy.Request) bool {
	return g.AllowSenders != nil && g.AllowSenders.Has(r.Sender, usualDelimiter)
}

// Key is the key of a request, from what a record says of it.
func (g *Greylist) Key(r *policy.Request, d GreylistDetail) greylist.Key {
	return g.Keyer.Key(greylist.Mail{Client: r.Client.Address, Sender: r.Sender, Recipient: r.Recipient, Source: d.Source})
}

// waitedWord says how long ago a mail was first seen.
func waitedWord(d time.Duration) string { return fmt.Sprintf(" %s=%ds", detailWaited, seconds(d)) }

// leftWord says how long it has still to wait.
func leftWord(d time.Duration) string { return fmt.Sprintf(" %s=%ds", detailLeft, seconds(d)) }

// parseSeconds reads what waitedWord and leftWord write; what is none is nothing.
func parseSeconds(text string) time.Duration {
	seconds, _ := strconv.Atoi(strings.TrimSuffix(text, "s"))
	return time.Duration(seconds) * time.Second
}
