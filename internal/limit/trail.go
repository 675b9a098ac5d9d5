package limit

import (
	"hash/maphash"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Trail remembers the latest networks from which a login has sent, and the domains to
// which it has sent. The zero value is ready for use.
type Trail struct {
	start sync.Once
	seed  maphash.Seed
	// repeats has hashes of the latest step of logins, at the place of the login. Usually
	// a login sends from the same network to the same domain again, and a step that is
	// here is known.
	repeats []atomic.Uint64

	mu    sync.Mutex
	all   map[string]*steps
	order []*steps // a ring once it is full, whose oldest is at next
	next  int
}

// steps are the latest networks and domains of a login, the latest last.
type steps struct {
	login    string
	networks []netip.Prefix
	domains  []string
}

const (
	trailLogins  = DefaultLogins / 10
	trailSteps   = 8
	trailRepeats = 1 << 16
)

// step is what is noted with each mail.
type step struct {
	login, domain string
	network       netip.Prefix
}

// hash returns a hash of a step. maphash.Comparable would allocate memory for a prefix,
// which has a pointer.
func (s step) hash(seed maphash.Seed) uint64 {
	return maphash.Comparable(seed, struct {
		login, domain string
		network       [16]byte
		bits          int
	}{s.login, s.domain, s.network.Addr().As16(), s.network.Bits()})
}

func (t *Trail) note(login string, network netip.Prefix, domain string) {
	t.start.Do(func() {
		t.all, t.seed, t.repeats = make(map[string]*steps), maphash.MakeSeed(), make([]atomic.Uint64, trailRepeats)
	})
	hash := step{login, domain, network}.hash(t.seed)
	known := t.repeatsOf(login)
	if known.Load() == hash {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.add(login, network, domain)
	known.Store(hash)
}

// repeatsOf returns the place of a login in repeats. Some logins share one.
func (t *Trail) repeatsOf(login string) *atomic.Uint64 {
	return &t.repeats[maphash.String(t.seed, login)%trailRepeats]
}

func (t *Trail) add(login string, network netip.Prefix, domain string) {
	s := t.all[login]
	if s == nil {
		s = t.addLogin(login)
	}
	if network.IsValid() {
		s.networks = latest(s.networks, network)
	}
	if domain != "" {
		s.domains = latest(s.domains, domain)
		s.domains[len(s.domains)-1] = strings.Clone(domain) // domain is a part of a whole request
	}
}

// addLogin adds steps for a login. If there are too many logins, it replaces the oldest.
func (t *Trail) addLogin(login string) *steps {
	var s *steps
	if len(t.order) < trailLogins {
		s = new(steps)
		t.order = append(t.order, s)
	} else {
		s = t.order[t.next]
		t.next = (t.next + 1) % trailLogins
		delete(t.all, s.login)
		t.repeatsOf(s.login).Store(0)
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
