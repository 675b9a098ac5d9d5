package redisstore

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/internal/store/redisclient"
)

// oldKeep is how long triplets of an older scheme are kept after they were copied,
// for hosts that still run an older release.
const oldKeep = 24 * time.Hour

// Migrate copies triplets of the first scheme to this one, and returns how many it
// copied. One host is enough, but several may run it at once, because copies are
// merged. It does nothing if it has been done before.
func (s *Store) Migrate(ctx context.Context) (copied int, err error) {
	node, err := s.client.Node(ctx)
	if err != nil {
		return 0, failed(redisclient.Error(err))
	}
	var done int
	err = s.client.Do(ctx, func(ctx context.Context) (err error) {
		done, err = s.client.Redis.Get(ctx, s.client.Tag+schemeKey).Int()
		if errors.Is(err, redis.Nil) {
			return nil
		}
		return err
	})
	if err != nil || done >= greylist.Scheme {
		return 0, failed(err)
	}
	err = s.pages(ctx, node, s.client.Tag+firstScheme, func(ids []greylist.ID, keys []string) error {
		n, err := s.copy(ctx, ids, keys)
		copied += n
		return err
	})
	if err != nil {
		return copied, failed(err)
	}
	return copied, failed(s.client.Do(ctx, func(ctx context.Context) error {
		return s.client.Redis.Set(ctx, s.client.Tag+schemeKey, greylist.Scheme, 0).Err()
	}))
}

func (s *Store) copy(ctx context.Context, ids []greylist.ID, keys []string) (int, error) {
	old, err := s.readKeys(ctx, ids, keys)
	if err != nil {
		return 0, err
	}
	entries := make([]greylist.Entry, 0, len(old))
	for _, e := range old {
		entries = append(entries, greylist.Migrate(e))
	}
	if err := s.Put(ctx, entries); err != nil {
		return 0, err
	}
	return len(entries), s.client.Do(ctx, func(ctx context.Context) error {
		_, err := s.client.Redis.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, key := range keys {
				p.Expire(ctx, key, oldKeep)
			}
			return nil
		})
		return err
	})
}
