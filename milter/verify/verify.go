// Package verify judges mail that comes from elsewhere: SPF for its envelope,
// DKIM for its signatures, ARC for the servers on its way, the reverse name of
// its client, DMARC for its author, and what all of that says to those who read
// the mail after us.
//
// Verifier.Start takes the envelope and begins to ask DNS at once. The header
// follows with Mail.Header, which begins to ask for keys, the body with
// Mail.Write, and Mail.Finish gives the result: fields to remove, fields to
// put at the top, or a refusal. Everything DNS is asked runs beside the arrival
// of the message.
//
// The files follow the data: envelope (who sends), spf, iprev and mail (what is
// asked while the message comes), dmarc and evidence (what is asked once that is
// known), findings (all results in one place), disposition (what follows for the
// mail), then header, forged, refusal, result and steps, each made of the
// findings alone.
//
// Invariants:
//
//   - Questions end with three quarters of Options.Deadline after what they are
//     about has come, envelope or header. The last quarter is for what is asked
//     about the author at the end of the body, however late that comes: neither
//     a sender whose own DNS is slow nor one whose body is can use it up. No
//     question outlives the caller's context. What DNS has not told by then is a
//     temperror, never a fail.
//   - Fields that claim our name are removed and our own is written even when
//     nothing could be verified, a defect of ours included.
//   - Results are one Authentication-Results field (RFC 8601). Nothing here
//     reads such a field for what it says.
//   - The HELO identity of SPF and that of MAIL FROM are never exchanged.
//   - Every goroutine ends before Finish or Close returns.
package verify

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/postern-mail/postern/internal/allowlist"
	"github.com/postern-mail/postern/internal/arc"
	"github.com/postern-mail/postern/internal/dkim"
	"github.com/postern-mail/postern/internal/dmarc"
	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/spf"
	"github.com/postern-mail/postern/milter/mark"
)

// Defaults of [Options].
const (
	// DefaultDeadline is below the 20 s that RFC 7208 section 4.6.4 asks of an SPF
	// check at least when no one waits; here an SMTP client does.
	DefaultDeadline = 10 * time.Second
	// DefaultSkew is how far the clocks of signers may be wrong.
	DefaultSkew = 5 * time.Minute
	// unknownHost is our name when no one has told one: no other host can have it.
	unknownHost = "localhost.invalid"
)

// Resolver asks DNS, see [spf.Resolver] for what errors mean.
type Resolver = spf.Resolver

// Options is what a Verifier needs. The zero value of a field, but for the
// Resolver, is its default.
type Options struct {
	Resolver Resolver
	// AuthservID is our name in Authentication-Results; "" is the name of the
	// MTA, or HostName when that is unknown too.
	AuthservID string
	HostName   string
	// Deadline bounds the questions of one message, see the package comment.
	Deadline time.Duration
	// Skew is how long after x= a signature still counts; negative for not at all.
	Skew time.Duration
	// SPFReject refuses mail whose sender's domain says that the client may not
	// send it ("fail"). Nothing else that SPF says refuses mail.
	SPFReject bool
	// SPFShadow only records what SPFReject would have refused.
	SPFShadow bool
	// DMARC says what follows from its verdict.
	DMARC DMARCOptions
	// Relays are the networks of our own relays: what they wrote stays, and they are
	// looked through to their client.
	Relays allowlist.Networks
	// Marks makes and checks the marks of mail that passes here more than once; nil
	// for none.
	Marks *mark.Keys
	// Keys remembers public keys; nil is a cache of the Verifier's own.
	Keys *dkim.KeyCache
	// ReceivedSPF adds a Received-SPF field (RFC 7208 section 9.1).
	ReceivedSPF bool
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Observe, when set, is told the findings of each message that was judged. It
	// is called from several goroutines.
	Observe func(f *Findings)
	// Trace, when set, is told each step of the SPF checks. It is called from
	// several goroutines.
	Trace func(identity string, e spf.Event)
}

// Identities of SPF, for Options.Trace.
const (
	IdentityMailFrom = "mailfrom"
	IdentityHelo     = "helo"
)

// Verifier verifies messages. It may be used by several goroutines.
type Verifier struct {
	options Options
	dkim    dkim.Verifier
	arc     arc.Verifier
	dmarc   dmarc.Evaluator
	memory  resolver.Remembering // nil when the Resolver remembers nothing, or is traced
}

// New returns a Verifier.
func New(o Options) *Verifier {
	o.Deadline = cmp.Or(o.Deadline, DefaultDeadline)
	o.Skew = max(cmp.Or(o.Skew, DefaultSkew), 0)
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Keys = cmp.Or(o.Keys, dkim.NewKeyCache())
	o.DMARC.setDefaults()
	v := &Verifier{
		options: o,
		dkim:    dkim.Verifier{Resolver: o.Resolver, Now: o.Now, Skew: o.Skew, DNSBudget: o.firstDeadline(), Keys: o.Keys},
		arc:     arc.Verifier{Resolver: o.Resolver, Now: o.Now, DNSBudget: o.firstDeadline()},
		dmarc:   dmarc.Evaluator{Resolver: o.Resolver, Method: o.DMARC.Method},
	}
	if o.Trace == nil { // it would hear of questions twice
		v.memory, _ = o.Resolver.(resolver.Remembering)
	}
	return v
}

// firstDeadline is the part of the deadline in which all is asked that DMARC
// rests on: senders choose whose DNS that is.
func (o *Options) firstDeadline() time.Duration { return o.Deadline - o.lastDeadline() }

// lastDeadline is the part that begins with the end of the body.
func (o *Options) lastDeadline() time.Duration { return o.Deadline / 4 }

// authservID is our name on a message that came through the MTA of this name.
func (o *Options) authservID(mta string) string {
	return cmp.Or(o.AuthservID, mta, o.HostName, unknownHost)
}

// anonymous recognises a client whose address says nothing about who sends the mail:
// there is none, or the mail was handed over inside this machine.
func anonymous(client netip.Addr) bool {
	return !client.IsValid() || client.IsUnspecified() || client.Unmap().IsLoopback()
}
