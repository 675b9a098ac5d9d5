package dkim

import (
	"cmp"
	"context"
	"crypto/sha256"
	"slices"
	"strings"
	"sync"
	"time"
)

// Verifier verifies messages. It may be used by several goroutines.
type Verifier struct {
	Resolver Resolver
	// Now returns the time; nil means time.Now.
	Now func() time.Time
	// Skew is how long after x= a signature is still accepted.
	Skew time.Duration
	// MaxSignatures is how many signatures of a message are verified; 0 means
	// DefaultMaxSignatures.
	MaxSignatures int
	// DNSBudget is the time for all key lookups of one message together,
	// beginning with Start; 0 means DefaultDNSBudget.
	DNSBudget time.Duration
	// Want selects the signatures to verify by d= and s=; nil means all.
	Want func(domain, selector string) bool
	// Keys remembers parsed keys; it may be nil.
	Keys *KeyCache
}

// Verification is the verification of one message. It is not safe for
// concurrent use.
type Verification struct {
	Bodies  // the body is written to it
	checks  []*check
	lookups map[string]*lookup
	skipped int

	running sync.WaitGroup
	cancel  context.CancelFunc
}

// check is one signature that is being verified.
type check struct {
	*parsed
	refused *refusal // nil while the signature may still pass
	digest  [sha256.Size]byte
	lookup  *lookup
}

// Start takes the whole header of a message, parses its signatures and begins
// to look up their keys. fromDomain may be empty. If there are more than
// MaxSignatures, signatures of fromDomain are preferred, then those of domains
// above or below it. After Start, the caller writes the body to the
// Verification and must call Finish or Close, which end its goroutines. The
// end of ctx ends the lookups.
func (v *Verifier) Start(ctx context.Context, fields []Field, fromDomain string) *Verification {
	m := &Verification{
		lookups: make(map[string]*lookup),
		cancel:  func() {},
	}
	m.checks, m.skipped = v.choose(fields, fromDomain)
	live := m.live()
	if len(live) == 0 {
		return m
	}
	m.lookUpKeys(ctx, v, live)
	header := newHeaderHash(fields)
	for _, c := range live {
		c.digest = header.sum(c.parsed)
		m.Want(c.body)
	}
	return m
}

func (m *Verification) live() []*check {
	var live []*check
	for _, c := range m.checks {
		if c.refused == nil {
			live = append(live, c)
		}
	}
	return live
}

// lookUpKeys looks up each key once. Keys in the resolver's memory are taken
// immediately, the others are looked up in the background.
func (m *Verification) lookUpKeys(ctx context.Context, v *Verifier, live []*check) {
	var unknown []string
	for _, c := range live {
		name := c.keyName()
		if c.lookup = m.lookups[name]; c.lookup != nil {
			continue
		}
		c.lookup = new(lookup)
		m.lookups[name] = c.lookup
		if !c.lookup.known(ctx, v.Resolver, name, v.Keys) {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) == 0 {
		return
	}
	ctx, m.cancel = context.WithTimeout(ctx, cmp.Or(v.DNSBudget, DefaultDNSBudget))
	for _, name := range unknown {
		l := m.lookups[name]
		m.running.Go(func() { l.run(ctx, v.Resolver, name, v.Keys) })
	}
}

// choose parses the signatures and keeps the most useful ones, in the order of
// the header.
func (v *Verifier) choose(fields []Field, fromDomain string) (checks []*check, skipped int) {
	for i, f := range fields {
		if !f.Is(FieldName) {
			continue
		}
		p, refused := parseSignature(f, i)
		if v.Want != nil && !v.Want(p.Domain, p.Selector) {
			continue
		}
		if refused == nil {
			refused = v.refuse(p, len(fields))
		}
		checks = append(checks, &check{parsed: p, refused: refused})
	}
	limit := cmp.Or(v.MaxSignatures, DefaultMaxSignatures)
	if len(checks) <= limit {
		return checks, 0
	}
	skipped = len(checks) - limit
	fromDomain = strings.ToLower(fromDomain)
	slices.SortStableFunc(checks, func(a, b *check) int {
		return cmp.Compare(a.rank(fromDomain), b.rank(fromDomain))
	})
	checks = checks[:limit]
	slices.SortFunc(checks, func(a, b *check) int { return cmp.Compare(a.Index, b.Index) })
	return checks, skipped
}

// rank is lower for a signature that more probably speaks for fromDomain. One
// that cannot pass comes last, so that it does not displace one that can.
func (c *check) rank(fromDomain string) int {
	switch {
	case c.refused != nil:
		return 3
	case c.Domain == fromDomain:
		return 0
	case strings.HasSuffix(fromDomain, "."+c.Domain), strings.HasSuffix(c.Domain, "."+fromDomain):
		return 1
	default:
		return 2
	}
}

// refuse applies the limits that depend on more than the signature.
func (v *Verifier) refuse(p *parsed, fields int) *refusal {
	now := time.Now
	if v.Now != nil {
		now = v.Now
	}
	if p.Expired(now(), v.Skew) {
		return permError("signature expired")
	}
	if fields > MaxFields {
		return permError("too many header fields")
	}
	return nil
}

// Close cancels the verification: it stops the lookups and waits for them.
func (m *Verification) Close() {
	m.cancel()
	m.running.Wait()
}

// Finish ends the body, waits for the lookups, and returns the result for
// every signature. The lookups end with the budget at the latest. It must be
// called once.
func (m *Verification) Finish() Report { return m.FinishWith(m.Sums()) }

// FinishWith is like Finish, but for a body that was hashed elsewhere.
func (m *Verification) FinishWith(sums Sums) Report {
	m.running.Wait()
	m.cancel()
	report := Report{Skipped: m.skipped}
	for _, c := range m.checks {
		if c.refused == nil {
			c.refused = c.verifyWithKeys(sums)
		}
		c.settle()
		report.Signatures = append(report.Signatures, c.Signature)
	}
	shortenB(report.Signatures, m.checks)
	return report
}

// settle sets the status in the report from the refusal, or to pass if there
// is none.
func (c *check) settle() {
	c.Status = Pass
	switch {
	case c.refused != nil:
		c.Status, c.Reason = c.refused.status, c.refused.reason
	case c.Testing:
		c.Reason = "testing key"
	case c.Limited:
		c.Reason = "l= covers the whole body"
	}
}

// verifyWithKeys returns nil if one of the keys verifies the signature, else the
// refusal that came closest to success.
func (c *check) verifyWithKeys(sums Sums) *refusal {
	if refused := c.checkLength(sums); refused != nil {
		return refused
	}
	body := ""
	if !c.matchesBody(sums) {
		body = "body hash did not verify"
	}
	key, refused := c.lookup.verify(c.parsed, c.digest, body)
	c.Err = c.lookup.err
	if key != nil {
		c.KeyBits, c.Testing = key.bits, key.testing
	}
	if refused != nil && refused.status == Fail && key.testing {
		// RFC 6376 section 3.6.1: treated like an unsigned message.
		return &refusal{Neutral, refused.reason + ", under a testing key"}
	}
	return refused
}

// Bounds of header.b, in characters (RFC 6008 section 4).
const (
	minShownB = 8
	maxShownB = 64
)

// shortenB sets header.b of every signature to the beginning of b= that
// distinguishes it.
func shortenB(signatures []Signature, checks []*check) {
	for i := range signatures {
		text := checks[i].text
		n := minShownB
		for j := range checks {
			for j != i && n < maxShownB && n < len(text) && strings.HasPrefix(checks[j].text, text[:n]) {
				n++
			}
		}
		signatures[i].B = text[:min(n, len(text))]
	}
}
