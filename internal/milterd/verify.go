package milterd

import (
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/dkim"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/milter"
	"github.com/postern-mail/postern/milter/verify"
)

// Values of --spf-reject.
const (
	wordNever = "never"
	wordFail  = "fail"
)

// maxVerifyDeadline is less than the time that the milter server allows for the end of
// a message.
const maxVerifyDeadline = milter.DefaultFinishTimeout - 5*time.Second

// maxDKIMSkew is more than the error of any clock that is looked after.
const maxDKIMSkew = 24 * time.Hour

// verifyPart is the part for the verify role, without DMARC.
type verifyPart struct {
	VerifyDeadline time.Duration
	DKIMSkew       time.Duration
	SPFReject      string
	ReceivedSPF    bool

	keys *dkim.KeyCache
}

func (o *verifyPart) bind(fs *pflag.FlagSet) {
	config.Duration(fs, &o.VerifyDeadline, "verify-deadline", verify.DefaultDeadline, 100*time.Millisecond, maxVerifyDeadline, "how long a mail is kept waiting for the DNS after its header; what is not known then is a temporary error")
	config.Duration(fs, &o.DKIMSkew, "dkim-skew", verify.DefaultSkew, 0, maxDKIMSkew, "how long after its expiry (x=) a signature still counts")
	config.Choice(fs, &o.SPFReject, "spf-reject", "mail whose sender's domain says that the client may not send it (SPF fail) is refused: never (its DMARC policy decides), or on every fail", wordNever, wordFail)
	fs.BoolVar(&o.ReceivedSPF, "received-spf", false, "add a Received-SPF header field beside Authentication-Results")
}

func (*verifyPart) validate(*config.Set) error { return nil }

func (o *verifyPart) findIdle(i *idleSettings) {
	i.addFlags(!i.verifies, fixVerifies, "spf-reject", "received-spf", "verify-deadline", "dkim-skew")
	i.watches = i.watches || i.shadowed(wordSPF) && o.SPFReject == wordFail
}

// build begins the options of the verifier.
func (o *verifyPart) build(n *needs) error {
	skew := o.DKIMSkew
	if skew == 0 {
		skew = -1
	}
	var err error
	o.keys, err = service.Keep(n.life, keyCacheKey{}, func() (service.Opened[*dkim.KeyCache], error) {
		return service.Opened[*dkim.KeyCache]{Value: dkim.NewKeyCache()}, nil
	})
	if err != nil {
		return err
	}
	host, _ := os.Hostname() // "" if unknown; the MTA sends its own name anyway
	n.verify = verify.Options{
		Resolver:    n.asks,
		AuthservID:  n.options.AuthservID,
		HostName:    host,
		Deadline:    o.VerifyDeadline,
		Skew:        skew,
		SPFReject:   o.SPFReject == wordFail,
		SPFShadow:   n.options.shadowed(wordSPF),
		ReceivedSPF: o.ReceivedSPF,
		Relays:      n.options.Relays,
		Marks:       n.marks,
		Keys:        o.keys,
	}
	return nil
}

// keyCacheKey is the key of the cache of senders' public keys, which is kept over
// reloads.
type keyCacheKey struct{}
