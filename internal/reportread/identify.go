package reportread

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-mail/postern/internal/helo"
	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/spf"
)

// Identity asks the DNS who the sources of a summary are. Anyone can send reports, with
// any sources and counts, and can have name servers that do not answer. So half of the
// questions are about the sources with the most mails, and half about those that the most
// reports name: one forged report cannot use up the time.
type Identity struct {
	DNS     spf.Resolver
	Most    int           // sources of each domain to ask for; 0 means 200
	AtOnce  int           // 0 means 8
	Timeout time.Duration // for all sources; 0 means 30 seconds
	Each    time.Duration // for one source; 0 means 5 seconds
}

// The values of Source.Lookup.
const (
	LookupFailed = "failed" // the DNS did not answer some question
	LookupNone   = "none"   // the DNS was not asked: there were too many sources, or the time was over
)

// Identify adds to each source its reverse name, and the part of the domain's SPF record
// that covers it. It returns the number of sources for which some DNS questions failed,
// and the number of those that were left out when the time was over.
func (i Identity) Identify(ctx context.Context, s *Summary) (failed, late int) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(i.Timeout, 30*time.Second))
	defer cancel()
	var running sync.WaitGroup
	var mu sync.Mutex
	places := make(chan struct{}, cmp.Or(i.AtOnce, 8))
	for _, c := range i.candidates(s) {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			late++
			continue
		}
		running.Go(func() {
			defer func() { <-places }()
			if i.one(ctx, c) {
				return
			}
			c.source.Lookup = LookupFailed
			mu.Lock()
			failed++
			mu.Unlock()
		})
	}
	running.Wait()
	return failed, late
}

// candidate is a source that may be asked about.
type candidate struct {
	domain  string
	address netip.Addr
	source  *Source
}

// candidates returns the sources in the order in which they are asked about.
func (i Identity) candidates(s *Summary) (all []candidate) {
	for _, d := range s.Domains {
		var of []candidate
		for _, source := range d.Sources {
			address, err := netip.ParseAddr(source.Address)
			if err != nil {
				continue // several together
			}
			source.Lookup = LookupNone
			of = append(of, candidate{d.Domain, address, source})
		}
		of = mixed(of)
		all = append(all, of[:min(len(of), cmp.Or(i.Most, 200))]...)
	}
	return mixed(all)
}

// mixed returns the candidates by turns from two orders: by mails, and by reports that
// name them.
func mixed(all []candidate) (order []candidate) {
	byMails := slices.SortedStableFunc(slices.Values(all), func(a, b candidate) int { return compareSources(a.source, b.source) })
	byReports := slices.SortedStableFunc(slices.Values(byMails), func(a, b candidate) int { return cmp.Compare(b.source.reports, a.source.reports) })
	taken := make(map[*Source]bool, len(all))
	for n := range all {
		for _, c := range []candidate{byMails[n], byReports[n]} {
			if !taken[c.source] {
				taken[c.source] = true
				order = append(order, c)
			}
		}
	}
	return order
}

// one asks for one source. It reports whether the DNS has answered.
func (i Identity) one(ctx context.Context, c candidate) bool {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(i.Each, 5*time.Second))
	defer cancel()
	var told bool
	s := c.source
	s.Name, s.Confirmed, told = i.reverse(ctx, c.address)
	covered := spf.CheckMailFrom(ctx, i.DNS, spf.Args{
		IP: c.address, Helo: cmp.Or(s.Name, "unknown.invalid"), Sender: spf.Sender{Local: "postmaster", Domain: c.domain},
		Now: time.Now(), MaxVoids: spf.MaxLookups, NoExplanation: true,
	})
	s.SPF, s.Lookup = coverage(c.domain, covered.Result), ""
	return told && covered.Status != spf.TempError
}

// reverse returns the name of an address. It prefers a name that resolves to the address.
func (i Identity) reverse(ctx context.Context, address netip.Addr) (name string, confirmed, told bool) {
	names, err := i.DNS.LookupAddr(ctx, address.String())
	if err != nil && !resolver.IsAbsent(err) {
		return "", false, false
	}
	slices.Sort(names) // their order in the DNS is random
	told = true
	for _, claim := range names[:min(len(names), spf.MaxNames)] {
		plain := strings.ToLower(strings.TrimSuffix(claim, "."))
		name = cmp.Or(name, plain)
		found, err := helo.HasAddress(ctx, i.DNS, claim, address)
		if found {
			return plain, true, true
		}
		told = told && err == nil
	}
	return name, false, told
}

// coverage returns which part of a domain's SPF record covers an address.
func coverage(domain string, r spf.Result) string {
	switch {
	case r.Status == spf.TempError:
		return ""
	case r.Status == spf.None:
		return domain + " has no SPF record"
	case r.Status == spf.PermError:
		return "the SPF record of " + domain + " cannot be used"
	case r.Kind == "" || r.Kind == spf.KindAll:
		return "not in the SPF record of " + domain
	}
	by := r.Mechanism
	if len(r.Path) > 1 {
		by = "include " + r.Path[1]
		if last := r.Path[len(r.Path)-1]; len(r.Path) > 2 {
			by += " (" + last + ")"
		}
	}
	if r.Status != spf.Pass {
		by += ", " + string(r.Status)
	}
	return by
}

// BySender counts the sources of each sender together: those with a confirmed name in
// the domain of one organisation, and those in the same part of the SPF record. Other
// sources stay separate.
func (s *Summary) BySender() {
	for _, d := range s.Domains {
		groups := make(map[string]*Source)
		for _, one := range d.Sources {
			sender := one.sender()
			if of := groups[sender]; of != nil {
				of.join(one)
				continue
			}
			groups[sender] = one
		}
		d.Sources = nil
		for sender, of := range groups {
			if of.Hosts > 1 {
				of.Address, of.Name = "", sender
			}
			d.Sources = append(d.Sources, of)
		}
		slices.SortFunc(d.Sources, func(a, b *Source) int { return cmp.Or(compareSources(a, b), cmp.Compare(a.Name, b.Name)) })
	}
}

// sender returns the probable sender.
func (s *Source) sender() string {
	switch {
	case s.Confirmed:
		return organization(s.Name)
	case strings.HasPrefix(s.SPF, "include "):
		return s.SPF
	}
	return s.Address
}

func (s *Source) join(other *Source) {
	s.Hosts += other.Hosts
	for _, one := range []struct {
		to   *int64
		more int64
	}{{&s.Messages, other.Messages}, {&s.Passed, other.Passed}, {&s.DKIM, other.DKIM}, {&s.SPFPassed, other.SPFPassed}, {&s.Quarantined, other.Quarantined}, {&s.Rejected, other.Rejected}} {
		*one.to = plus(*one.to, one.more)
	}
	for _, c := range other.From {
		s.from.add(c.Text, c.Messages)
	}
	for _, c := range other.Why {
		s.why.add(c.Text, c.Messages)
	}
	s.From, s.Why = s.from.list(), s.why.list()
	if s.SPF != other.SPF {
		s.SPF = ""
	}
	s.spans(other.First, other.Last)
}
