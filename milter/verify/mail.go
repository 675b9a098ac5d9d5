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
	"github.com/postern-mail/postern/milter/mark"
)

// Field is one header field, see dkim.Field.
type Field = dkim.Field

// Mail is one message being verified. Only one goroutine may call its methods:
// Refused at any time, then Header, Write, and Finish. Close must always be called,
// and may be called twice.
type Mail struct {
	verifier   *Verifier
	envelope   Envelope
	fromUs     bool // the mail comes from a host of ours
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
	before      before
	refusal     *Refusal // for the header alone
	broken      error    // a panic: the results are not used
}

// Start begins a message and asks DNS about its envelope. The questions end with ctx,
// which should live as long as the message. The resolver reserves places for the
// questions that the verdict of DMARC depends on: the sender's SPF record, keys and
// policies.
func (v *Verifier) Start(ctx context.Context, e Envelope) *Mail {
	m := &Mail{verifier: v, envelope: e, authservID: v.options.authservID(e.MTA)}
	m.fromUs = anonymous(e.Client) || v.options.Relays.Has(e.Client)
	ctx, m.cancel = context.WithCancel(resolver.For(ctx, resolver.NewAsker(e.Client)))
	m.afterHeader = func(fields []Field) { m.begin(ctx, fields) }
	if !v.options.Relays.Has(e.Client) {
		m.startEnvelope(ctx)
	}
	return m
}

// startEnvelope starts the checks of the envelope.
func (m *Mail) startEnvelope(ctx context.Context) {
	v, e := m.verifier, m.envelope
	m.spfArgs = v.spfArgs(e, m.authservID)
	// This is not the deadline of the message, because its header may come late.
	m.mailFrom = beside(resolver.Judging(ctx), m, func(ctx context.Context, r Resolver) spf.MailFromResult { return v.checkMailFrom(ctx, r, m.spfArgs) })
	m.helo = beside(ctx, m, func(ctx context.Context, r Resolver) spf.HeloResult { return v.checkHelo(ctx, r, m.spfArgs) })
	m.iprev = beside(ctx, m, func(ctx context.Context, r Resolver) IPRev { return checkIPRev(ctx, r, e.Client) })
}

// Refused reports whether the envelope is refused already. It waits for the results
// that decide this. When ctx ends first, it returns nil.
func (m *Mail) Refused(ctx context.Context) *Refusal {
	o := &m.verifier.options
	if !o.SPFReject || o.SPFShadow || m.mailFrom == nil {
		return nil
	}
	select {
	case <-m.mailFrom.done:
	case <-ctx.Done():
		return nil
	}
	r := refuseSPF(o, m.envelope, m.mailFrom.value)
	if r == nil || o.DMARC.Forwarders == nil {
		return r
	}
	select { // forwarders may be listed by their name
	case <-m.iprev.done:
	case <-ctx.Done():
		return nil
	}
	if o.forwarder(m.envelope.Client, m.iprev.value) {
		return nil
	}
	return r
}

// Header takes the whole header and begins to look up keys and policies. It
// returns a refusal that does not depend on the rest.
func (m *Mail) Header(fields []Field) *Refusal {
	defer rescue(&m.broken)
	inside := 0
	if m.mailFrom == nil {
		t := m.verifier.options.follow(fields)
		m.envelope, inside = t.from(m.envelope), t.inside
	}
	m.before.look(&m.verifier.options, fields, m.authservID, inside)
	if m.refusal = m.before.tooMany(); m.refusal != nil {
		return m.refusal
	}
	m.author = author.ParseFrom(func(yield func(string, string) bool) {
		for _, f := range fields {
			if !yield(f.Name, f.Value) {
				return
			}
		}
	})
	if m.before.body != nil { // there are marks
		m.before.locals = mark.HashOfLocals(&m.author)
	}
	m.afterHeader(fields)
	return nil
}

// begin starts the checks of the header, and keeps the context of the message for the
// checks at its end.
func (m *Mail) begin(ctx context.Context, fields []Field) {
	v := m.verifier
	if m.mailFrom == nil {
		m.startEnvelope(ctx)
	}
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
		f.Evidence.Marked = m.before.quarantined()
		f.Disposition = v.dispose(f)
	}
}

// Write adds p to the body, in which lines end in CRLF. It never fails.
func (m *Mail) Write(p []byte) (int, error) {
	defer rescue(&m.broken)
	m.before.write(p)
	if m.dkim != nil && m.broken == nil {
		m.dkim.Write(p)
		if m.arc.NeedsBody() {
			m.arc.Write(p)
		}
	}
	return len(p), nil
}

// Finish ends the body, waits for the checks, and returns the result. When ctx ends,
// checks without a result are temporary errors. Finish is called once, after Header.
func (m *Mail) Finish(ctx context.Context) Result {
	defer context.AfterFunc(ctx, m.cancel)()
	if m.refusal != nil {
		return Result{Refusal: m.refusal, Reason: m.refusal.Reason}
	}
	f := m.collect()
	if m.broken != nil {
		return m.unverified(m.broken)
	}
	if m.fromUs && m.before.whole() && !m.brought() {
		return m.kept()
	}
	r := m.result(f)
	f.Refused = r.Refusal != nil
	if observe := m.verifier.options.Observe; observe != nil {
		observe(f)
	}
	return r
}

// collect waits for all results and puts them into the findings.
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

// Close aborts the message if it has not come to its end, and waits for all its
// goroutines.
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
