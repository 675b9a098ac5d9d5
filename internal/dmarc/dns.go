package dmarc

import (
	"context"
	"errors"
	"strings"

	"github.com/postern-mail/postern/internal/resolver"
)

// Resolver asks the DNS for TXT records, each with its strings joined. Errors
// are those of net.Resolver. A *net.DNSError with IsNotFound, perhaps wrapped,
// means that there is no record. Every other error means that the DNS did not
// answer. Names are absolute, with a final dot.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
}

// Querier is a Resolver that can distinguish a name that does not exist from
// one without TXT records. The np tag depends on this. With a Resolver that is
// not a Querier, every name is assumed to exist, so np never applies.
type Querier interface {
	Query(ctx context.Context, name string, qtype uint16) (resolver.Answer, error)
}

// maxName is the greatest length of a name in text form, without the final
// dot.
const maxName = 253

// errNotAsked is the error for names that are not in memory, when no question
// is allowed.
var errNotAsked = errors.New("not looked up")

// Step is the result for one name of a walk.
type Step struct {
	Domain string  // the record is at _dmarc.<Domain>
	Record *Record // nil if there is none
	// Discarded is how many records were ignored because there were several. Then
	// all of them are ignored.
	Discarded int
	Err       error // the DNS did not answer
}

// finder looks up records. It looks up a name only once, unless the time was
// over.
type finder struct {
	resolver Resolver
	steps    map[string]Step
	exists   map[string]existence
	frozen   bool // answer only from memory
	queries  int
}

type existence struct {
	exists bool
	err    error
}

func newFinder(r Resolver) *finder {
	return &finder{resolver: r, steps: make(map[string]Step), exists: make(map[string]existence)}
}

// record returns the record of one domain.
func (f *finder) record(ctx context.Context, domain string) Step {
	if s, ok := f.steps[domain]; ok {
		return s
	}
	if f.frozen {
		return Step{Domain: domain, Err: errNotAsked}
	}
	s := Step{Domain: domain}
	name := "_dmarc." + domain
	if len(name) <= maxName {
		var texts []string
		texts, s.Err = f.txt(ctx, name+".")
		s.pick(texts)
	}
	if ctx.Err() == nil { // else another author domain may have time left
		f.steps[domain] = s
	}
	return s
}

// pick takes the record from the texts. Several records count as none.
func (s *Step) pick(texts []string) {
	for _, text := range texts {
		r, ok := ParseRecord(text)
		if !ok {
			continue
		}
		if s.Record != nil || s.Discarded > 0 {
			s.Record = nil
			s.Discarded = max(s.Discarded, 1) + 1
			continue
		}
		s.Record = &r
	}
}

func (f *finder) txt(ctx context.Context, name string) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f.queries++
	texts, err := f.resolver.LookupTXT(ctx, name)
	if resolver.IsAbsent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return texts, nil
}

// domainExists reports whether a domain exists as RFC 8020 defines it: there
// is a record of any type at the name or below it.
func (f *finder) domainExists(ctx context.Context, domain string) (bool, error) {
	q, ok := f.resolver.(Querier)
	if !ok {
		return true, nil
	}
	if e, ok := f.exists[domain]; ok {
		return e.exists, e.err
	}
	if f.frozen {
		return false, errNotAsked
	}
	e := existence{}
	e.exists, e.err = f.askExistence(ctx, q, domain)
	if ctx.Err() == nil {
		f.exists[domain] = e
	}
	return e.exists, e.err
}

// askExistence asks for TXT, because SPF has asked the same question for the
// MAIL FROM domain, which is often this domain. An alias exists, even if its
// target does not.
func (f *finder) askExistence(ctx context.Context, q Querier, domain string) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	f.queries++
	a, err := q.Query(ctx, domain+".", resolver.TypeTXT)
	if resolver.IsAbsent(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	alias := a.Name != "" && !strings.EqualFold(strings.TrimSuffix(a.Name, "."), domain)
	return a.Status != resolver.StatusNXDomain || alias, nil
}
