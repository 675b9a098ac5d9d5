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

// Identity asks the DNS who the sources of a summary are.
type Identity struct {
	DNS     spf.Resolver
	Most    int // sources to ask for, the largest of each domain first; 0 means 200
	AtOnce  int // 0 means 8
	Timeout time.Duration
}

// Identify adds to each source its reverse name, and the part of the domain's SPF record
// that covers it. It returns the number of sources for which some DNS questions failed.
func (i Identity) Identify(ctx context.Context, s *Summary) (unknown int) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(i.Timeout, 30*time.Second))
	defer cancel()
	var running sync.WaitGroup
	var mu sync.Mutex
	places := make(chan struct{}, cmp.Or(i.AtOnce, 8))
	for _, d := range s.Domains {
		for _, source := range d.Sources[:min(len(d.Sources), cmp.Or(i.Most, 200))] {
			address, err := netip.ParseAddr(source.Address)
			if err != nil {
				continue
			}
			places <- struct{}{}
			running.Go(func() {
				defer func() { <-places }()
				if !i.one(ctx, d.Domain, address, source) {
					mu.Lock()
					unknown++
					mu.Unlock()
				}
			})
		}
	}
	running.Wait()
	return unknown
}

// one asks for one source. It reports whether the DNS has answered.
func (i Identity) one(ctx context.Context, domain string, address netip.Addr, s *Source) bool {
	var told bool
	s.Name, s.Confirmed, told = i.reverse(ctx, address)
	covered := spf.CheckMailFrom(ctx, i.DNS, spf.Args{
		IP: address, Helo: cmp.Or(s.Name, "unknown.invalid"), Sender: spf.Sender{Local: "postmaster", Domain: domain},
		Now: time.Now(), MaxVoids: spf.MaxLookups, NoExplanation: true,
	})
	s.SPF = coverage(domain, covered.Result)
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
