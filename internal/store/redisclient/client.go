// Package redisclient connects to Redis or Valkey, for stores that several hosts
// share. It can use a single server, a master that Sentinel watches, or a Cluster.
//
// Each change of a store is one script (script.go), so that it is atomic. Scripts
// that are called at the same time share a round trip (together.go). All keys of a
// store have the same hash tag, so in a Cluster they are on one node and its replicas.
//
// Invariants:
//
//   - Every operation ends within OpTimeout (or Options.Timeout), whatever the servers do.
//   - A server's error is returned with its own text, even if it comes before the
//     first command: a wrong password, or a database that does not exist.
//   - When a master fails, the writes are lost that it has acknowledged but not yet
//     sent to a replica.
package redisclient

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	// OpTimeout bounds one operation, retries included, unless Options have another bound.
	OpTimeout = 1500 * time.Millisecond
	// tries is the part of an operation that a connection may take, or a round trip.
	tries = 3
	// findReserve is what is left of an operation after a connection to a master and the
	// question to a Sentinel where it is, which is asked twice. go-redis keeps to a Sentinel
	// that has not failed when the time for this is over, so it must be long enough for both
	// tries: a host that has died with its Sentinel would otherwise be asked for ever, and
	// the others never.
	findReserve = 200 * time.Millisecond
	maxRetries  = 1
	poolSize    = 64
	idleTime    = 5 * time.Minute
	// clusterReload is the greatest age of the map of a Cluster's slots. A new map
	// shows that a node has died.
	clusterReload = time.Second
)

// Options describe a client.
type Options struct {
	URL      string // see CheckURL
	Password string // "" for none
	// Timeout bounds one operation, retries included; 0 means OpTimeout. Tests need more when
	// the machine is busy.
	Timeout time.Duration
	// ClockStep is called when the server's clock is found to have been set: forward, or
	// back if by is negative. It may be nil.
	ClockStep func(by time.Duration)
	// Lost is called when the server has lost what it kept: what it was told in the latest
	// span of time at least, or with 0 everything. It may be nil.
	Lost func(span time.Duration)
}

// Client is a connection to the servers of one store.
type Client struct {
	Redis redis.UniversalClient
	// Tag is the beginning of all keys of the store.
	Tag string

	timeout time.Duration // of one operation

	calls together
	idle  sync.Pool // of *Call
	clock atomic.Pointer[reading]

	id     string // of this client, for its stamp
	probed atomic.Pointer[probed]

	clockStep func(by time.Duration)
	lost      func(span time.Duration)
}

// Open returns a client. It sends nothing, because a server that is down now may be
// up when the first request comes.
func Open(o Options) (*Client, error) {
	a, err := parseURL(o.URL)
	if err != nil {
		return nil, err
	}
	a.timeout = cmp.Or(o.Timeout, OpTimeout)
	connected, err := a.connect(o.Password)
	if err != nil {
		return nil, err
	}
	c := &Client{Redis: connected, Tag: "{" + a.prefix + "}:", timeout: a.timeout, id: rand.Text(), clockStep: o.ClockStep, lost: o.Lost}
	c.calls.send, c.calls.timeout = c.send, c.timeout
	return c, nil
}

// connect returns the client for the kind of address. It turns off go-redis's own
// output to standard error: the errors contain what matters.
func (a *address) connect(password string) (redis.UniversalClient, error) {
	logging.Disable()
	if _, err := a.tlsConfig(); err != nil {
		return nil, err
	}
	once := a.timeout / tries
	o := redis.UniversalOptions{
		Addrs: a.servers, DB: a.database, Username: a.user, Password: password, Dialer: a.dial,
		MasterName: a.master, IsClusterMode: a.kind == cluster, Protocol: 2,
		DialTimeout: once, ReadTimeout: once, WriteTimeout: once, PoolTimeout: once,
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
	if a.kind == sentinel {
		f := o.Failover()
		f.DialTimeout = a.timeout - findReserve
		return redis.NewFailoverClient(f), nil
	}
	return redis.NewUniversalClient(&o), nil
}

// dial connects to a server. It reads the file of the authority anew, because the
// certificates of an authority are replaced before they expire.
func (a *address) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	plain := &net.Dialer{Timeout: a.timeout / tries}
	config, err := a.tlsConfig()
	if err != nil {
		return nil, err
	}
	if config == nil {
		conn, err := plain.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return newPlainConn(conn), nil
	}
	return (&tls.Dialer{NetDialer: plain, Config: config}).DialContext(ctx, network, addr)
}

// ID returns a text that no other client has. It stays the same until the client is closed.
func (c *Client) ID() string { return c.id }

// Close waits for the calls under way, and closes all connections.
func (c *Client) Close() error {
	c.calls.close()
	return c.Redis.Close()
}

// Do runs an operation with a context that ends after the time for one.
func (c *Client) Do(ctx context.Context, operation func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	return Error(operation(ctx))
}

// Node returns the server that has the keys.
func (c *Client) Node(ctx context.Context) (redis.Cmdable, error) {
	cluster, ok := c.Redis.(*redis.ClusterClient)
	if !ok {
		return c.Redis, nil
	}
	return cluster.MasterForKey(ctx, c.Tag)
}

// Probe sends a command that needs the password, the database and the right to read
// the store's keys. It also reads the server's clock.
func (c *Client) Probe(ctx context.Context) error {
	return c.Do(ctx, func(ctx context.Context) error {
		node, err := c.Node(ctx)
		if err != nil {
			return err
		}
		if err := node.Get(ctx, c.Tag+"probe").Err(); err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		return c.readClock(ctx, node)
	})
}

// Rights are what a user of its own needs, beside the store's keys. Cluster clients ask
// where the keys are.
const Rights = "+@read +@write +@scripting +@connection +time +cluster|slots"

// Error adds context to an error of go-redis. It wraps ErrReadOnly if the server
// answers but does not write.
func Error(err error) error {
	switch {
	case err == nil:
		return nil
	case refusesWrites(err):
		return fmt.Errorf("redis: %w: %w", ErrReadOnly, err)
	case LacksRights(err):
		return fmt.Errorf("redis: the user has too few rights; give it ~{PREFIX}:* %s: %w", Rights, err)
	case isMoving(err):
		return fmt.Errorf("redis: the Cluster is moving the store's keys to another node, wait until it has: %w", err)
	}
	if fix := advice(err); fix != "" {
		return fmt.Errorf("redis: %w; %s", err, fix)
	}
	return fmt.Errorf("redis: %w", err)
}
