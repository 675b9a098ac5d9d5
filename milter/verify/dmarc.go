package verify

import (
	"math/rand/v2"

	"github.com/postern-mail/postern/internal/allowlist"
	"github.com/postern-mail/postern/internal/dkim"
	"github.com/postern-mail/postern/internal/dmarc"
)

// DMARCOptions decide what follows from the verdict of DMARC. The zero value of a
// field is its default; a nil list is empty.
type DMARCOptions struct {
	// Enforce is the column of the table in rules.go, EnforceQuarantine by
	// default.
	Enforce Enforcement
	// Quarantine is what "quarantine" means, Mark by default.
	Quarantine Quarantine
	// Method is how organizational domains are found.
	Method dmarc.Method
	// Shadow judges and records everything, and does nothing else.
	Shadow bool

	Sealers    *allowlist.Domains // domains whose ARC seals may override a failure
	Forwarders *allowlist.Clients // clients that may forward mail that fails
	Allow      *allowlist.Authors // authors whose mail passes although it fails
	// OurDomain reports whether we sign for a domain; nil for none.
	OurDomain func(domain string) bool
	// BlockList looks up the clients of mail that fails; nil for none.
	BlockList BlockList
	// Sample draws a number from 0 to 99 for a mail (pct); nil for a random one.
	Sample func() int
}

func (o *DMARCOptions) setDefaults() {
	if o.Enforce == "" {
		o.Enforce = EnforceQuarantine
	}
	if o.Quarantine == "" {
		o.Quarantine = Mark
	}
	if o.OurDomain == nil {
		o.OurDomain = func(string) bool { return false }
	}
	if o.Sample == nil {
		o.Sample = func() int { return rand.IntN(100) }
	}
}

// dmarcMessage returns the facts about a message that DMARC needs.
func (v *Verifier) dmarcMessage(f *Findings) dmarc.Message {
	m := dmarc.Message{Author: f.Author, SPF: f.MailFrom, Sample: v.options.DMARC.Sample()}
	for i := range f.DKIM.Signatures {
		s := &f.DKIM.Signatures[i]
		status := dmarc.SignatureOther
		switch s.Status {
		case dkim.Pass:
			status = dmarc.SignaturePass
		case dkim.TempError:
			status = dmarc.SignatureTempError
		}
		m.Signatures = append(m.Signatures, dmarc.Signature{Domain: s.Domain, Status: status})
	}
	return m
}
