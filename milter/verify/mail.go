package verify

import (
	"context"
	"errors"
	"sync"

	"github.com/postern-mail/postern/internal/arc"
	"github.com/postern-mail/postern/internal/author"
	"github.com/postern-mail/postern/internal/dkim"
	"github.com/postern-mail/postern/internal/dmarc"
	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/spf"
)

// Field is one header field, see dkim.Field.
type Field = dkim.Field

// Mail is one message being verified. Its methods are called by one goroutine:
// Refused at any time, then Header, Write, and Finish. Close must be called
// whatever has happened before; it may be called twice.
type Mail struct {
	verifier   *Verifier
	envelope   Envelope
	authservID string
	spfArgs    spf.Args

	mailFrom *later[spf.MailFromResult]
	helo     *later[spf.HeloResult]
	iprev    *later[IPRev]
	running  sync.WaitGroup
	cancel   context.CancelFunc

	afterHeader func(fields []Field) // in the message's context
	conclude    func(f *Findings)    // the same, within the deadline
	dkim        *dkim.Verification   // nil before the header and after the end
	arc         *arc.Verification    // the same
	policies    *later[*dmarc.Evaluation]
	author      author.Author
	forged      []Position
	broken      error // a panic: what it left is not used
}

// Start begins a message and asks DNS about its envelope. The questions end with
// ctx, which should live as long as the message. Places are kept for those on
// which the verdict of DMARC rests: the sender's SPF record, keys and policies.
func (v *Verifier) Start(ctx context.Context, e Envelope) *Mail {
	m := &Mail{verifier: v, envelope: e, authservID: v.options.authservID(e.MTA)}
	m.spfArgs = v.spfArgs(e, m.authservID)
	ctx, m.cancel = context.WithCancel(resolver.For(ctx, resolver.NewAsker(e.Client)))
	m.afterHeader = func(fields []Field) { m.begin(ctx, fields) }
	// Not the deadline of the message: its header may be long in coming.
	m.mailFrom = beside(resolver.Judging(ctx), m, func(ctx context.Context, r Resolver) spf.MailFromResult { return v.checkMailFrom(ctx, r, m.spfArgs) })
	m.helo = beside(ctx, m, func(ctx context.Context, r Resolver) spf.HeloResult { return v.checkHelo(ctx, r, m.spfArgs) })
	m.iprev = beside(ctx, m, func(ctx context.Context, r Resolver) IPRev { return checkIPRev(ctx, r, e.Client) })
	return m
}

// Refused tells whether the envelope is refused already. It waits for what
// that depends on, but not longer than ctx, and then says no.
func (m *Mail) Refused(ctx context.Context) *Refusal {
	if o := &m.verifier.options; !o.SPFReject || o.SPFShadow {
		return nil
	}
	select {
	case <-m.mailFrom.done:
		return refuseSPF(&m.verifier.options, m.envelope, m.mailFrom.value)
	case <-ctx.Done():
		return nil
	}
}

// Header takes the whole header and begins to look up keys and policies.
func (m *Mail) Header(fields []Field) {
	defer rescue(&m.broken)
	m.forged = forged(fields, m.authservID)
	m.author = author.ParseFrom(func(yield func(string, string) bool) {
		for _, f := range fields {
			if !yield(f.Name, f.Value) {
				return
			}
		}
	})
	m.afterHeader(fields)
}

// begin starts what the header is asked for, and keeps the message's context for
// what is asked at its end.
func (m *Mail) begin(ctx context.Context, fields []Field) {
	v := m.verifier
	from := ""
	if len(m.author.Domains) > 0 {
		from = m.author.Domains[0]
	}
	judging := resolver.Judging(ctx)
	m.dkim = v.dkim.Start(judging, fields, from)
	m.arc = v.arc.Start(judging, fields)
	m.policies = beside(judging, m, func(ctx context.Context, r Resolver) *dmarc.Evaluation {
		return v.dmarc.StartWith(ctx, r, m.author)
	})
	traits := traitsOf(fields)
	m.conclude = func(f *Findings) {
		last, done := context.WithTimeout(ctx, v.options.lastDeadline())
		defer done()
		f.DMARC = m.policies.value.Finish(resolver.Judging(last), v.dmarcMessage(f))
		f.Evidence = v.evidence(last, f)
		f.Evidence.Traits = traits
		f.Disposition = v.dispose(f)
	}
}

// Write adds p to the body, in which lines end in CRLF. It never fails.
func (m *Mail) Write(p []byte) (int, error) {
	defer rescue(&m.broken)
	if m.dkim != nil && m.broken == nil {
		m.dkim.Write(p)
		if m.arc.NeedsBody() {
			m.arc.Write(p)
		}
	}
	return len(p), nil
}

// Finish ends the body, waits for what is still asked, and gives the result.
// When ctx ends, what is not known by then is a temporary error. Finish is
// called once, after Header.
func (m *Mail) Finish(ctx context.Context) Result {
	defer context.AfterFunc(ctx, m.cancel)()
	f := m.collect()
	if m.broken != nil {
		return m.unverified(m.broken)
	}
	if observe := m.verifier.options.Observe; observe != nil {
		observe(f)
	}
	return m.result(f)
}

// collect waits for all results and brings them together.
func (m *Mail) collect() (f *Findings) {
	defer rescue(&m.broken)
	if m.broken != nil {
		return nil
	}
	f = &Findings{Envelope: m.envelope, Author: m.author}
	f.DKIM, m.dkim = m.dkim.Finish(), nil
	f.ARC, m.arc = m.arc.Finish(), nil
	f.MailFrom, f.Helo, f.IPRev = m.mailFrom.wait(), m.helo.wait(), m.iprev.wait()
	m.policies.wait()
	m.broken = errors.Join(m.mailFrom.err, m.helo.err, m.iprev.err, m.policies.err)
	if m.broken == nil {
		m.conclude(f)
	}
	return f
}

// Close gives the message up if it has not come to its end, and waits for
// everything that it started.
func (m *Mail) Close() {
	m.cancel()
	if m.dkim != nil {
		m.dkim.Close()
		m.dkim = nil
	}
	if m.arc != nil {
		m.arc.Close()
		m.arc = nil
	}
	m.running.Wait()
}
