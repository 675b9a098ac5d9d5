package redisclient

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// reading is what the server's clock showed at a moment of ours.
type reading struct {
	server time.Time
	ours   time.Time // with the monotonic clock
}

// readClock compares the clocks. The answer is taken to be half the way old.
func (c *Client) readClock(ctx context.Context, node redis.Cmdable) error {
	asked := time.Now()
	server, err := node.Time(ctx).Result()
	if err != nil {
		return err
	}
	c.clock.Store(&reading{server, asked.Add(time.Since(asked) / 2)})
	return nil
}

// Now is the time by the server's clock, which all hosts share: a host whose own
// clock is wrong must not spoil what others have written. ok is false until the
// clock has been read by Probe. Steps of our clock do not matter.
func (c *Client) Now() (now time.Time, ok bool) {
	r := c.clock.Load()
	if r == nil {
		return time.Time{}, false
	}
	return r.server.Add(time.Since(r.ours)), true
}
