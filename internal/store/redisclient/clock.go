package redisclient

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// reading is a time of the server's clock, and the same moment on our clock.
type reading struct {
	server time.Time
	ours   time.Time // with the monotonic clock
}

// minStep is the least difference that counts as a step. It is longer than what a round
// trip can hide.
const minStep = 5 * time.Second

// ReadClock reads the server's clock, for Now.
func (c *Client) ReadClock(ctx context.Context) error {
	return c.Do(ctx, func(ctx context.Context) error {
		node, err := c.Node(ctx)
		if err != nil {
			return err
		}
		return c.readClock(ctx, node)
	})
}

// readClock compares the clocks. It assumes that the server read its clock in the
// middle of the round trip. If the server's clock has moved in another way than ours
// since it was read last, it was set, or it is that of another server.
func (c *Client) readClock(ctx context.Context, node redis.Cmdable) error {
	asked := time.Now()
	server, err := node.Time(ctx).Result()
	if err != nil {
		return err
	}
	now := &reading{server, asked.Add(time.Since(asked) / 2)}
	before := c.clock.Load()
	for before == nil || before.ours.Before(now.ours) { // else it was read again meanwhile
		if c.clock.CompareAndSwap(before, now) {
			c.compare(before, now)
			return nil
		}
		before = c.clock.Load()
	}
	return nil
}

// compare reports a step of the server's clock between two readings. before may be nil.
func (c *Client) compare(before, now *reading) {
	if before == nil || c.clockStep == nil {
		return
	}
	if by := now.server.Sub(before.server) - now.ours.Sub(before.ours); by.Abs() >= minStep {
		c.clockStep(by.Round(time.Second))
	}
}

// Now returns the time of the server's clock, which all hosts share. So a host whose
// own clock is wrong does not damage what others have written. ok is false until
// Probe has read the clock. Steps of our own clock do not matter.
func (c *Client) Now() (now time.Time, ok bool) {
	r := c.clock.Load()
	if r == nil {
		return time.Time{}, false
	}
	return r.server.Add(time.Since(r.ours)), true
}
