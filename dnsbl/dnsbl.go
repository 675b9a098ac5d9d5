// Package dnsbl asks DNS lists about an address and some names, and decides whether
// the request is listed.
//
// A list is a DNS zone (RFC 5782). The question for an address is its reversed
// octets or nibbles in front of the zone; the question for a domain is the domain
// in front of it. If the name does not exist, the subject is not listed. A records
// within 127.0.0.0/8 mean listed, and their octets are the reason. A TXT record at
// the same name explains it in words. The weights of all lists are added, and the
// sum is compared with a threshold.
//
// Invariants:
//
//   - A refusal is never a listing. The error codes of a zone, answers outside
//     127.0.0.0/8 and a zone that lists everything or nothing open the zone's
//     breaker. Only a self-test closes it again, or time for a zone that is not
//     tested.
//   - A question has three results: listed, not listed, no answer. A missing answer
//     is an error only when it could change the outcome.
//   - The key of a keyed service leaves this package in DNS questions only. Results
//     and errors have the public name of the zone, and the key is removed from text
//     that comes from outside.
//   - [Lists.Check] starts goroutines and waits for them. [Lists.Run] runs the
//     self-tests. The numbers of zones, names and codes and the length of texts are
//     bounded.
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

// Limits of a [Config] and of one answer.
const (
	maxZones = 32  // of each kind
	maxNames = 8   // names of one request
	maxCodes = 16  // A records of one answer that are read
	maxText  = 512 // bytes of a TXT record
)

// DNS is the part of a resolver that is used; *net.Resolver has these methods. For
// a name or record that does not exist, the error is a *net.DNSError with
// IsNotFound.
type DNS interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupTXT(ctx context.Context, name string) ([]string, error)
}

// Key is the secret of a keyed service. A type that implements it must not print
// the secret.
type Key interface{ Reveal() string }

// Config describes the lists. DNS and at least one site are required.
type Config struct {
	DNS       DNS
	Addresses []Site // lists of addresses
	Names     []Site // lists of domains
	// Threshold is the sum of weights at which a request is listed.
	Threshold int
	// Key moves the Spamhaus zones to their keyed service and adds the list of
	// newly seen domains to it, with weight 0. Nil: the public mirrors.
	Key Key
	// SelfTests are the self-tests of zones that do not follow RFC 5782, by zone
	// name. Names of other zones are ignored.
	SelfTests map[string]SelfTest
	// Signals asks for Abused, FreshHours and scores below the threshold too.
	// Without it, Check returns as soon as the request cannot become listed.
	Signals bool
	// Await makes the first requests wait for the self-tests before a listing counts:
	// a list that was shut down may list everything. It is for a caller of Run.
	Await bool
	// Report is called for every change of the state of a zone, only from the
	// goroutine of Run. It may be nil.
	Report func(Change)
	// Now is the clock of the breakers (nil: time.Now).
	Now func() time.Time
	// Random chooses the random names of self-tests (nil: math/rand/v2).
	Random func() uint64
}

// Lists asks a set of lists. It is safe for concurrent use.
type Lists struct {
	config    Config
	key       scrubber
	memory    resolver.Remembering // nil: DNS has no memory to answer from
	addresses []*zone
	names     []*zone
	wake      chan struct{} // a breaker opened: Run has work
}

// New checks c and groups its sites by zone. It sends nothing. An error names the
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

// zones returns all zones, those of addresses first.
func (l *Lists) zones() []*zone { return slices.Concat(l.addresses, l.names) }
