package dmarc

import (
	"context"
	"time"

	"github.com/postern-mail/postern/internal/author"
	"github.com/postern-mail/postern/internal/spf"
)

// Evaluator evaluates mails. It has no state and may be used by several
// goroutines.
type Evaluator struct {
	Resolver Resolver // if it is also a Querier, np applies to domains that do not exist
	Method   Method   // "" is MethodTreeWalk
}

// Message is what must be known about one mail.
type Message struct {
	Author     author.Author
	SPF        spf.MailFromResult
	Signatures []Signature
	// Sample is a random number from 0 to 99 for the mail. With MethodPSL, the
	// policy is lowered by one level if the number is not below pct=.
	Sample int
}

// Report is the result for one mail.
type Report struct {
	Author author.Author
	// Verdict is the strictest of the Results. If the From header itself cannot
	// be judged, it is a PermError or None without a domain.
	Verdict Result
	// Results has one entry for each author domain, in the order of From.
	Results []Result
	// Queries is the number of DNS questions.
	Queries int
}

// Result is the result for one author domain.
type Result struct {
	Domain string // author domain: header.from
	Status Status
	Reason Reason
	Err    error // the DNS error, if the DNS did not answer

	// Policy is the policy for Domain after p, sp, np, t and, with MethodPSL,
	// pct: policy.dmarc. It is "" if no policy applies. Published is the policy
	// before t and pct.
	Policy, Published Policy
	TestMode          bool    // t=y lowered the policy
	Sampled           bool    // pct= lowered the policy
	Record            *Record // in the form that is used
	PolicyDomain      string  // the domain that has the Record
	NonExistent       bool    // Domain does not exist, so np was used if present
	Org               string  // organizational domain, "" if it was not needed

	Identifiers []Identifier
	Walks       []Walk // of Domain first, if one was needed

	// PSL is the result with the Public Suffix List; only with MethodTreeWalk.
	PSL Comparison
}

// Comparison is the result of RFC 7489 for the same mail. It uses only what
// was looked up already, and asks no further questions.
type Comparison struct {
	Org     string
	Known   bool // there was enough data for Status and Policy
	Status  Status
	Policy  Policy
	Differs bool // in Status, in Policy, or in Org if the walk needed one
}

// Aligned reports whether an identifier of the mechanism ("spf" or "dkim")
// passed and is aligned.
func (r *Result) Aligned(mechanism string) bool {
	for _, id := range r.Identifiers {
		if id.Mechanism == mechanism && id.Passed && id.Aligned {
			return true
		}
	}
	return false
}

// Evaluate evaluates one mail. It returns at the latest when ctx ends.
func (e *Evaluator) Evaluate(ctx context.Context, m Message) Report {
	return e.Start(ctx, m.Author).Finish(ctx, m)
}

// Evaluation is one mail for which the policies were looked up.
type Evaluation struct {
	method Method
	finder *finder
}

// Start looks up the policies of the author's domains. This does not need the
// results of SPF and DKIM. It returns at the latest when ctx ends.
func (e *Evaluator) Start(ctx context.Context, from author.Author) *Evaluation {
	return e.StartWith(ctx, e.Resolver, from)
}

// StartWith is Start with another resolver for the policies, for example one
// that answers only from memory. Finish uses e.Resolver for its questions.
func (e *Evaluator) StartWith(ctx context.Context, first Resolver, from author.Author) *Evaluation {
	f := newFinder(first)
	for i, domain := range from.Domains {
		own, done := turn(ctx, len(from.Domains)-i)
		f.discover(own, e.Method, domain) // the finder remembers the answers
		done()
	}
	f.resolver = e.Resolver
	return &Evaluation{method: e.Method, finder: f}
}

// Finish evaluates the mail of the author that Start was called with. It must
// be called once.
func (v *Evaluation) Finish(ctx context.Context, m Message) Report {
	f := v.finder
	report := Report{Author: m.Author}
	ids := identifiers(m.SPF, m.Signatures)
	for i, domain := range m.Author.Domains {
		own, done := turn(ctx, len(m.Author.Domains)-i)
		r := f.evaluate(own, v.method, domain, ids, m.Sample)
		if v.method != MethodPSL {
			r.PSL = f.compare(own, r, ids)
		}
		done()
		report.Results = append(report.Results, r)
	}
	report.Verdict = strictest(m.Author, report.Results)
	report.Queries = f.queries
	return report
}

// turn gives an author domain its share of the time: an equal part of what is
// left for the domains that are left. Otherwise an attacker could add a domain
// of his own before the domain of someone else, and let its DNS never answer.
// Then there would be no time left for the other domain.
func turn(ctx context.Context, left int) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok || left < 2 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
}

// evaluate returns the result for one author domain.
func (f *finder) evaluate(ctx context.Context, m Method, author string, ids []Identifier, sample int) Result {
	d := f.discover(ctx, m, author)
	r := Result{
		Domain: author, Reason: d.reason, Err: d.err, Record: d.record, PolicyDomain: d.domain,
		Published: d.policy, Policy: d.policy, NonExistent: d.missing,
	}
	a := aligner{finder: f, method: m, author: author, record: d.record, walk: d.walk}
	if d.record != nil {
		r.lower(m, sample)
		r.Identifiers = append(r.Identifiers, ids...)
		for i := range r.Identifiers {
			a.align(ctx, &r.Identifiers[i])
		}
	}
	r.keepWalks(a)
	if m == MethodPSL {
		r.Org = PSLOrg(author)
	}
	r.settle()
	return r
}

// lower lowers the policy if t or pct asks for it.
func (r *Result) lower(m Method, sample int) {
	if r.Published == PolicyNone {
		return
	}
	switch {
	case r.Record.Test:
		r.TestMode = true
	case m == MethodPSL && sample >= r.Record.Percent:
		r.Sampled = true
	default:
		return
	}
	r.Policy = r.Published.lowered()
}

func (r *Result) keepWalks(a aligner) {
	if a.walk != nil {
		r.Walks = append(r.Walks, *a.walk)
		r.Org = a.walk.Org
	}
	r.Walks = append(r.Walks, a.walks...)
}

// settle sets the status. An aligned pass counts even if a DNS question about
// another identifier failed. A failed DNS question never leads to Fail.
func (r *Result) settle() {
	switch r.Reason {
	case NoRecord:
		r.Status = None
		return
	case BadRecord:
		r.Status = PermError
		return
	case DNSPolicy:
		r.Status = TempError
		return
	}
	r.Status, r.Reason = Fail, NotAligned
	for _, id := range r.Identifiers {
		switch {
		case id.Passed && id.Aligned:
			r.Status, r.Reason, r.Err = Pass, Aligned, nil
			return
		case id.Aligned, id.Err != nil:
			r.Status, r.Reason, r.Err = TempError, DNSAlignment, id.Err
		}
	}
}

// compare judges the domain again with the Public Suffix List. If the domain's
// own record applied and no walk was needed, the result is the same with the
// list.
func (f *finder) compare(ctx context.Context, r Result, ids []Identifier) Comparison {
	if r.Record != nil && len(r.Walks) == 0 {
		return Comparison{Org: PSLOrg(r.Domain), Known: true, Status: r.Status, Policy: r.Policy}
	}
	f.frozen = true
	defer func() { f.frozen = false }()
	// The comparison must not depend on pct: a sample of -1 is below any pct.
	p := f.evaluate(ctx, MethodPSL, r.Domain, ids, -1)
	c := Comparison{Org: p.Org, Known: p.Status != TempError || r.Status == TempError}
	c.Differs = r.Org != "" && r.Org != c.Org
	if c.Known {
		c.Status, c.Policy = p.Status, p.Policy
		c.Differs = c.Differs || p.Status != r.Status || p.Policy != r.Policy
	}
	return c
}

// strictest returns the result that counts (RFC 9989 section 11.5).
func strictest(from author.Author, results []Result) Result {
	verdict := Result{Status: PermError, Reason: Reason(from.Defect)}
	if from.Defect == author.NoDomain {
		verdict.Status = None
	}
	for i, r := range results {
		if i == 0 && from.Defect == "" || severity(r) > severity(verdict) {
			verdict = r
		}
	}
	if verdict.Status == Pass && from.Fields > 1 {
		// Mail programs show only one of the fields, and a signature covers only the
		// last one (RFC 5322 section 3.6, RFC 6376 section 8.15).
		return Result{Status: PermError, Reason: FromSeveral}
	}
	return verdict
}

// severity orders results. It is higher for a result that asks for more
// against the mail. Only a failure under quarantine or reject is above a From
// that cannot be judged.
func severity(r Result) int {
	switch r.Status {
	case Fail:
		switch r.Policy {
		case PolicyReject:
			return 8
		case PolicyQuarantine:
			return 7
		}
		return 5
	case PermError:
		if r.Domain == "" {
			return 6
		}
		return 3
	case TempError:
		return 4
	case None:
		return 2
	}
	return 1
}
