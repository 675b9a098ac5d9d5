package reportread

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// Bounds of a summary, beside the bound of its sources.
const (
	maxReasons = 20 // of one source: why its mail failed, and the domains in its From fields
	maxNames   = 200
	maxDomains = 10_000
	maxSum     = math.MaxInt64 / 4 // two of them can be added
)

// Summary is the summary of many reports.
type Summary struct {
	Reports    int          `json:"reports"`
	Duplicates int          `json:"duplicates"`
	Rows       int          `json:"rows"`
	Unusable   int          `json:"unusable_rows,omitempty"`
	Domains    []*Domain    `json:"domains"`
	TLS        []*TLSDomain `json:"tls,omitempty"`
}

// Counts counts mails by their results.
type Counts struct {
	Messages    int64 `json:"messages"`
	Passed      int64 `json:"passed"`      // DMARC
	DKIM        int64 `json:"dkim_passed"` // aligned and passed
	SPFPassed   int64 `json:"spf_passed"`
	Quarantined int64 `json:"quarantined"`
	Rejected    int64 `json:"rejected"`
}

// Failed returns how many mails did not pass.
func (c *Counts) Failed() int64 { return c.Messages - c.Passed }

// plus adds two counts. Counts in forged reports can be so large that a sum must have a
// bound.
func plus(a, b int64) int64 { return min(a+b, maxSum) }

func (c *Counts) addGroup(g Group) {
	c.Messages = plus(c.Messages, g.Messages)
	for _, one := range []struct {
		of *int64
		is bool
	}{{&c.Passed, g.Passed()}, {&c.DKIM, g.DKIM}, {&c.SPFPassed, g.SPF}, {&c.Quarantined, g.Disposition == "quarantine"}, {&c.Rejected, g.Disposition == "reject"}} {
		if one.is {
			*one.of = plus(*one.of, g.Messages)
		}
	}
}

// Domain is what was reported about the mail of one domain, the domain of the policy.
type Domain struct {
	Domain    string    `json:"domain"`
	Policy    string    `json:"policy"` // of the latest report
	Begin     time.Time `json:"begin"`
	End       time.Time `json:"end"`
	Reports   int       `json:"reports"`
	Reporters []Count   `json:"reporters"`
	Counts
	Days    []*Day    `json:"days"`
	Sources []*Source `json:"sources"` // the largest first

	days      map[time.Time]*Day
	sources   map[netip.Addr]*Source
	reporters counted
}

// Count is a text with the number of mails to which it applies.
type Count struct {
	Text     string `json:"text"`
	Messages int64  `json:"messages"`
}

// Day is one UTC day.
type Day struct {
	Day string `json:"day"` // 2026-11-26
	Counts
}

// Source is a host that sent mail in the name of a domain.
type Source struct {
	Address string `json:"address"`        // "" for all sources beyond the bound together
	Hosts   int    `json:"hosts"`          // more than 1 if hosts of one sender are counted together
	Name    string `json:"name,omitempty"` // its reverse name
	// Confirmed means that the name resolves to the address. Other names are only
	// claims.
	Confirmed bool   `json:"confirmed,omitempty"`
	SPF       string `json:"spf,omitempty"` // the part of the domain's SPF record that covers it
	// Lookup is why the DNS has not told all of this, see [LookupFailed].
	Lookup string `json:"lookup,omitempty"`
	Counts
	From  []Count `json:"from"` // domains of the From field
	Why   []Count `json:"why"`  // what failed and why
	First string  `json:"first"`
	Last  string  `json:"last"`

	from, why counted
	reports   int // that name it
	latest    int // of them, by its number
}

// counted counts texts. Texts beyond the bound are counted together.
type counted struct {
	of   []Count
	most int
}

const others = "others"

func (c *counted) add(text string, n int64) {
	at := c.find(text)
	if at < 0 && len(c.of) >= c.most {
		text = others
		at = c.find(text)
	}
	if at < 0 {
		c.of = append(c.of, Count{Text: text})
		at = len(c.of) - 1
	}
	c.of[at].Messages = plus(c.of[at].Messages, n)
}

func (c *counted) find(text string) int {
	return slices.IndexFunc(c.of, func(one Count) bool { return one.Text == text })
}

// list returns the counts, the greatest first.
func (c *counted) list() []Count {
	slices.SortFunc(c.of, func(a, b Count) int { return cmp.Or(cmp.Compare(b.Messages, a.Messages), cmp.Compare(a.Text, b.Text)) })
	return slices.Clone(c.of)
}

// Tally adds up reports.
type Tally struct {
	Limits Limits
	// Of, if set, is the only domain that is counted, and Since the first day.
	Of    string
	Since time.Time
	// NoTLS leaves out the TLS reports of a store.
	NoTLS bool

	summary Summary
	seen    map[key]bool
	domains map[string]*Domain
	sources int
	texts   int // octets of the texts that are kept
	// The current report may add so many sources, and so many octets of texts.
	room, textRoom int

	tls map[string]*TLSDomain
}

// Only sets the only domain that is counted.
func (t *Tally) Only(domain string) (err error) {
	t.Of, err = mailaddr.ParseDomain(domain)
	return err
}

// key is equal for copies of a report.
type key [16]byte

// keyOf returns the key of a report. As in the standards, it depends on the reporter, the
// identifier, the domain and the time span.
func keyOf(kind, org, id, domain string, begin, end time.Time) key {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %d %d", kind, org, id, domain, begin.Unix(), end.Unix()))
	return key(sum[:16])
}

// key returns the key of the report.
func (r *Report) key() key {
	return keyOf("dmarc", r.Org, r.ID, r.Policy.Domain, r.Begin, r.End)
}

// isNew reports whether a report was not counted before.
func (t *Tally) isNew(k key) bool {
	if t.seen == nil {
		t.seen, t.domains, t.tls = make(map[key]bool), make(map[string]*Domain), make(map[string]*TLSDomain)
		t.Limits = t.Limits.withDefaults()
	}
	if t.seen[k] {
		t.summary.Duplicates++
		return false
	}
	t.seen[k] = true
	return true
}

// wants reports whether a report is about the domain and days to count.
func (t *Tally) wants(domain string, day time.Time) bool {
	return (t.Of == "" || t.Of == domain) && !day.Before(t.Since)
}

// Add counts a report.
func (t *Tally) Add(r *Report) {
	if !t.wants(r.Policy.Domain, r.Day()) || !t.isNew(r.key()) {
		return
	}
	t.summary.Reports++
	t.summary.Rows += r.Rows
	t.summary.Unusable += r.Unusable
	d := t.domain(r)
	d.Reports++
	d.reporters.add(r.Org, r.Messages)
	day := d.day(r.Day())
	t.makeRoom()
	for _, g := range r.Groups {
		d.Counts.addGroup(g)
		day.Counts.addGroup(g)
		s := t.source(d, g.Source)
		s.Counts.addGroup(g)
		t.addText(&s.from, g.From, g.Messages)
		if g.Why != "" {
			t.addText(&s.why, g.Why, g.Messages)
		}
		s.spans(day.Day, day.Day)
		if s.latest != t.summary.Reports {
			s.reports, s.latest = s.reports+1, t.summary.Reports
		}
	}
}

// makeRoom sets what the next report may use of the room for sources and texts: a quarter
// of what is free. Anyone can send reports, and one forged report must not use up all.
func (t *Tally) makeRoom() {
	share := func(free, least int) int { return max(free/4, min(free, least)) }
	t.room = share(t.Limits.Groups-t.sources, 100)
	t.textRoom = share(int(t.Limits.Texts)-t.texts, 64<<10)
}

// addText counts a text. One for which there is no room counts with others.
func (t *Tally) addText(c *counted, text string, n int64) {
	if c.find(text) < 0 && (len(c.of) >= c.most || !t.fits(len(text))) {
		text = others
	}
	c.add(text, n)
}

// fits takes room for a text. It reports whether there was room.
func (t *Tally) fits(octets int) bool {
	if octets > t.textRoom {
		return false
	}
	t.textRoom, t.texts = t.textRoom-octets, t.texts+octets
	return true
}

func (t *Tally) domain(r *Report) *Domain {
	name := r.Policy.Domain
	d := t.domains[name]
	if d == nil && len(t.domains) >= maxDomains {
		name = others
		d = t.domains[name]
	}
	if d == nil {
		d = &Domain{Domain: name, Begin: r.Begin, days: map[time.Time]*Day{}, sources: map[netip.Addr]*Source{}, reporters: counted{most: maxNames}}
		t.domains[name] = d
	}
	if r.Begin.Before(d.Begin) {
		d.Begin = r.Begin
	}
	if r.End.After(d.End) {
		d.End, d.Policy = r.End, r.Policy.String()
	}
	return d
}

// String returns a policy in the form of its record.
func (p Policy) String() string {
	text := "p=" + cmp.Or(p.P, "none")
	for _, tag := range []struct{ name, value, usual string }{
		{"sp", p.SP, p.P}, {"np", p.NP, cmp.Or(p.SP, p.P)}, {"adkim", p.ADKIM, "r"}, {"aspf", p.ASPF, "r"}, {"pct", p.Percent, "100"}, {"t", p.Testing, "n"},
	} {
		if tag.value != "" && tag.value != tag.usual {
			text += "; " + tag.name + "=" + tag.value
		}
	}
	return text
}

// maxDays bounds the days of one domain.
const maxDays = 4000

func (d *Domain) day(at time.Time) *Day {
	if d.days[at] == nil {
		if len(d.days) >= maxDays {
			at = time.Time{}
		}
		if d.days[at] == nil {
			d.days[at] = &Day{Day: at.Format(time.DateOnly)}
		}
	}
	return d.days[at]
}

func (t *Tally) source(d *Domain, address netip.Addr) *Source {
	s := d.sources[address]
	if s == nil && address.IsValid() && t.room == 0 {
		address = netip.Addr{}
		s = d.sources[address]
	}
	if s == nil {
		s = &Source{Hosts: 1, from: counted{most: maxReasons}, why: counted{most: maxReasons}}
		if address.IsValid() {
			s.Address = address.String()
			t.sources++
			t.room--
		}
		d.sources[address] = s
	}
	return s
}

func (s *Source) spans(first, last string) {
	if s.First == "" || first < s.First {
		s.First = first
	}
	s.Last = max(s.Last, last)
}

// Summary returns what was counted: domains with their sources, ordered by the number of
// mails.
func (t *Tally) Summary() *Summary {
	s := &t.summary
	s.Domains = slices.SortedFunc(maps.Values(t.domains), func(a, b *Domain) int {
		return cmp.Or(cmp.Compare(b.Messages, a.Messages), cmp.Compare(a.Domain, b.Domain))
	})
	for _, d := range s.Domains {
		d.settle()
	}
	s.TLS = slices.SortedFunc(maps.Values(t.tls), func(a, b *TLSDomain) int {
		return cmp.Or(cmp.Compare(b.Successful+b.Failed, a.Successful+a.Failed), cmp.Compare(a.Domain, b.Domain))
	})
	for _, d := range s.TLS {
		d.settle()
	}
	return s
}

func (d *Domain) settle() {
	d.Reporters = d.reporters.list()
	d.Days = slices.SortedFunc(maps.Values(d.days), func(a, b *Day) int { return cmp.Compare(a.Day, b.Day) })
	d.Sources = slices.SortedFunc(maps.Values(d.sources), compareSources)
	for _, s := range d.Sources {
		s.From, s.Why = s.from.list(), s.why.list()
	}
}

func compareSources(a, b *Source) int {
	return cmp.Or(cmp.Compare(b.Messages, a.Messages), cmp.Compare(b.Failed(), a.Failed()), cmp.Compare(a.Address, b.Address))
}
