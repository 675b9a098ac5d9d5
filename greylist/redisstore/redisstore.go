// Package redisstore keeps a greylist in Redis or Valkey, where all hosts that
// receive mail share it: a single server, a master that Sentinel watches, or a
// Cluster.
//
// One sighting is one script (seen.go, seen.lua), so that it is atomic.
// Sightings that come at the same time share a round trip (together.go). All
// keys carry one hash tag: in a Cluster they live on one node and its replicas,
// since a sighting touches keys of a network, of a domain and of both. A single
// node takes tens of thousands of sightings a second.
//
// Keys, each with three numbers as its value: {postern}:t:<client sender
// recipient> first, last, passed; {postern}:c:<client> passes, last, manual;
// {postern}:n:<network> start, new triplets, 0.
//
// Invariants:
//
//   - Every operation ends within opTimeout, whatever the servers do.
//   - Times come from the caller. The server's expiry only frees memory, half
//     as long again after Limits would have forgotten an entry.
//   - What a failing master has acknowledged but not handed on is lost: a
//     triplet waits once more, or a credit is missing. Nothing else goes wrong.
package redisstore

import (
	"context"
	_ "embed" // scripts
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/postern-mail/postern/greylist"
)

const (
	// opTimeout bounds one operation, retries included.
	opTimeout   = 1500 * time.Millisecond
	dialTimeout = 500 * time.Millisecond
	ioTimeout   = 500 * time.Millisecond
	maxRetries  = 1
	poolSize    = 64
	idleTime    = 5 * time.Minute
	// clusterReload is how old the map of a Cluster's slots may be: a node that
	// has died without a word is found out by it.
	clusterReload = time.Second
	// defaultKeep is how long clients are kept until SetLimits says better.
	defaultKeep = 70 * 24 * time.Hour
)

//go:embed credit.lua
var creditSource string

//go:embed put.lua
var putSource string

// Options describe a store.
type Options struct {
	URL      string // see CheckURL
	Password string // "" for none
}

// Store implements greylist.Store and greylist.Browser.
type Store struct {
	client      redis.UniversalClient
	tag         string
	credit, put *redis.Script
	sightings   together
	idle        sync.Pool             // of *sighting
	terms       atomic.Pointer[terms] // of the latest sighting
	limits      atomic.Pointer[greylist.Limits]
}

// Open makes a client. It sends nothing: a server that is down now may be up
// when it is asked.
func Open(o Options) (*Store, error) {
	a, err := parseURL(o.URL)
	if err != nil {
		return nil, fmt.Errorf("greylist store: %w", err)
	}
	client, err := a.connect(o.Password)
	if err != nil {
		return nil, fmt.Errorf("greylist store: %w", err)
	}
	s := &Store{
		client: client,
		tag:    "{" + a.prefix + "}:",
		credit: redis.NewScript(creditSource),
		put:    redis.NewScript(putSource),
	}
	s.sightings.send = s.sendSeen
	return s, nil
}

// connect makes the client for the kind of address. go-redis writes to
// standard error of its own accord; what matters of it is in the errors.
func (a *address) connect(password string) (redis.UniversalClient, error) {
	logging.Disable()
	tlsConfig, err := a.tlsConfig()
	if err != nil {
		return nil, err
	}
	o := redis.UniversalOptions{
		Addrs: a.servers, DB: a.database, Username: a.user, Password: password, TLSConfig: tlsConfig,
		MasterName: a.master, IsClusterMode: a.kind == cluster, Protocol: 2,
		DialTimeout: dialTimeout, ReadTimeout: ioTimeout, WriteTimeout: ioTimeout, PoolTimeout: ioTimeout,
		DialerRetries: 1, ContextTimeoutEnabled: true, MaxRetries: maxRetries,
		MinRetryBackoff: 10 * time.Millisecond, MaxRetryBackoff: 50 * time.Millisecond,
		PoolSize: poolSize, ConnMaxIdleTime: idleTime, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if a.sentinelAuth {
		o.SentinelUsername, o.SentinelPassword = a.user, password
	}
	if a.kind == cluster {
		c := o.Cluster()
		c.ClusterStateReloadInterval = clusterReload
		return redis.NewClusterClient(c), nil
	}
	return redis.NewUniversalClient(&o), nil
}

// Close ends all connections, after what is under way.
func (s *Store) Close() error {
	s.sightings.close()
	return s.client.Close()
}

// SetLimits says how long entries that are not written by Seen are kept.
func (s *Store) SetLimits(l greylist.Limits) { s.limits.Store(&l) }

// keep is the expiry of an entry, in milliseconds.
func (s *Store) keep(isClient, passed bool) int64 {
	l := s.limits.Load()
	ttl := defaultKeep
	switch {
	case l == nil:
	case isClient:
		ttl = l.AllowTTL
	case passed:
		ttl = l.PassTTL
	default:
		ttl = l.RetryWindow
	}
	return expiry(ttl)
}

// expiry is how long the server keeps what Limits forget after a time, in
// milliseconds: it is for the server's memory only, so it may be generous.
func expiry(ttl time.Duration) int64 { return max((ttl + ttl/2).Milliseconds(), 1000) }

func (s *Store) key(id greylist.ID) string {
	if id.IsClient() {
		return s.tag + "c:" + string(id)
	}
	return s.tag + "t:" + string(id)
}

var errAnswer = errors.New("redis: an answer has another form: is another release of Postern at work on these keys?")

// three reads a value.
func three(text string) (numbers [3]int64, ok bool) {
	for i := range numbers {
		word, rest, more := strings.Cut(text, " ")
		n, err := strconv.ParseInt(word, 10, 64)
		if err != nil || more != (i < len(numbers)-1) {
			return numbers, false
		}
		numbers[i], text = n, rest
	}
	return numbers, true
}

func triplet(v [3]int64) greylist.Triplet {
	return greylist.Triplet{First: greylist.Stamp(v[0]), Last: greylist.Stamp(v[1]), Passed: greylist.Stamp(v[2])}
}

func client(v [3]int64) greylist.Client {
	return greylist.Client{Passes: int(v[0]), Last: greylist.Stamp(v[1]), Manual: v[2] == 1}
}

// Credit implements greylist.Store.
func (s *Store) Credit(ctx context.Context, client string, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	err := s.credit.Run(ctx, s.client, []string{s.key(greylist.ID(client))},
		int64(greylist.At(now)), s.keep(true, false), greylist.CreditInterval.Milliseconds(), greylist.MaxPasses).Err()
	if err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	return nil
}

// Peek implements greylist.Store.
func (s *Store) Peek(ctx context.Context, k greylist.Key) (greylist.Record, error) {
	ids := []greylist.ID{k.ByNetwork(), k.NetworkClient()}
	if k.Domain != "" {
		ids = append(ids, k.ByDomain())
	}
	if k.Claimed != "" {
		ids = append(ids, k.DomainClient())
	}
	entries, err := s.read(ctx, ids)
	if err != nil {
		return greylist.Record{}, err
	}
	return greylist.Record{
		ByDomain:      entries[k.ByDomain()].Triplet,
		ByNetwork:     entries[k.ByNetwork()].Triplet,
		DomainClient:  entries[k.DomainClient()].Client,
		NetworkClient: entries[k.NetworkClient()].Client,
	}, nil
}
