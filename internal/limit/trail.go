package limit

import (
	"hash/maphash"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// Trail remembers the latest networks from which a login has sent, and the domains to
// which it has sent. The zero value is ready for use.
type Trail struct {
	mu    sync.Mutex
	all   map[string]*steps
	order []*steps // a ring once it is full, whose oldest is at next
	next  int
	seed  maphash.Seed
}

// steps are the latest networks and domains of a login, the latest last.
type steps struct {
	login string
	// The latest network, and a hash of the latest domain: usually both are the same
	// again.
	network netip.Prefix
	domain  uint64

	networks []netip.Prefix
	domains  []string
}

const (
	trailLogins = DefaultLogins / 10
	trailSteps  = 8
)

func (t *Trail) note(login string, network netip.Prefix, domain string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.all[login]
	if s == nil {
		s = t.addLogin(login)
	}
	if network.IsValid() && network != s.network {
		s.network = network
		s.networks = latest(s.networks, network)
	}
	if hash := maphash.String(t.seed, domain); domain != "" && hash != s.domain {
		s.domain = hash
		s.domains = latest(s.domains, strings.Clone(domain)) // domain is a part of a whole request
	}
}

// addLogin adds steps for a login. If there are too many logins, it replaces the oldest.
func (t *Trail) addLogin(login string) *steps {
	if t.all == nil {
		t.all, t.seed = make(map[string]*steps), maphash.MakeSeed()
	}
	var s *steps
	if len(t.order) < trailLogins {
		s = new(steps)
		t.order = append(t.order, s)
	} else {
		s = t.order[t.next]
		t.next = (t.next + 1) % trailLogins
		delete(t.all, s.login)
		clear(s.domains)
		*s = steps{networks: s.networks[:0], domains: s.domains[:0]}
	}
	s.login = strings.Clone(login)
	t.all[s.login] = s
	return s
}

// latest moves or adds a value to the end of a short list without duplicates.
func latest[T comparable](list []T, one T) []T {
	if len(list) > 0 && list[len(list)-1] == one {
		return list
	}
	if i := slices.Index(list, one); i >= 0 {
		list = slices.Delete(list, i, i+1)
	} else if len(list) == trailSteps {
		list = slices.Delete(list, 0, 1)
	}
	return append(list, one)
}

// Of returns the latest networks and domains of a normalized login.
func (t *Trail) Of(login string) (networks, domains []string) {
	if t == nil {
		return nil, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.all[login]; s != nil {
		for _, network := range s.networks {
			networks = append(networks, network.String())
		}
		return networks, slices.Clone(s.domains)
	}
	return nil, nil
}
