package status

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// cache keeps the last answer to a question that may read files and ask stores. Readers
// do not wait while the question is asked again.
type cache[T any] struct {
	every   time.Duration // the age from which the question is asked again
	timeout time.Duration
	wait    time.Duration // how long the first reader waits for the first answer

	mu     sync.Mutex
	answer T
	at     time.Time
	asking chan struct{} // closed when the answer is there; nil while the question is not asked
	ended  bool          // the question must not be asked any more
	work   sync.WaitGroup
}

// end waits until the question is not being asked. It prevents further questions.
func (c *cache[T]) end(ctx context.Context) error {
	c.mu.Lock()
	c.ended = true
	asking := c.asking
	c.mu.Unlock()
	if asking == nil {
		c.work.Wait() // the last one has its answer
		return nil
	}
	select {
	case <-asking:
		c.work.Wait()
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop the status page: a question to the daemon has no answer: %w", ctx.Err())
	}
}

// get returns the last answer. If it is old, get starts to ask again.
func (c *cache[T]) get(ctx context.Context, now time.Time, ask func(context.Context) T) T {
	c.mu.Lock()
	if c.asking == nil && now.Sub(c.at) >= c.every && !c.ended {
		done := make(chan struct{})
		c.asking = done
		c.work.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, c.timeout)
			defer cancel()
			answer := ask(ctx)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.answer, c.at, c.asking = answer, now, nil
			close(done)
		})
	}
	asking, first := c.asking, c.at.IsZero()
	c.mu.Unlock()
	if asking != nil && first && c.wait > 0 {
		limit := time.NewTimer(c.wait)
		defer limit.Stop()
		select {
		case <-asking:
		case <-limit.C:
		case <-ctx.Done():
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answer
}
