// Package resolver asks recursive DNS servers and caches their answers.
//
// The answer to a question (name and type) is taken from the cache, or from the
// same question in flight. Otherwise the question is sent to one of the configured
// servers: one UDP packet from a new socket and port, with a random id and EDNS0
// (1232 bytes), and once more after a quarter of the time-out. After silence, an
// error code or an unreadable answer the next server is asked. A truncated answer
// is asked for again over TCP. The cache keeps an answer for its TTL, within the
// limits of Config, a negative one for the TTL of its SOA record (RFC 2308), and a
// failed lookup for a few seconds (RFC 9520).
//
// Invariants:
//
//   - A lookup has three results: records, a proven absence, or no answer. The last
//     one is always a temporary [net.DNSError].
//   - A packet counts only if its id and its question are those asked; others
//     are ignored, and the wait goes on.
//   - The caller's context ends the caller's wait at once. The question in flight
//     goes on without it, within its own tries: others may wait for it, and the
//     answer goes into the cache.
//   - Cache bytes, questions in flight, records of an answer, links of a CNAME
//     chain, tries and servers are bounded. Nothing is sent, received or
//     waited for while a lock is held.
//   - A server that stays silent costs the questions of that moment one time-out.
//     From then on the other servers are asked. The silent one is tried again with
//     copies of real questions, and no caller waits for these.
//   - When no server answers, not even about the root, questions fail at once until
//     one answers again. Names whose own servers are silent never cause that.
//   - When a server answers over UDP but not over TCP, the large answers of that
//     moment cost one time-out. From then on such answers fail at once.
//   - Strangers who make us ask about silent names cannot block the questions of
//     others: see places.
//   - Every name is absolute. No hosts file and no search list is read, and a name
//     that looks like an address is a name.
package resolver

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net/netip"
	"time"

	"github.com/postern-mail/postern/internal/breaker"
)

// Defaults and limits of [Config].
const (
	DefaultTimeout        = 2 * time.Second
	DefaultCacheBytes     = 16 << 20
	DefaultMinTTL         = time.Second
	DefaultMaxTTL         = time.Hour
	DefaultMaxNegativeTTL = 15 * time.Minute
	DefaultMaxInFlight    = 1024
	DefaultResolvConf     = "/etc/resolv.conf"

	minTries   = 3  // a single lost packet must not fail a lookup
	maxTries   = 16 // bound of Config.Tries
	maxServers = 8  // servers that are used; more are refused
)

// Config holds the servers to ask and the limits. The zero value asks the servers
// of /etc/resolv.conf with the defaults named at each field.
type Config struct {
	// Servers are IP addresses, as host, host:port or [v6]:port (port 53 when
	// not given), at most 8. Empty: the nameserver lines of ResolvConf.
	Servers []string
	// ResolvConf is the file read when Servers is empty ("": DefaultResolvConf).
	ResolvConf string
	// Timeout bounds one try, TCP included (0: DefaultTimeout). Keep it below
	// half of the callers' deadlines, so that a second server has its turn.
	Timeout time.Duration
	// Tries bounds the failed tries of one lookup (0: one more than there are
	// servers, at least 3; at most 16), and with Timeout the time of a question
	// in flight.
	Tries int
	// CacheBytes bounds the memory of the cache (0: DefaultCacheBytes;
	// negative: nothing is kept).
	CacheBytes int64
	// MinTTL and MaxTTL clamp the time that an answer is kept (0: DefaultMinTTL
	// and DefaultMaxTTL; a negative MinTTL: none).
	MinTTL, MaxTTL time.Duration
	// MaxNegativeTTL bounds the time that an absence is kept (0:
	// DefaultMaxNegativeTTL).
	MaxNegativeTTL time.Duration
	// MaxInFlight bounds the questions in flight, and with them goroutines and
	// sockets (0: DefaultMaxInFlight). Further callers wait until their contexts
	// end. Parts of it are the limits for one Asker, for one client network and for
	// one zone.
	MaxInFlight int
	// TrustAD names the networks of servers whose AD bit is trusted. Empty: none,
	// and Answer.AD is never set.
	TrustAD []netip.Prefix
	// Changed is called when no server answers any more, and when one answers
	// again. It may be nil.
	Changed func(breaker.Change)
	// TCPChanged is called when a server does not answer over TCP any more, and
	// when it answers again. It may be nil.
	TCPChanged func(TCPChange)
	// Took is called with the outcome of each question that was sent, and the time
	// of all its tries. It may be nil.
	Took func(outcome string, took time.Duration)
	// Now is the clock of TTLs and of the servers' health (nil: time.Now).
	Now func() time.Time
	// Exchange replaces the sockets (nil: UDP and TCP): it sends one query
	// packet over network "udp" or "tcp" to server and returns the reply
	// without TCP's length prefix, or ctx's error.
	Exchange func(ctx context.Context, server netip.AddrPort, network string, query []byte) ([]byte, error)
}

// Resolver looks up names. It is safe for concurrent use.
type Resolver struct {
	lookups
	timeout  time.Duration
	tries    int
	ttl      ttlBounds
	now      func() time.Time
	took     func(string, time.Duration)
	servers  *pool
	exchange exchangeFunc
	seed     maphash.Seed
	shards   []*shard
	places   *places
	outage   *outage
	stop     context.CancelFunc
	lifetime func() context.Context // ends with Close
	count    counters
}

// New checks c and returns a resolver. It sends nothing. Errors name the
// setting, or file and line, and the fix.
func New(c Config) (*Resolver, error) {
	addrs, err := c.addresses()
	if err != nil {
		return nil, err
	}
	if err := c.setDefaults(len(addrs)); err != nil {
		return nil, err
	}
	lifetime, stop := context.WithCancel(context.Background())
	r := &Resolver{
		timeout:  c.Timeout,
		tries:    c.Tries,
		ttl:      ttlBounds{min: c.MinTTL, max: c.MaxTTL, maxNegative: c.MaxNegativeTTL},
		now:      c.Now,
		took:     c.Took,
		servers:  newPool(addrs, c.TrustAD),
		seed:     maphash.MakeSeed(),
		shards:   newShards(c.CacheBytes),
		places:   newPlaces(c.MaxInFlight, c.Timeout/2),
		outage:   newOutage(c.Now, c.Changed),
		stop:     stop,
		lifetime: func() context.Context { return lifetime },
	}
	for _, s := range r.servers.all {
		s.tcp = newOverTCP(s.name, &c)
	}
	r.lookups = lookups{r}
	r.exchange = newSockets(&r.count.resent).exchange
	if c.Exchange != nil {
		r.exchange = singleReply(c.Exchange)
	}
	return r, nil
}

// Close ends the questions in flight and waits for their goroutines. Later lookups
// fail with ErrClosed. It must be called once.
func (r *Resolver) Close() {
	r.stop()
	r.places.close()
}

// Servers returns the addresses that are asked, for the start-up record.
func (r *Resolver) Servers() []netip.AddrPort {
	var out []netip.AddrPort
	for _, s := range r.servers.all {
		out = append(out, s.addr)
	}
	return out
}

func (c *Config) setDefaults(servers int) error {
	setDefault(&c.Timeout, DefaultTimeout)
	setDefault(&c.Tries, min(max(minTries, servers+1), maxTries))
	setDefault(&c.CacheBytes, DefaultCacheBytes)
	setDefault(&c.MaxTTL, max(DefaultMaxTTL, c.MinTTL))
	setDefault(&c.MinTTL, min(DefaultMinTTL, c.MaxTTL))
	setDefault(&c.MaxNegativeTTL, DefaultMaxNegativeTTL)
	setDefault(&c.MaxInFlight, DefaultMaxInFlight)
	c.MinTTL = max(c.MinTTL, 0)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Took == nil {
		c.Took = func(string, time.Duration) {}
	}
	return c.check()
}

func (c *Config) check() error {
	switch {
	case c.Timeout < 0:
		return fmt.Errorf("resolver: timeout %v is negative", c.Timeout)
	case c.Tries < 0 || c.Tries > maxTries:
		return fmt.Errorf("resolver: tries %d is not within 1 and %d", c.Tries, maxTries)
	case c.MaxTTL < c.MinTTL:
		return fmt.Errorf("resolver: maximum TTL %v is below the minimum TTL %v", c.MaxTTL, c.MinTTL)
	case c.MaxNegativeTTL < 0:
		return fmt.Errorf("resolver: maximum negative TTL %v is negative", c.MaxNegativeTTL)
	case c.MaxInFlight < 0:
		return errors.New("resolver: the bound on questions in flight is negative")
	}
	return nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
