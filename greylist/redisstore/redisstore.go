// Package redisstore keeps a greylist in Redis or Valkey, where all hosts that
// receive mail share it.
//
// Each sighting is one call of a script (seen.go, seen.lua), which
// internal/store/redisclient sends to the server. A sighting uses keys of a network,
// of a domain and of both. A single node handles tens of thousands of sightings a
// second.
//
// The value of each key is three numbers:
//
//   - {postern}:t2:<client sender recipient>: first, last, passed. After the t is
//     greylist.Scheme (nothing for the first scheme).
//   - {postern}:c:<client>: passes, last, manual.
//   - {postern}:n:<network>: start, new triplets, 0.
//
// {postern}:scheme is the scheme to which all entries have been converted.
//
// Invariants:
//
//   - Times are those of the server's clock, which all hosts share.
//   - The server's expiry only frees memory. The server keeps an entry half as long
//     again as Limits do.
//   - When a master fails, the writes are lost that it has acknowledged but not yet
//     sent to a replica. Then a triplet waits once more, or a credit is missing.
//     Nothing else goes wrong.
package redisstore

import (
	"context"
	_ "embed" // scripts
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/internal/store/redisclient"
)

// The kinds of keys, see the package comment.
const (
	clientKind  = "c:"
	windowKind  = "n:"
	schemeKey   = "scheme"
	firstScheme = "t:" // the kind of a triplet in greylist.Scheme 1
)

var tripletKind = "t" + strconv.Itoa(greylist.Scheme) + ":"

// defaultKeep is how long clients are kept before SetLimits was called.
const defaultKeep = 70 * 24 * time.Hour

//go:embed credit.lua
var creditSource string

//go:embed put.lua
var putSource string

// Options describe a store.
type Options struct {
	URL      string        // see redisclient.CheckURL
	Password string        // "" for none
	Timeout  time.Duration // of an operation, see redisclient.Options
	// CallerClock makes the store use the times that callers pass, not the server's
	// clock.
	CallerClock bool
	// ClockStep is called when the server's clock was set, see redisclient.Options.
	ClockStep func(by time.Duration)
	// Lost is called when the server has lost what it kept, see redisclient.Options.
	Lost func(span time.Duration)
}

// Store implements greylist.Store and greylist.Browser.
type Store struct {
	client      *redisclient.Client
	credit, put *redis.Script
	terms       atomic.Pointer[terms] // of the latest sighting
	limits      atomic.Pointer[greylist.Limits]
	callerClock bool
}

// Open returns a store. It sends nothing, because a server that is down now may be
// up when the first request comes.
func Open(o Options) (*Store, error) {
	client, err := redisclient.Open(redisclient.Options{URL: o.URL, Password: o.Password, Timeout: o.Timeout, ClockStep: o.ClockStep, Lost: o.Lost})
	if err != nil {
		return nil, fmt.Errorf("greylist store: %w", err)
	}
	return &Store{
		client: client, credit: redis.NewScript(creditSource), put: redis.NewScript(putSource),
		callerClock: o.CallerClock,
	}, nil
}

// Client returns the connection to the servers.
func (s *Store) Client() *redisclient.Client { return s.client }

// Close waits for the requests under way, and closes all connections.
func (s *Store) Close() error { return s.client.Close() }

// Probe returns an error if the server cannot be used, or does not write.
func (s *Store) Probe(ctx context.Context) error { return failed(s.client.ProbeWrites(ctx)) }

// SetLimits sets how long entries that are not written by Seen are kept.
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

// expiry returns how long the server keeps an entry that Limits forget after ttl, in
// milliseconds. It is longer than needed, because it only frees the server's memory.
func expiry(ttl time.Duration) int64 { return max((ttl + ttl/2).Milliseconds(), 1000) }

func (s *Store) key(id greylist.ID) string {
	if id.IsClient() {
		return s.client.Tag + clientKind + string(id)
	}
	return s.client.Tag + tripletKind + string(id)
}

// three parses a value.
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
	at, err := s.now(ctx, now)
	if err != nil {
		return err
	}
	return failed(s.client.Do(ctx, func(ctx context.Context) error {
		return s.credit.Run(ctx, s.client.Redis, []string{s.key(greylist.ID(client))},
			int64(greylist.At(at)), s.keep(true, false), greylist.CreditInterval.Milliseconds(), greylist.MaxPasses).Err()
	}))
}

// failed wraps greylist.ErrFull when the server does not write, and ErrDenied when it
// refuses the password or has no such database.
func failed(err error) error {
	switch {
	case errors.Is(err, redisclient.ErrReadOnly):
		return fmt.Errorf("%w: %w", greylist.ErrFull, err)
	case redisclient.IsDenied(err):
		return fmt.Errorf("%w: %w", greylist.ErrDenied, err)
	}
	return err
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
		return greylist.Record{}, failed(err)
	}
	at := greylist.Stamp(0)
	if now, ok := s.client.Now(); ok && !s.callerClock {
		at = greylist.At(now)
	}
	return greylist.Record{
		At:            at,
		ByDomain:      entries[k.ByDomain()].Triplet,
		ByNetwork:     entries[k.ByNetwork()].Triplet,
		DomainClient:  entries[k.DomainClient()].Client,
		NetworkClient: entries[k.NetworkClient()].Client,
	}, nil
}
