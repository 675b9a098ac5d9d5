package hosts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postern-mail/postern/internal/store/redisclient"
)

const (
	// grace is how long after the first record of a daemon another one of its name counts as
	// its predecessor: a reload or a restart takes less, and it is less than Every.
	grace = 15 * time.Second
	// sameBoot is how much the computed starts of one machine may differ: the time of a round
	// trip.
	sameBoot = 5 * time.Second
)

// ErrAway marks an error of a server that cannot be asked at all.
var ErrAway = errors.New("the server cannot be asked")

// Shared is what is known about the hosts that share a Redis.
type Shared struct {
	Setting string // that names it
	Hosts   []Host // by name
	// Unreadable is how many records have another form.
	Unreadable int
	Err        error // why they cannot be read; wraps ErrAway if the server cannot be asked
}

// Read reads the records of all hosts that share the Redis of a setting. It changes nothing.
func Read(ctx context.Context, setting string, o redisclient.Options) Shared {
	s := Shared{Setting: setting}
	client, err := redisclient.Open(o)
	if err != nil {
		s.Err = fmt.Errorf("%w: %w", ErrAway, err)
		return s
	}
	defer func() { _ = client.Close() }()
	if err := client.Probe(ctx); err != nil {
		s.Err = fmt.Errorf("%w: %w", ErrAway, err)
		return s
	}
	s.Err = client.Do(ctx, func(ctx context.Context) error {
		node, err := client.Node(ctx)
		if err != nil {
			return err
		}
		values, err := s.values(ctx, node, client.Tag+key(setting))
		if err != nil {
			return err
		}
		now, err := node.Time(ctx).Result()
		s.add(values, now)
		return err
	})
	return s
}

// values returns the values of the hash that are not too long.
func (s *Shared) values(ctx context.Context, node redis.Cmdable, hash string) ([]string, error) {
	n, err := node.HLen(ctx, hash).Result()
	if err != nil || n == 0 {
		return nil, err
	}
	if n > 4*Most {
		return nil, fmt.Errorf("%s has %d fields: something else than Postern writes there; delete it, or give each program a prefix of its own (?prefix=NAME)", hash, n)
	}
	fields, err := node.HKeys(ctx, hash).Result()
	if err != nil {
		return nil, err
	}
	lengths := make([]*redis.IntCmd, len(fields))
	pipe := node.Pipeline()
	for i, field := range fields {
		lengths[i] = pipe.HStrLen(ctx, hash, field)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	short := fields[:0]
	for i, field := range fields {
		if lengths[i].Val() > longest {
			s.Unreadable++
			continue
		}
		short = append(short, field)
	}
	if len(short) == 0 {
		return nil, nil
	}
	found, err := node.HMGet(ctx, hash, short...).Result()
	var values []string
	for _, value := range found {
		if text, ok := value.(string); ok { // else it has gone meanwhile
			values = append(values, text)
		}
	}
	return values, err
}

// add adds the records that count at a time of the server's clock.
func (s *Shared) add(values []string, now time.Time) {
	var all []Host
	for _, value := range values {
		h, err := parse(value)
		if err != nil {
			s.Unreadable++
			continue
		}
		if now.Sub(h.Seen).Abs() <= Keep {
			all = append(all, h)
		}
	}
	for _, h := range all {
		if !slices.ContainsFunc(all, func(next Host) bool { return next.follows(h) }) {
			s.Hosts = append(s.Hosts, h)
		}
	}
	slices.SortFunc(s.Hosts, func(a, b Host) int { return strings.Compare(a.Name, b.Name) })
}

// follows reports whether a daemon has taken the place of an older one: that one has ended,
// or it only serves the sessions that it has.
func (h Host) follows(older Host) bool {
	return h.Name == older.Name && h.Since.After(older.Since) &&
		(older.Seen.Before(h.Since.Add(grace)) || h.Successor && h.SameMachine(older))
}

// SameMachine reports whether two hosts were started at the same moment. Machines of one name
// are told apart by this, because those that were copied from another have its other marks too.
func (h Host) SameMachine(other Host) bool { return h.Booted.Sub(other.Booted).Abs() <= sameBoot }
