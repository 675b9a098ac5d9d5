package redisstore

import (
	"context"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/internal/store/redisclient"
)

// batch is how many entries go into one round trip.
const batch = 500

// read fetches entries in one round trip. The result omits those that do not exist.
func (s *Store) read(ctx context.Context, ids []greylist.ID) (map[greylist.ID]greylist.Entry, error) {
	return s.readKeys(ctx, ids, s.keys(ids))
}

// readKeys does the same for keys of any scheme.
func (s *Store) readKeys(ctx context.Context, ids []greylist.ID, keys []string) (map[greylist.ID]greylist.Entry, error) {
	var values []any
	err := s.client.Do(ctx, func(ctx context.Context) (err error) {
		values, err = s.client.Redis.MGet(ctx, keys...).Result()
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(values) != len(ids) {
		return nil, redisclient.ErrAnswer
	}
	entries := make(map[greylist.ID]greylist.Entry, len(ids))
	for i, id := range ids {
		text, found := values[i].(string)
		if !found {
			continue
		}
		numbers, ok := three(text)
		if !ok {
			return nil, redisclient.ErrAnswer
		}
		e := greylist.Entry{ID: id}
		if id.IsClient() {
			e.Client = client(numbers)
		} else {
			e.Triplet = triplet(numbers)
		}
		entries[id] = e
	}
	return entries, nil
}

// Walk implements greylist.Browser. An entry may come twice while the server
// resizes its table.
func (s *Store) Walk(ctx context.Context, yield func(greylist.Entry) error) error {
	node, err := s.client.Node(ctx)
	if err != nil {
		return redisclient.Error(err)
	}
	for _, kind := range []string{tripletKind, clientKind} {
		if err := s.walk(ctx, node, s.client.Tag+kind, yield); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) walk(ctx context.Context, node redis.Cmdable, prefix string, yield func(greylist.Entry) error) error {
	return s.pages(ctx, node, prefix, func(ids []greylist.ID, _ []string) error { return s.yield(ctx, ids, yield) })
}

// pages calls f for the keys that begin with a prefix, some at a time.
func (s *Store) pages(ctx context.Context, node redis.Cmdable, prefix string, f func(ids []greylist.ID, keys []string) error) error {
	for cursor := uint64(0); ; {
		keys, next, err := s.scan(ctx, node, cursor, prefix+"*")
		if err != nil {
			return err
		}
		ids := make([]greylist.ID, len(keys))
		for i, key := range keys {
			ids[i] = greylist.ID(strings.TrimPrefix(key, prefix))
		}
		if len(ids) > 0 {
			if err := f(ids, keys); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

func (s *Store) scan(ctx context.Context, node redis.Cmdable, cursor uint64, pattern string) (keys []string, next uint64, err error) {
	err = s.client.Do(ctx, func(ctx context.Context) (err error) {
		keys, next, err = node.Scan(ctx, cursor, pattern, batch).Result()
		return err
	})
	return keys, next, err
}

func (s *Store) yield(ctx context.Context, ids []greylist.ID, yield func(greylist.Entry) error) error {
	entries, err := s.read(ctx, ids)
	if err != nil {
		return err
	}
	for _, id := range ids {
		e, ok := entries[id]
		if !ok { // it has expired meanwhile
			continue
		}
		if err := yield(e); err != nil {
			return err
		}
	}
	return nil
}

// Put implements greylist.Browser.
func (s *Store) Put(ctx context.Context, entries []greylist.Entry) error {
	return inBatches(entries, func(some []greylist.Entry) error {
		return s.client.Do(ctx, func(ctx context.Context) error {
			err := s.putBatch(ctx, some)
			if redis.HasErrorPrefix(err, "NOSCRIPT") {
				if err = s.put.Load(ctx, s.client.Redis).Err(); err == nil {
					err = s.putBatch(ctx, some)
				}
			}
			return err
		})
	})
}

func (s *Store) putBatch(ctx context.Context, entries []greylist.Entry) error {
	_, err := s.client.Redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, e := range entries {
			if e.ID.IsClient() {
				s.put.EvalSha(ctx, p, []string{s.key(e.ID)}, "c", e.Client.Passes, int64(e.Client.Last), e.Client.Manual, s.keep(true, false))
			} else {
				t := e.Triplet
				s.put.EvalSha(ctx, p, []string{s.key(e.ID)}, "t", int64(t.First), int64(t.Last), int64(t.Passed), s.keep(false, t.Passed != 0))
			}
		}
		return nil
	})
	return err
}

// Delete implements greylist.Browser.
func (s *Store) Delete(ctx context.Context, ids []greylist.ID) (int, error) {
	n := 0
	err := inBatches(ids, func(some []greylist.ID) error {
		return s.client.Do(ctx, func(ctx context.Context) error {
			deleted, err := s.client.Redis.Del(ctx, s.keys(some)...).Result()
			n += int(deleted)
			return err
		})
	})
	return n, err
}

func (s *Store) keys(ids []greylist.ID) []string {
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = s.key(id)
	}
	return keys
}

func inBatches[T any](all []T, f func([]T) error) error {
	for len(all) > 0 {
		some := all[:min(batch, len(all))]
		all = all[len(some):]
		if err := f(some); err != nil {
			return err
		}
	}
	return nil
}
