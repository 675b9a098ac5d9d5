package verify

import (
	"cmp"
	"strings"

	"github.com/postern-mail/postern/internal/dmarc"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/spf"
)

// Refusal is the SMTP reply to a refused message, and why it is refused.
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

// refuseSPF returns the refusal that follows from the result of SPF, or nil. Clients
// that have logged in may send from anywhere. With the null sender, the HELO name is
// the identity, and mail is refused for it. If the HELO name fails and MAIL FROM does
// not, the result is only recorded: it usually shows a badly configured client, not
// forged mail.
func refuseSPF(o *Options, e Envelope, r spf.MailFromResult) *Refusal {
	if !o.SPFReject || e.Authenticated || r.Status != spf.Fail {
		return nil
	}
	text := "SPF: " + e.Client.Unmap().WithZone("").String() + " may not send mail of " + r.Domain + " (" + matched(r.Result) + ")"
	if r.Explanation != "" {
		// RFC 7208 section 6.2: the reply has to name the author of the explanation.
		text += "; " + r.Domain + " explains: " + r.Explanation[:min(len(r.Explanation), maxExplanation)]
	}
	return &Refusal{Code: refusalCode, Status: spfStatus, Text: oneLine(text), Reason: record.SPFFailed, SPF: string(r.Status)}
}

// refuseSPF is the function refuseSPF for a mail whose client is not a trusted
// forwarder.
func (f *Findings) refuseSPF(o *Options) *Refusal {
	if f.Evidence.Forwarder {
		return nil
	}
	return refuseSPF(o, f.Envelope, f.MailFrom)
}

// refuseDMARC returns the refusal of a mail that the disposition refuses.
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

// authorText returns the author domain of the verdict, for replies and logs.
func (f *Findings) authorText() string {
	return clip(cmp.Or(f.DMARC.Verdict.Domain, "an unknown domain"))
}

// oneLine replaces all characters that are not printable US-ASCII.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
