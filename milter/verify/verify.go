// Package verify judges mail from outside: SPF for its envelope, DKIM for its
// signatures, ARC for the servers on its way, the reverse name of its client, and
// DMARC for its author. It also writes the results for the programs that read the
// mail after us.
//
// Verifier.Start takes the envelope and begins to ask DNS at once. Mail.Header takes
// the header and begins to ask for keys, Mail.Write takes the body, and Mail.Finish
// returns the result: fields to remove, fields to put at the top, or a refusal. All
// DNS questions run while the message arrives.
//
// The files follow the data: envelope (who sends), spf, iprev and mail (checks while
// the message comes), dmarc and evidence (checks that need those results), findings
// (all results in one place), disposition (the decision about the mail), then header,
// refusal, result and steps, each made from the findings alone. secondpass handles
// mail that passes here again.
//
// Invariants:
//
//   - Questions about the envelope or the header end when three quarters of
//     Options.Deadline have passed since it came. The last quarter begins at the
//     end of the body and is for questions about the author. So a sender cannot
//     use it up with slow DNS or a slow body. No question outlives the caller's
//     context. An answer that is missing by then is a temperror, never a fail.
//   - Fields that claim our name are removed and our own is written even when
//     nothing could be verified, also after a defect of ours.
//   - Results are one Authentication-Results field (RFC 8601). Nothing here
//     trusts the results in such a field.
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
	// DefaultDeadline is below the 20 s that RFC 7208 section 4.6.4 recommends as the
	// least for an SPF check, because an SMTP client is waiting here.
	DefaultDeadline = 10 * time.Second
	// DefaultSkew is how far the clock of a signer may be wrong.
	DefaultSkew = 5 * time.Minute
	// unknownHost is our name when none is configured or known. No other host can
	// have it.
	unknownHost = "localhost.invalid"
)

// Resolver asks DNS. See [spf.Resolver] for the meaning of errors.
type Resolver = spf.Resolver

// Options is what a Verifier needs. Except for the Resolver, the zero value of a
// field is its default.
type Options struct {
	Resolver Resolver
	// AuthservID is our name in Authentication-Results; "" is the name of the
	// MTA, or HostName when that is unknown too.
	AuthservID string
	HostName   string
	// Deadline bounds the questions of one message, see the package comment.
	Deadline time.Duration
	// Skew is how long after x= a signature is still valid; negative means not at
	// all.
	Skew time.Duration
	// SPFReject refuses mail whose sender's domain says that the client may not
	// send it ("fail"). Nothing else that SPF says refuses mail.
	SPFReject bool
	// SPFShadow only records what SPFReject would have refused.
	SPFShadow bool
	// DMARC decides what follows from the verdict of DMARC.
	DMARC DMARCOptions
	// Relays are the networks of our own relays. The fields that they wrote stay, and
	// the checks are about their clients.
	Relays allowlist.Networks
	// Marks makes and checks the marks of mail that passes here more than once; nil
	// for none.
	Marks *mark.Keys
	// Keys is a cache of public keys; nil means one that only the Verifier uses.
	Keys *dkim.KeyCache
	// ReceivedSPF adds a Received-SPF field (RFC 7208 section 9.1).
	ReceivedSPF bool
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Observe, when set, is called with the findings of each message that was judged,
	// from several goroutines.
	Observe func(f *Findings)
	// Trace, when set, is called with each step of the SPF checks, from several
	// goroutines.
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
	if o.Trace == nil { // otherwise Trace would get questions twice
		v.memory, _ = o.Resolver.(resolver.Remembering)
	}
	return v
}

// firstDeadline is the part of the deadline for the questions that DMARC depends on.
// The sender decides which DNS servers answer them.
func (o *Options) firstDeadline() time.Duration { return o.Deadline - o.lastDeadline() }

// lastDeadline is the part that begins with the end of the body.
func (o *Options) lastDeadline() time.Duration { return o.Deadline / 4 }

// authservID returns our name for a message that came through the MTA of this name.
func (o *Options) authservID(mta string) string {
	return cmp.Or(o.AuthservID, mta, o.HostName, unknownHost)
}

// anonymous reports whether the client's address says nothing about the sender: there
// is none, or the mail came from this machine.
func anonymous(client netip.Addr) bool {
	return !client.IsValid() || client.IsUnspecified() || client.Unmap().IsLoopback()
}
