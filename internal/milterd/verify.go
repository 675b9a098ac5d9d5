package milterd

import (
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/milter"
	"github.com/postern-mail/postern/milter/verify"
)

// Words of --spf-reject.
const (
	wordNever = "never"
	wordFail  = "fail"
)

// maxVerifyDeadline is below what the milter server gives the end of a message.
const maxVerifyDeadline = milter.DefaultFinishTimeout - 5*time.Second

// maxDKIMSkew is more than any clock that somebody looks after is wrong.
const maxDKIMSkew = 24 * time.Hour

// verifyOptions are the settings of the verify role.
type verifyOptions struct {
	VerifyDeadline time.Duration
	DKIMSkew       time.Duration
	SPFReject      string
	ReceivedSPF    bool
	dmarcOptions
}

func (o *Options) bindVerify(fs *pflag.FlagSet) {
	config.Duration(fs, &o.VerifyDeadline, "verify-deadline", verify.DefaultDeadline, 100*time.Millisecond, maxVerifyDeadline, "how long a mail is kept waiting for the DNS after its header; what is not known then is a temporary error")
	config.Duration(fs, &o.DKIMSkew, "dkim-skew", verify.DefaultSkew, 0, maxDKIMSkew, "how long after its expiry (x=) a signature still counts")
	config.Choice(fs, &o.SPFReject, "spf-reject", "mail whose sender's domain says that the client may not send it (SPF fail) is refused: never (its DMARC policy decides), or on every fail", wordNever, wordFail)
	fs.BoolVar(&o.ReceivedSPF, "received-spf", false, "add a Received-SPF header field beside Authentication-Results")
	o.bindDMARC(fs)
}

func (o *Options) validateVerify(s *config.Set) error { return o.validateDMARC(s) }

// verification gives the settings of the role in the words of its package.
func (o *Options) verification(r verify.Resolver) verify.Options {
	skew := o.DKIMSkew
	if skew == 0 {
		skew = -1
	}
	host, _ := os.Hostname() // "" when unknown; the MTA tells its name anyway
	return verify.Options{
		Resolver:    r,
		AuthservID:  o.AuthservID,
		HostName:    host,
		Deadline:    o.VerifyDeadline,
		Skew:        skew,
		SPFReject:   o.SPFReject == wordFail,
		SPFShadow:   o.shadowed(wordSPF),
		DMARC:       o.disposal(),
		ReceivedSPF: o.ReceivedSPF,
	}
}

func (s *state) buildVerify(r service.Runtime) (milter.Handler, error) {
	o := s.settings.verification(s.resolver)
	if err := s.openDisposal(&o.DMARC, s.resolver, r.Log); err != nil {
		return nil, err
	}
	o.Observe = s.settings.app.counts().observe
	return milter.NewVerifying(verify.New(o)), nil
}
