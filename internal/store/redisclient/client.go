// Package redisclient reaches Redis or Valkey for the stores that hosts share: a
// single server, a master that Sentinel watches, or a Cluster.
//
// One change of a store is one script (script.go), so that it is atomic. Scripts
// that are called at the same time share a round trip (together.go). All keys of
// a store carry one hash tag: in a Cluster they live on one node and its
// replicas.
//
// Invariants:
//
//   - Every operation ends within OpTimeout, whatever the servers do.
//   - A server's error is passed on in its own words, also one that it gives
//     before the first command: a wrong password, a database that is not there.
//   - What a failing master has acknowledged but not handed on is lost.
package redisclient

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	// OpTimeout bounds one operation, retries included.
	OpTimeout   = 1500 * time.Millisecond
	dialTimeout = 500 * time.Millisecond
	ioTimeout   = 500 * time.Millisecond
	maxRetries  = 1
	poolSize    = 64
	idleTime    = 5 * time.Minute
	// clusterReload is how old the map of a Cluster's slots may be: a node that
	// has died without a word is found out by it.
	clusterReload = time.Second
)

// Options describe a client.
type Options struct {
	URL      string // see CheckURL
	Password string // "" for none
}

// Client is a connection to the servers of one store.
type Client struct {
	Redis redis.UniversalClient
	// Tag is what all keys of the store begin with.
	Tag string

	calls together
	idle  sync.Pool // of *Call
	clock atomic.Pointer[reading]
}

// Open makes a client. It sends nothing: a server that is down now may be up
// when it is asked.
func Open(o Options) (*Client, error) {
	a, err := parseURL(o.URL)
	if err != nil {
		return nil, err
	}
	connected, err := a.connect(o.Password)
	if err != nil {
		return nil, err
	}
	c := &Client{Redis: connected, Tag: "{" + a.prefix + "}:"}
	c.calls.send = c.send
	return c, nil
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
func (c *Client) Close() error {
	c.calls.close()
	return c.Redis.Close()
}

// Do runs an operation, which ends within OpTimeout.
func (c *Client) Do(ctx context.Context, operation func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, OpTimeout)
	defer cancel()
	return Error(operation(ctx))
}

// Node is the server that holds the keys.
func (c *Client) Node(ctx context.Context) (redis.Cmdable, error) {
	cluster, ok := c.Redis.(*redis.ClusterClient)
	if !ok {
		return c.Redis, nil
	}
	return cluster.MasterForKey(ctx, c.Tag)
}

// Probe asks the server something that needs the password, the database and the
// right to read the store's keys, and looks at its clock.
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

// Error adds what it is about to an error of go-redis, and ErrReadOnly to one of
// a server that answers but writes nothing.
func Error(err error) error {
	switch {
	case err == nil:
		return nil
	case refusesWrites(err):
		return fmt.Errorf("redis: %w: %w", ErrReadOnly, err)
	}
	return fmt.Errorf("redis: %w", err)
}
