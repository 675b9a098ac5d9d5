package verify

import (
	"github.com/postern-mail/postern/internal/arc"
	"github.com/postern-mail/postern/internal/author"
	"github.com/postern-mail/postern/internal/dkim"
	"github.com/postern-mail/postern/internal/dmarc"
	"github.com/postern-mail/postern/internal/spf"
)

// Findings are the results of everything that was asked about one message. The
// header, the record and the decision are made of them and of nothing else.
type Findings struct {
	Envelope Envelope
	MailFrom spf.MailFromResult
	Helo     spf.HeloResult // without a Status when it was not asked for
	IPRev    IPRev
	DKIM     dkim.Report
	ARC      arc.Result
	Author   author.Author
	DMARC    dmarc.Report
	// Evidence is what else speaks for or against the mail, beside its results.
	Evidence Evidence
	// Disposition is what follows from all of that.
	Disposition Disposition
	// Refused says that the mail is refused in the end, by whatever rule.
	Refused bool
}

// unsure reports whether DNS could not tell something that it should have.
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
