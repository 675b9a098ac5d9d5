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

	"github.com/postern-mail/postern/internal/resolver"
)

// Subject is a name to ask about, and what it is to the caller ("sender").
type Subject struct {
	Role string
	Name string // lower case, A-labels, without the last dot
}

// Query is what is asked about one request. An address or name that lists
// cannot know is left out, see [AskableAddress] and [AskableName]; more than
// eight different names are too.
type Query struct {
	Address netip.Addr
	Names   []Subject
}

// Outcome is what follows for the request.
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
	Counted bool // a site counted it, be it with weight 0
}

// Meaning is what the codes say: "SBL, XBL".
func (h *Hit) Meaning() string { return names(h.Codes) }

// Failure is a question without an answer.
type Failure struct {
	Zone    string // its public name
	Subject string
	Problem Problem
	Cause   string // what DNS said; never the key
	Broken  bool   // not asked: the zone's breaker was open
}

// Error gives zone and cause, with the subject left to the record around it.
func (f *Failure) Error() string {
	if f.Broken {
		return fmt.Sprintf("%s: out of service: %s", f.Zone, f.Problem)
	}
	return f.Zone + ": " + f.Cause
}

// Result is what the lists said.
type Result struct {
	Outcome    Outcome
	Score      int
	Hits       []Hit // in the order of the settings
	Asked      int   // questions that had a zone in service
	Abused     bool  // a name is a legitimate domain that is abused
	FreshHours int   // age of the newest name, at most 24; 0 when none is known to be new
	Failures   []Failure
}

// Best is the hit that a reply names: the one that added most, and of several
// the first. It is nil when none added anything.
func (r *Result) Best() *Hit {
	var best *Hit
	for i := range r.Hits {
		if h := &r.Hits[i]; h.Weight > 0 && (best == nil || h.Weight > best.Weight) {
			best = h
		}
	}
	return best
}

// question is one zone asked about one subject.
type question struct {
	zone    *zone
	subject string
	labels  string
	roles   []string
}

// answer is what came of question number n.
type answer struct {
	n       int
	codes   []Code
	failure *Failure
}

// Check asks all lists about q at once, and returns as soon as what is still
// unknown cannot change the outcome, or when ctx ends. An error means that
// Outcome is Undecided; the rest of the result holds what is known. A zone that
// only allows and is out of service counts nothing: it must not switch off
// those that work.
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
			running.Go(func() { answers <- l.ask(ctx, n, &questions[n]) })
		}
	}
	for !t.settled() {
		t.take(<-answers)
	}
	cancel()
	running.Wait() // a cancelled question returns at once
	return t.result()
}

// remember answers what the resolver knows already. Goroutines for that would
// cost several times the answers.
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
		codes, failure := l.judge(q.zone, known.Addrs, err)
		if err != nil && failure != nil { // it was blamed on the zone when it happened
			failure.Subject = q.subject
			t.take(answer{n: n, failure: failure})
			continue
		}
		t.take(l.learn(n, q, codes, failure))
		if t.settled() {
			return
		}
	}
}

// questions pairs zones and subjects; a name that several roles share is asked
// once.
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

// ask puts one question to DNS and keeps the zone's breaker informed.
func (l *Lists) ask(ctx context.Context, n int, q *question) answer {
	codes, failure := l.resolve(ctx, q.zone, q.labels)
	if failure != nil && errors.Is(ctx.Err(), context.Canceled) {
		failure.Subject = q.subject
		return answer{n: n, failure: failure} // our own doing
	}
	return l.learn(n, q, codes, failure)
}

// learn notes at the zone how its question ended.
func (l *Lists) learn(n int, q *question, codes []Code, failure *Failure) answer {
	if failure == nil {
		if q.zone.failures.Load() != 0 {
			q.zone.failures.Store(0)
		}
		return answer{n: n, codes: codes}
	}
	failure.Subject = q.subject
	l.blame(q.zone, failure)
	return answer{n: n, failure: failure}
}

// resolve asks DNS.
func (l *Lists) resolve(ctx context.Context, z *zone, labels string) ([]Code, *Failure) {
	addrs, err := l.config.DNS.LookupNetIP(resolver.OwnZone(ctx), "ip4", labels+"."+z.asked+".")
	return l.judge(z, addrs, err)
}

// judge gives the codes of an answer their meanings. A refusal among them is a
// failure; the codes are returned with it.
func (l *Lists) judge(z *zone, addrs []netip.Addr, err error) ([]Code, *Failure) {
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

// failed distinguishes an absent name, which is an answer, from a question without one.
// The error's own text is not used where it may hold the name, and the key with
// it.
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

// Text asks for the words that a list has for a hit: its TXT records, or the
// address where the subject can be looked up, or nothing. They come from
// outside: at most 512 bytes, and without the key.
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
		// Cut after cleaning: half a key must not remain.
		if text := strings.TrimSpace(l.key.clean(strings.Join(texts[:min(len(texts), maxCodes)], " "))); text != "" {
			return strings.ToValidUTF8(text[:min(len(text), maxText)], "?")
		}
	}
	return strings.ReplaceAll(z.table.lookup, "{}", subject)
}
