package verify

import (
	"cmp"
	"strings"

	"github.com/postern-mail/postern/internal/dmarc"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/spf"
)

// Refusal is why a message is refused, as the SMTP client is told.
type Refusal struct {
	Code   int
	Status string // RFC 3463
	Text   string // printable US-ASCII, one line
	Reason record.Reason
	SPF    string // the status for the record
}

// Of a refusal because of SPF (RFC 7372 section 3.2) and of DMARC (RFC 9989
// section 7.4).
const (
	refusalCode = 550
	spfStatus   = "5.7.23"
	dmarcStatus = "5.7.1"
)

// maxExplanation bounds the sender's own explanation in a reply, in bytes.
const maxExplanation = 200

// refuseSPF applies the rules to what SPF said. Those who have logged in may send
// from anywhere. The null sender is refused for its
// HELO name, which is its identity; a HELO name that fails beside a MAIL FROM that
// does not is left to the records: it says less about the mail than about the
// care of who set up the client.
func refuseSPF(o *Options, e Envelope, r spf.MailFromResult) *Refusal {
	if !o.SPFReject || e.Authenticated || r.Status != spf.Fail {
		return nil
	}
	text := "SPF: " + e.Client.Unmap().WithZone("").String() + " may not send mail of " + r.Domain + " (" + matched(r.Result) + ")"
	if r.Explanation != "" {
		// RFC 7208 section 6.2: it must be clear whose words they are.
		text += "; " + r.Domain + " explains: " + r.Explanation[:min(len(r.Explanation), maxExplanation)]
	}
	return &Refusal{Code: refusalCode, Status: spfStatus, Text: oneLine(text), Reason: record.SPFFailed, SPF: string(r.Status)}
}

// refuseSPF is refuseSPF of a mail whose client is no trusted forwarder.
func (f *Findings) refuseSPF(o *Options) *Refusal {
	if f.Evidence.Forwarder {
		return nil
	}
	return refuseSPF(o, f.Envelope, f.MailFrom)
}

// refuseDMARC spells the refusal of a mail that the disposition refuses.
func refuseDMARC(f *Findings) *Refusal {
	text := "Email rejected per DMARC policy for " + f.authorText()
	switch f.DMARC.Verdict.Reason {
	case dmarc.FromMissing:
		text = "Email rejected: it names no author (From)"
	case dmarc.FromUnusable:
		text = "Email rejected: its author (From) has an address without a valid domain"
	case dmarc.FromSeveral:
		text = "Email rejected: it has several author fields (From)"
	case dmarc.TooManyDomains:
		text = "Email rejected: its author (From) has addresses in too many domains"
	}
	return &Refusal{Code: refusalCode, Status: dmarcStatus, Text: oneLine(text), Reason: record.DMARCRejected, SPF: string(f.MailFrom.Status)}
}

// authorText is the author domain that the verdict is about, for replies and logs.
func (f *Findings) authorText() string {
	return clip(cmp.Or(f.DMARC.Verdict.Domain, "an unknown domain"))
}

// oneLine replaces everything that is not printable US-ASCII.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
