package redisclient

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// ServerState is what Look has found out about a server.
type ServerState struct {
	Version string // for people: its name and version, such as "redis 7.0.15"
	// Evicts is the maxmemory-policy by which the server removes keys when its memory is
	// full, "" if it removes none, or if that is not known.
	Evicts  string
	Full    bool          // its memory is full, and it removes nothing
	Latency time.Duration // of one question
}

// versionDenied is the version of a server that our user may not ask for it.
const versionDenied = "a server whose version its user may not ask for (+info)"

// Look asks the server of a URL. It changes nothing.
func Look(ctx context.Context, o Options) (s ServerState, err error) {
	c, err := Open(o)
	if err != nil {
		return s, err
	}
	defer func() { _ = c.Close() }()
	if s, err = c.state(ctx); err != nil {
		return s, err
	}
	began := time.Now() // over a connection that is open
	err = c.Probe(ctx)
	s.Latency = time.Since(began)
	return s, err
}

func (c *Client) state(ctx context.Context) (s ServerState, err error) {
	err = c.Do(ctx, func(ctx context.Context) error {
		node, err := c.Node(ctx)
		if err != nil {
			return err
		}
		info, err := node.Info(ctx).Result()
		if redis.HasErrorPrefix(err, "NOPERM") {
			s.Version = versionDenied
			return nil
		}
		s.Version, s.Evicts = versionOf(info), evictsOf(info)
		s.Full = s.Evicts == "" && isFull(info)
		return err
	})
	return s, err
}

// versionOf parses the answer to INFO. The answer of Valkey also has the version of
// Redis with which it is compatible.
func versionOf(info string) string {
	if version := fieldOf(info, "valkey_version"); version != "" {
		return "valkey " + version
	}
	if version := fieldOf(info, "redis_version"); version != "" {
		return "redis " + version
	}
	return ""
}

// evictsOf returns by which policy a server removes keys, or "".
func evictsOf(info string) string {
	policy := fieldOf(info, "maxmemory_policy")
	if policy == "noeviction" || fieldOf(info, "maxmemory") == "0" {
		return ""
	}
	return policy
}

// isFull reports whether a server uses all the memory that it may.
func isFull(info string) bool {
	most, _ := strconv.ParseInt(fieldOf(info, "maxmemory"), 10, 64)
	used, _ := strconv.ParseInt(fieldOf(info, "used_memory"), 10, 64)
	return most > 0 && used >= most
}

// fieldOf returns a field of an answer to INFO, or "".
func fieldOf(info, name string) string {
	for line := range strings.Lines(info) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && key == name {
			return value
		}
	}
	return ""
}
