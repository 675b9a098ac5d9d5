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
	// repeats has a hash of the latest step of logins. Usually a login sends from the same
	// network to the same domain again, and a step that is here is known.
	repeats []repeatSet

	mu    sync.Mutex
	all   map[string]*steps
	order []*steps // a ring once it is full, whose oldest is at next
	next  int
}

// repeatSet has the latest steps of a few logins: of each one a part of its hash, and of
// that of its step. Few sets have more logins than they have room for.
type repeatSet [4]atomic.Uint64

// steps are the latest networks and domains of a login, the latest last.
type steps struct {
	login    string
	networks []netip.Prefix
	domains  []string
}

const (
	trailLogins  = DefaultLogins / 10
	trailSteps   = 8
	trailRepeats = 1 << 14 // sets
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
		t.all, t.seed, t.repeats = make(map[string]*steps), maphash.MakeSeed(), make([]repeatSet, trailRepeats)
	})
	known, loginPart := t.repeatOf(login)
	latest := loginPart | step{login, domain, network}.hash(t.seed)&stepPart
	if known.Load() == latest {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.add(login, network, domain)
	known.Store(latest)
}

// stepPart is the part of a repeat that is of the step.
const stepPart = 1<<32 - 1

// repeatOf returns the place of a login in repeats, and its part there. If its set has no
// room, the login gets the place of another one.
func (t *Trail) repeatOf(login string) (place *atomic.Uint64, loginPart uint64) {
	hash := maphash.String(t.seed, login)
	set := &t.repeats[hash%trailRepeats]
	loginPart = hash &^ stepPart
	place = &set[hash/trailRepeats%uint64(len(set))]
	for i := range set {
		switch known := set[i].Load(); {
		case known&^stepPart == loginPart:
			return &set[i], loginPart
		case known == 0:
			place = &set[i]
		}
	}
	return place, loginPart
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
		if known, loginPart := t.repeatOf(s.login); known.Load()&^stepPart == loginPart {
			known.Store(0)
		}
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
