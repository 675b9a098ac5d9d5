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

	creditPool = "pool" // all servers of the pool share their credit
)

// detail returns the basis of a verdict, for the record. [ParseGreylistDetail]
// parses it.
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

// GreylistDetail is the detail of a greylist step, parsed.
type GreylistDetail struct {
	HasKey     bool // the request was not exempt
	HasSPF     bool // SPF was checked
	Source     greylist.Source
	Suspicious bool
	Waited     time.Duration // since the first sighting, rounded up; set when a mail passes for the first time or Peek would delay it
	Left       time.Duration // until it would pass, rounded up; set when Peek would delay it
}

// ParseGreylistDetail parses the detail of a greylist step.
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

// AllowsSender reports whether the sender is in --greylist-allow-senders.
func (g *Greylist) AllowsSender(r *policy.Request) bool {
	return g.AllowSenders != nil && g.AllowSenders.Has(r.Sender, usualDelimiter)
}

// Key returns the key of a request, from values in its record.
func (g *Greylist) Key(r *policy.Request, d GreylistDetail) greylist.Key {
	return g.Keyer.Key(greylist.Mail{Client: r.Client.Address, Sender: r.Sender, Recipient: r.Recipient, Source: d.Source})
}

// waitedWord returns the time since a mail was first seen.
func waitedWord(d time.Duration) string { return fmt.Sprintf(" %s=%ds", detailWaited, seconds(d)) }

// leftWord returns the time that a mail still has to wait.
func leftWord(d time.Duration) string { return fmt.Sprintf(" %s=%ds", detailLeft, seconds(d)) }

// parseSeconds parses the words of waitedWord and leftWord; any other text is
// 0.
func parseSeconds(text string) time.Duration {
	seconds, _ := strconv.Atoi(strings.TrimSuffix(text, "s"))
	return time.Duration(seconds) * time.Second
}
