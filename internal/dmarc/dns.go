package dmarc

import (
	"context"
	"errors"
	"strings"

	"github.com/postern-mail/postern/internal/resolver"
)

// Resolver asks DNS for TXT records, each with its strings joined. Errors are
// those of net.Resolver: a *net.DNSError with IsNotFound, wrapped or not, says
// that there is no record; every other error means that DNS could not tell.
// Names arrive absolute, with their last dot.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
}

// Querier is a Resolver that can tell a name that does not exist from one
// without TXT records, which is what the np tag depends on. A Resolver that is
// not a Querier is never taken to say that a name does not exist, so that np
// does not apply.
type Querier interface {
	Query(ctx context.Context, name string, qtype uint16) (resolver.Answer, error)
}

// maxName is the length of a name in text form, without the last dot.
const maxName = 253

// errNotAsked is what a finder says that may not ask.
var errNotAsked = errors.New("not looked up")

// Step is what one name said in the course of a walk.
type Step struct {
	Domain string  // the record is at _dmarc.<Domain>
	Record *Record // nil when there is none
	// Discarded is the number of records, all of them, that were dropped
	// because there were several.
	Discarded int
	Err       error // DNS could not tell
}

// finder looks records up, each name once unless time ran out.
type finder struct {
	resolver Resolver
	steps    map[string]Step
	exists   map[string]existence
	frozen   bool // answer from memory alone
	queries  int
}

type existence struct {
	exists bool
	err    error
}

func newFinder(r Resolver) *finder {
	return &finder{resolver: r, steps: make(map[string]Step), exists: make(map[string]existence)}
}

// record gives the record of one domain.
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
	if ctx.Err() == nil { // otherwise another turn may have the time
		f.steps[domain] = s
	}
	return s
}

// pick keeps the one record among the texts; several are as good as none.
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

// domainExists reports whether a domain exists in the sense of RFC 8020: there
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

// askExistence asks for TXT: SPF has asked the same of the MAIL FROM domain,
// which is often this one. An alias exists, wherever it leads.
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
