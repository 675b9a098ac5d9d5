package dnsbl

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Kind is the kind of entries that a zone holds.
type Kind uint8

// The kinds.
const (
	KindAddress Kind = iota
	KindName
)

var kindNames = [...]string{KindAddress: "address", KindName: "name"}

func (k Kind) String() string { return kindNames[k] }

// zone is one zone with its sites. One question serves all of them.
type zone struct {
	public string // its name in results, errors and metrics
	asked  string // its name in questions: may contain the key
	keyed  bool
	kind   Kind
	table  table
	sites  []Site
	tests  SelfTest
	low    int // the most that its answer can take from the score
	high   int // the most that its answer can add to the score

	state    atomic.Pointer[health]
	failures atomic.Int32 // questions without an answer since the last answer
	suspect  atomic.Bool  // it is to be tested soon: it refused shortly after it began to work again, or lists one subject after the other

	tested    chan struct{} // closed when its first self-test has ended
	closeOnce sync.Once
	inRow     atomic.Int32 // listings since it last answered that a subject is not listed
	longRow   atomic.Int32 // the length of a row from which the zone is suspect
}

// newZones groups sites by zone, in their order.
func newZones(sites []Site, kind Kind, key Key) ([]*zone, error) {
	var zones []*zone
	var errs []error
	for _, s := range sites {
		if err := s.Check(kind, key != nil); err != nil {
			errs = append(errs, err)
			continue
		}
		s.Zone = publicName(s.Zone)
		at := slices.IndexFunc(zones, func(z *zone) bool { return z.public == s.Zone })
		if at < 0 {
			at = len(zones)
			zones = append(zones, newZone(s.Zone, kind, key))
		}
		zones[at].addSite(s)
	}
	if len(zones) > maxZones {
		errs = append(errs, fmt.Errorf("%d lists: at most %d are asked", len(zones), maxZones))
	}
	return zones, errors.Join(errs...)
}

func newZone(public string, kind Kind, key Key) *zone {
	z := &zone{public: public, asked: public, kind: kind, table: tableOf(public), tested: make(chan struct{})}
	z.longRow.Store(firstRow)
	z.tests = SelfTest{Listed: z.table.tests}
	if key != nil && isKeyable(public) {
		z.asked, z.keyed = strings.ToLower(key.Reveal())+"."+serviceName(public), true
	}
	z.state.Store(&health{})
	return z
}

func (z *zone) addSite(s Site) {
	z.sites = append(z.sites, s)
	z.low += min(s.Weight, 0)
	z.high += max(s.Weight, 0)
}

// score adds up the weights of the sites that match one of the codes. Each site
// counts once, as in postscreen.
func (z *zone) score(codes []Code) (score int, counted bool) {
	for i := range z.sites {
		if z.sites[i].counts(codes) {
			score += z.sites[i].Weight
			counted = true
		}
	}
	return score, counted
}

// counts reports whether a code counts for a site. A filter selects codes whatever
// they mean, but never a refusal.
func (s *Site) counts(codes []Code) bool {
	return slices.ContainsFunc(codes, func(c Code) bool {
		switch {
		case c.Class == ClassRefused:
			return false
		case s.Filter.isNone():
			return c.Class == ClassListed || c.Class == ClassAllowed
		}
		return s.Filter.Matches(c.Addr)
	})
}

// Check returns an error for a site that cannot work among the lists of a kind,
// with or without a key. The error names the fix and never contains a key.
func (s Site) Check(kind Kind, keyed bool) error {
	name := publicName(s.Zone)
	switch {
	case hidesKey(s.Zone):
		return errors.New("a DQS zone with its key inside: the key would appear in messages; write zen.spamhaus.org or dbl.spamhaus.org, and put the key into a file for --dqs-key-file")
	case name == authZone:
		return fmt.Errorf("%s lists stolen logins: it is for submission, not for mail that comes in; take it out", name)
	case strings.HasSuffix(name, serviceSuffix) && !keyed:
		return fmt.Errorf("%s needs a key: set --dqs-key-file", name)
	case kind == KindAddress && (name == "dbl.spamhaus.org" || name == freshZone):
		return fmt.Errorf("%s lists domains: put it under --dbl", name)
	case kind == KindName && slices.Contains(tableOf("zen.spamhaus.org").zones, name):
		return fmt.Errorf("%s lists addresses: put it under --dnsbl", name)
	case !s.Filter.isNone() && !tableOf(name).canMatch(s.Filter):
		return fmt.Errorf("%s=%s can never match: the codes of this list look like %s", name, s.Filter.text, tableOf(name).example())
	}
	return nil
}

// canMatch reports whether a filter can match the codes of a known list. The last
// octet is not compared, because lists add codes.
func (t table) canMatch(f Filter) bool {
	return len(t.zones) == 0 || f.octets[1].has(0) && slices.ContainsFunc(t.rows, func(r row) bool {
		for third := int(r.third[0]); third <= int(r.third[1]); third++ {
			if r.class != ClassRefused && f.octets[2].has(byte(third)) {
				return true
			}
		}
		return false
	})
}

// example returns a code of a known list, for the error.
func (t table) example() string {
	r := t.rows[len(t.rows)-1]
	return fmt.Sprintf("127.0.%d.%d", r.third[0], r.fourth[0])
}
