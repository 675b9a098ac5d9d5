// Package dnsbl answers: what do the DNS lists say about this address and these
// names?
//
// A list is a DNS zone (RFC 5782). An address is asked as its reversed octets
// or nibbles in front of the zone, a domain as it is. No such name means not
// listed; A records within 127.0.0.0/8 mean listed, and their octets say why; a
// TXT record at the same name tells it in words. The scores of all lists are
// added, and the sum is compared with a threshold.
//
// Invariants:
//
//   - A refusal is never a listing. The error codes of the zones, answers
//     outside 127.0.0.0/8 and zones that list everything or nothing open the
//     zone's breaker, and only a self-test closes it again.
//   - A list has three answers: listed, not listed, could not tell. What could
//     not be told becomes an error only where it could change the outcome.
//   - The key of a keyed service leaves this package in DNS questions alone. In
//     every result and error has the zone's public name, and text that comes
//     from outside is searched for the key.
//   - [Lists.Check] starts goroutines and waits for them; the self-tests belong
//     to [Lists.Run]. Zones, names, codes and texts are bounded.
package dnsbl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/postern-mail/postern/internal/resolver"
)

// Bounds of a [Config] and of what is kept of an answer.
const (
	maxZones = 32  // of each kind
	maxNames = 8   // names of one request
	maxCodes = 16  // A records of one answer that are looked at
	maxText  = 512 // bytes of a TXT record
)

// DNS is what is used of a resolver; *net.Resolver has it. An absent name or
// record is a *net.DNSError with IsNotFound.
type DNS interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupTXT(ctx context.Context, name string) ([]string, error)
}

// Key is the secret of a keyed service. It must print as something else.
type Key interface{ Reveal() string }

// Config describes the lists. DNS and at least one site are required.
type Config struct {
	DNS       DNS
	Addresses []Site // lists of addresses
	Names     []Site // lists of domains
	// Threshold is the sum of weights from which on a request is listed.
	Threshold int
	// Key moves the Spamhaus zones to their keyed service and adds the list of
	// newly seen domains to it, with weight 0. Nil: the public mirrors.
	Key Key
	// SelfTests say how zones are tested of which more is known than what RFC 5782
	// asks, by their names. Those of other zones are not used.
	SelfTests map[string]SelfTest
	// Signals says that marks and scores below the threshold are wanted too:
	// without it, a request is settled as soon as it cannot become listed.
	Signals bool
	// Report hears of every change of a zone's state, from Run's goroutine
	// alone. Nil drops it.
	Report func(Change)
	// Now is the clock of the breakers (nil: time.Now).
	Now func() time.Time
	// Random picks the names that a self-test invents (nil: math/rand/v2).
	Random func() uint64
}

// Lists asks a set of lists. It is safe for concurrent use.
type Lists struct {
	config    Config
	key       scrubber
	memory    resolver.Remembering // nil: DNS remembers nothing that could be had at once
	addresses []*zone
	names     []*zone
	wake      chan struct{} // a breaker opened: Run has work
}

// New checks c and groups its sites by zone. It sends nothing. Errors name the
// site and the fix.
func New(c Config) (*Lists, error) {
	if c.Threshold < 1 {
		return nil, fmt.Errorf("dnsbl: threshold %d: at least 1, or every client is listed", c.Threshold)
	}
	c.setDefaults()
	l := &Lists{config: c, wake: make(chan struct{}, 1)}
	l.memory, _ = c.DNS.(resolver.Remembering)
	if c.Key != nil {
		if err := CheckKey(c.Key); err != nil {
			return nil, err
		}
		l.key = newScrubber(c.Key.Reveal())
		c.Names = withFresh(c.Names)
	}
	var err4, errName error
	l.addresses, err4 = newZones(c.Addresses, KindAddress, c.Key)
	l.names, errName = newZones(c.Names, KindName, c.Key)
	l.setSelfTests()
	return l, errors.Join(err4, errName)
}

func (c *Config) setDefaults() {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Report == nil {
		c.Report = func(Change) {}
	}
	if c.Random == nil {
		c.Random = randomNumber
	}
}

// zones are all zones, those of addresses first.
func (l *Lists) zones() []*zone { return slices.Concat(l.addresses, l.names) }
