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
// middle of the round trip.
func (c *Client) readClock(ctx context.Context, node redis.Cmdable) error {
	asked := time.Now()
	server, err := node.Time(ctx).Result()
	if err != nil {
		return err
	}
	c.clock.Store(&reading{server, asked.Add(time.Since(asked) / 2)})
	return nil
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
