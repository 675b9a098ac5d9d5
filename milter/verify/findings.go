package verify

import (
	"github.com/postern-mail/postern/internal/arc"
	"github.com/postern-mail/postern/internal/author"
	"github.com/postern-mail/postern/internal/dkim"
	"github.com/postern-mail/postern/internal/dmarc"
	"github.com/postern-mail/postern/internal/spf"
)

// Findings are all results about one message. The header, the record and the decision
// are made from them and from nothing else.
type Findings struct {
	Envelope Envelope
	MailFrom spf.MailFromResult
	Helo     spf.HeloResult // without a Status when it was not checked
	IPRev    IPRev
	DKIM     dkim.Report
	ARC      arc.Result
	Author   author.Author
	DMARC    dmarc.Report
	// Evidence is what else is known for or against the mail.
	Evidence Evidence
	// Disposition is the decision that follows from all of it.
	Disposition Disposition
	// Refused says that the mail is refused in the end, by whatever rule.
	Refused bool
}

// unsure reports whether an answer of DNS is missing because of an error.
func (f *Findings) unsure() bool {
	if f.MailFrom.Status == spf.TempError || f.DMARC.Verdict.Status == dmarc.TempError || f.ARC.Temporary {
		return true
	}
	for i := range f.DKIM.Signatures {
		if f.DKIM.Signatures[i].Status == dkim.TempError {
			return true
		}
	}
	return false
}
