package dnsbl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-mail/postern/internal/resolver"
)

// Subject is a name to ask about, and its role for the caller ("sender").
type Subject struct {
	Role string
	Name string // lower case, A-labels, without the last dot
}

// Query holds the address and names of one request. Those that lists cannot hold
// are left out, see [AskableAddress] and [AskableName]. So are names after the
// first eight different ones.
type Query struct {
	Address netip.Addr
	Names   []Subject
}

// Outcome is the decision about the request.
type Outcome uint8

// The outcomes. Undecided comes with an error.
const (
	Clean Outcome = iota
	Listed
	Undecided
)

// Hit is a zone that holds the address or a name.
type Hit struct {
	Zone    string // its public name
	Kind    Kind
	Subject string   // the address or the name
	Roles   []string // of a name
	Codes   []Code
	Weight  int  // what it added to the score
	Counted bool // a site counted it, even if its weight is 0
}

// Meaning returns the names of the codes: "SBL, XBL".
func (h *Hit) Meaning() string { return names(h.Codes) }

// Failure is a question without an answer.
type Failure struct {
	Zone    string // its public name
	Subject string
	Problem Problem
	Cause   string // the error of DNS, without the key
	Broken  bool   // not asked: the zone's breaker was open
}

// Error returns zone and cause. The subject is in the record around it.
func (f *Failure) Error() string {
	if f.Broken {
		return fmt.Sprintf("%s: out of service: %s", f.Zone, f.Problem)
	}
	return f.Zone + ": " + f.Cause
}

// Result is the answer of all lists.
type Result struct {
	Outcome    Outcome
	Score      int
	Hits       []Hit // in the order of the settings
	Asked      int   // questions to zones in service
	Abused     bool  // a name is a legitimate domain that is abused
	FreshHours int   // age of the newest name, at most 24; 0 when none is known to be new
	Failures   []Failure
}

// Best returns the hit that a reply names: the first of those that added most to
// the score. It is nil when none added to it.
func (r *Result) Best() *Hit {
	var best *Hit
	for i := range r.Hits {
		if h := &r.Hits[i]; h.Weight > 0 && (best == nil || h.Weight > best.Weight) {
			best = h
		}
	}
	return best
}

// question asks one zone about one subject.
type question struct {
	zone    *zone
	subject string
	labels  string
	roles   []string
}

// answer is the result of question number n.
type answer struct {
	n       int
	codes   []Code
	failure *Failure
}

// skipped is the answer where the zone is out of service.
func (q *question) skipped(n int, p Problem) answer {
	return answer{n: n, failure: &Failure{Zone: q.zone.public, Subject: q.subject, Problem: p, Broken: true}}
}

// Check asks all lists about q at once. It returns as soon as the missing answers
// cannot change the outcome, or when ctx ends. An error means that Outcome is
// Undecided; the rest of the result holds what is known. A zone that only allows
// and is out of service does not count: otherwise it would make the zones that work
// useless.
func (l *Lists) Check(ctx context.Context, q Query) (Result, error) {
	questions := l.questions(q)
	t := newTally(l, questions)
	if l.remember(ctx, t); t.settled() {
		return t.result()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan answer, len(questions))
	var running sync.WaitGroup
	for n := range questions {
		if t.states[n] == pending {
			running.Go(func() { answers <- l.askZone(ctx, n, &questions[n]) })
		}
	}
	for !t.settled() {
		t.take(<-answers)
	}
	cancel()
	running.Wait() // a cancelled question returns at once
	return t.result()
}

// remember takes the answers that the resolver has in memory. Goroutines for these
// would cost several times more than the answers.
func (l *Lists) remember(ctx context.Context, t *tally) {
	if l.memory == nil {
		return
	}
	memory := l.memory.Memory()
	for n := range t.questions {
		q := &t.questions[n]
		if t.states[n] != pending {
			continue
		}
		known, err := memory.Query(ctx, q.labels+"."+q.zone.asked, resolver.TypeA)
		if errors.Is(err, resolver.ErrNotInMemory) {
			continue
		}
		codes, failure := l.codes(q.zone, known.Addrs, err)
		if err != nil && failure != nil { // the zone was blamed when it happened
			failure.Subject = q.subject
			t.take(answer{n: n, failure: failure})
			continue
		}
		if len(codes) > 0 && (l.untested(q.zone) || q.zone.problem() != Healthy) {
			continue // for askZone, which waits for the test
		}
		t.take(l.learn(n, q, codes, failure))
		if t.settled() {
			return
		}
	}
}

// questions returns each zone with each subject. A name with several roles is asked
// about once.
func (l *Lists) questions(q Query) []question {
	subjects := askable(q.Names)
	out := make([]question, 0, len(l.addresses)+len(l.names)*len(subjects))
	if addr := q.Address.Unmap(); AskableAddress(addr) {
		labels, text := Reversed(addr), addr.String()
		for _, z := range l.addresses {
			out = append(out, question{zone: z, subject: text, labels: labels})
		}
	}
	for _, z := range l.names {
		for _, s := range subjects {
			if len(s.name)+1+len(z.asked) <= maxName {
				out = append(out, question{zone: z, subject: s.name, labels: s.name, roles: s.roles})
			}
		}
	}
	return out
}

type subject struct {
	name  string
	roles []string
}

func askable(all []Subject) []subject {
	out := make([]subject, 0, min(len(all), maxNames))
	for _, s := range all {
		at := slices.IndexFunc(out, func(o subject) bool { return o.name == s.Name })
		switch {
		case at >= 0:
			out[at].roles = append(out[at].roles, s.Role)
		case len(out) < maxNames && AskableName(s.Name):
			out = append(out, subject{s.Name, []string{s.Role}})
		}
	}
	return out
}

// askZone asks DNS one question and reports the result to the zone's breaker.
func (l *Lists) askZone(ctx context.Context, n int, q *question) answer {
	codes, failure := l.resolve(ctx, q.zone, q.labels)
	if failure != nil && errors.Is(ctx.Err(), context.Canceled) {
		failure.Subject = q.subject
		return answer{n: n, failure: failure} // we stopped it: the zone is not to blame
	}
	if failure != nil || len(codes) == 0 {
		return l.learn(n, q, codes, failure)
	}
	if l.untested(q.zone) {
		l.awaitTest(ctx, q.zone)
	}
	// The zone may have been put out of service since the request began.
	if p := q.zone.problem(); p != Healthy {
		return q.skipped(n, p)
	}
	return l.learn(n, q, codes, nil)
}

// untested reports whether a zone has not been tested since the start, but will be.
func (l *Lists) untested(z *zone) bool {
	if !l.config.Await {
		return false
	}
	select {
	case <-z.tested:
		return false
	default:
		return true
	}
}

// awaitTest waits for the first self-test of a zone, but not for one that takes long.
func (l *Lists) awaitTest(ctx context.Context, z *zone) {
	limit := time.NewTimer(firstTestWait)
	defer limit.Stop()
	select {
	case <-z.tested:
	case <-limit.C:
	case <-ctx.Done():
	}
}

// learn reports to the zone how its question ended.
func (l *Lists) learn(n int, q *question, codes []Code, failure *Failure) answer {
	if failure == nil {
		if q.zone.failures.Load() != 0 {
			q.zone.failures.Store(0)
		}
		l.countRow(q.zone, len(codes) > 0)
		return answer{n: n, codes: codes}
	}
	failure.Subject = q.subject
	l.blame(q.zone, failure)
	return answer{n: n, failure: failure}
}

// resolve asks DNS.
func (l *Lists) resolve(ctx context.Context, z *zone, labels string) ([]Code, *Failure) {
	addrs, err := l.config.DNS.LookupNetIP(resolver.OwnZone(ctx), "ip4", labels+"."+z.asked+".")
	return l.codes(z, addrs, err)
}

// codes returns the codes of an answer with their meanings. If one of them is a
// refusal, it also returns a failure.
func (l *Lists) codes(z *zone, addrs []netip.Addr, err error) ([]Code, *Failure) {
	if err != nil {
		return nil, l.failed(z, err)
	}
	if len(addrs) == 0 {
		return nil, nil
	}
	codes := make([]Code, 0, min(len(addrs), maxCodes))
	for _, addr := range addrs[:min(len(addrs), maxCodes)] {
		codes = append(codes, z.table.classify(addr, z.kind))
	}
	slices.SortFunc(codes, func(a, b Code) int { return a.Addr.Compare(b.Addr) })
	for _, c := range codes {
		if c.Class == ClassRefused {
			return codes, &Failure{Zone: z.public, Problem: c.Problem, Cause: fmt.Sprintf("answered %s: %s", c.Addr, c.Name)}
		}
	}
	return codes, nil
}

// failed returns the failure of a question without an answer. A name that does not
// exist is an answer. The text of the error is not used where it may contain the
// name, and with it the key.
func (l *Lists) failed(z *zone, err error) *Failure {
	f := &Failure{Zone: z.public, Problem: Failing}
	var dnsErr *net.DNSError
	switch isDNS := errors.As(err, &dnsErr); {
	case isDNS && dnsErr.IsNotFound:
		return nil
	case errors.Is(err, context.DeadlineExceeded), isDNS && dnsErr.IsTimeout:
		f.Problem, f.Cause = NoAnswer, "no answer in time"
	case errors.Is(err, context.Canceled):
		f.Problem, f.Cause = NoAnswer, "stopped"
	case isDNS:
		f.Cause = l.key.clean(dnsErr.Err)
	default:
		f.Cause = l.key.clean(err.Error())
	}
	return f
}

// Text returns the explanation of a list for a hit: its TXT records, or the web
// page where the subject can be looked up, or nothing. The text comes from outside.
// It has at most 512 bytes, and the key is removed.
func (l *Lists) Text(ctx context.Context, h *Hit) string {
	for _, z := range l.zones() {
		if z.public == h.Zone && z.kind == h.Kind {
			return l.text(ctx, z, h.Subject)
		}
	}
	return ""
}

func (l *Lists) text(ctx context.Context, z *zone, subject string) string {
	labels := subject
	if addr, err := netip.ParseAddr(subject); err == nil {
		labels = Reversed(addr)
	}
	texts, err := l.config.DNS.LookupTXT(resolver.OwnZone(ctx), labels+"."+z.asked+".")
	if err == nil && len(texts) > 0 {
		slices.Sort(texts)
		// Remove the key before cutting: a part of the key must not remain.
		if text := strings.TrimSpace(l.key.clean(strings.Join(texts[:min(len(texts), maxCodes)], " "))); text != "" {
			return strings.ToValidUTF8(text[:min(len(text), maxText)], "?")
		}
	}
	return strings.ReplaceAll(z.table.lookup, "{}", subject)
}
