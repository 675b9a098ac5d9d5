package redisstore

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/postern-mail/postern/internal/limit"
	"github.com/postern-mail/postern/internal/store/redisclient"
)

// SetBlock implements limit.Store. The block begins now on the server's clock.
func (s *Store) SetBlock(ctx context.Context, b limit.Block, lift bool) error {
	if lift {
		return failed(s.client.Do(ctx, func(ctx context.Context) error {
			return s.client.Redis.HDel(ctx, s.blocksKey(), b.Login).Err()
		}))
	}
	since, until := b.Stored()
	lasts, now := int64(0), int64(0)
	if until != 0 {
		lasts = max(until-since, 1)
	}
	if s.o.CallerClock {
		now = since
	}
	call := s.client.NewCall(s.block)
	call.Key(s.blocksKey())
	call.Keys()
	call.Arg(b.Login)
	for _, n := range []int64{lasts, now, limit.MaxBlocks} {
		call.Arg(strconv.FormatInt(n, 10))
	}
	value, err := s.client.Ask(ctx, call)
	switch set, ok := value.(int64); {
	case err != nil:
		return failed(err)
	case !ok:
		return redisclient.ErrAnswer
	case set == 0:
		return limit.ErrFull
	}
	return nil
}

// Blocks implements limit.Store.
func (s *Store) Blocks(ctx context.Context) ([]limit.Block, error) {
	if _, known := s.client.Now(); !known && !s.o.CallerClock {
		if err := s.client.ReadClock(ctx); err != nil {
			return nil, failed(err)
		}
	}
	var all map[string]string
	err := s.client.Do(ctx, func(ctx context.Context) (err error) {
		all, err = s.client.Redis.HGetAll(ctx, s.blocksKey()).Result()
		return err
	})
	if err != nil {
		return nil, failed(err)
	}
	now := time.Now()
	var blocks []limit.Block
	for login, text := range all {
		var since, until int64
		if _, err := fmt.Sscanf(text, "%d %d", &since, &until); err != nil || len(blocks) >= limit.MaxBlocks {
			continue
		}
		if b := s.blockOf(login, since, until); s.o.CallerClock || b.Active(now) {
			blocks = append(blocks, b)
		}
	}
	return blocks, nil
}

func (s *Store) blocksKey() string { return s.client.Tag + "lb" }

// blockOf returns a block from times of the server's clock, with times of ours: a host
// whose clock is wrong must not lift a block early.
func (s *Store) blockOf(login string, since, until limit.Millis) limit.Block {
	b := limit.BlockOf(login, since, until)
	server, ok := s.client.Now()
	if s.o.CallerClock || !ok {
		return b
	}
	ours := time.Now() // with the monotonic clock
	b.Since = ours.Add(b.Since.Sub(server))
	if until != 0 {
		b.Until = ours.Add(b.Until.Sub(server))
	}
	return b
}
