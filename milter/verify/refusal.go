package verify

import (
	"strings"

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

// Of a refusal because of SPF (RFC 7372 section 3.2).
const (
	spfCode   = 550
	spfStatus = "5.7.23"
)

// maxExplanation bounds the sender's own explanation in a reply, in bytes.
const maxExplanation = 200

// refuse applies the rules to what SPF said. The null sender is refused for its
// HELO name, which is its identity; a HELO name that fails beside a MAIL FROM that
// does not is left to the records: it says less about the mail than about the
// care of who set up the client.
func refuse(o *Options, e Envelope, r spf.MailFromResult) *Refusal {
	if !o.SPFReject || r.Status != spf.Fail {
		return nil
	}
	text := "SPF: " + e.Client.Unmap().WithZone("").String() + " may not send mail of " + r.Domain + " (" + matched(r.Result) + ")"
	if r.Explanation != "" {
		// RFC 7208 section 6.2: it must be clear whose words they are.
		text += "; " + r.Domain + " explains: " + r.Explanation[:min(len(r.Explanation), maxExplanation)]
	}
	return &Refusal{Code: spfCode, Status: spfStatus, Text: oneLine(text), Reason: record.SPFFailed, SPF: string(r.Status)}
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
