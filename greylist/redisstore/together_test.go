package redisstore

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestTogether has a server that takes ten milliseconds for a round trip,
// however much is in it.
func TestTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var sizes []int
		together := together{send: func(batch []*sighting) {
			time.Sleep(10 * time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			sizes = append(sizes, len(batch))
			for _, s := range batch {
				s.value = s.args[0]
			}
		}}
		const asked = 2*maxTogether + maxFlights + 1
		var wg sync.WaitGroup
		start := time.Now()
		for i := range asked {
			wg.Go(func() {
				value, err := together.ask(t.Context(), &sighting{args: []any{i}})
				if err != nil || value != i {
					t.Errorf("%d: %v, %v", i, value, err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took > 30*time.Millisecond {
			t.Errorf("%d sightings took %v", asked, took)
		}
		total := 0
		for _, n := range sizes {
			total += n
			if n > maxTogether {
				t.Errorf("%d in one round trip", n)
			}
		}
		if total != asked {
			t.Errorf("%d sent, %d asked", total, asked)
		}
		together.close()
		if _, err := together.ask(t.Context(), &sighting{}); err == nil {
			t.Error("a closed store answered")
		}
	})
}

// TestTogetherGivesUp has a server that does not answer for a long time: those
// who wait do not outstay their time, and what nobody waits for is not sent.
func TestTogetherGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := 0
		together := together{send: func(batch []*sighting) {
			sent += len(batch)
			time.Sleep(time.Minute)
		}}
		start := time.Now()
		var wg sync.WaitGroup
		for range maxFlights {
			wg.Go(func() {
				if _, err := together.ask(t.Context(), &sighting{}); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("no answer: %v", err)
				}
			})
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := together.ask(ctx, &sighting{}); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > time.Millisecond {
			t.Errorf("an impatient one: %v after %v", err, time.Since(start))
		}
		wg.Wait()
		if took := time.Since(start); took != opTimeout {
			t.Errorf("waited %v", took)
		}
		together.close()
		if sent != maxFlights {
			t.Errorf("%d were sent", sent)
		}
	})
}
