package redisclient

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func with(s *Call, arg any) *Call {
	s.args = []any{arg}
	return s
}

// TestTogether has a server that takes ten milliseconds for a round trip,
// however much is in it.
func TestTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var sizes []int
		together := together{send: func(batch []*Call) {
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
				value, err := together.do(t.Context(), with(newCall(), i))
				if err != nil || value != i {
					t.Errorf("%d: %v, %v", i, value, err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took > 30*time.Millisecond {
			t.Errorf("%d calls took %v", asked, took)
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
		if _, err := together.do(t.Context(), newCall()); err == nil {
			t.Error("a closed store answered")
		}
	})
}

// TestTogetherLeaves says what goes when: one alone at once, then only what has
// company, or nothing else under way.
func TestTogetherLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var sizes []int
		together := together{send: func(batch []*Call) {
			mu.Lock()
			sizes = append(sizes, len(batch))
			mu.Unlock()
			time.Sleep(10 * time.Millisecond)
		}}
		var wg sync.WaitGroup
		for i := range 2 * company {
			wg.Go(func() {
				if _, err := together.do(t.Context(), newCall()); err != nil {
					t.Errorf("%d: %v", i, err)
				}
			})
			synctest.Wait()
		}
		mu.Lock()
		if want := []int{1, company}; !slices.Equal(sizes, want) {
			t.Errorf("under way: %d, want %d", sizes, want)
		}
		mu.Unlock()
		wg.Wait()
		if want := []int{1, company, company - 1}; !slices.Equal(sizes, want) {
			t.Errorf("in all: %d, want %d", sizes, want)
		}
		together.close()
	})
}

// TestTogetherGivesUp has a server that does not answer for a long time: those
// who wait do not outstay their time, and what no one waits for is not sent.
func TestTogetherGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := 0
		together := together{send: func(batch []*Call) {
			sent += len(batch)
			time.Sleep(time.Minute)
		}}
		start := time.Now()
		var wg sync.WaitGroup
		late := func(ctx context.Context, want time.Duration) {
			_, err := together.do(ctx, newCall())
			if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took != want {
				t.Errorf("no answer: %v after %v, want %v", err, took, want)
			}
		}
		for range company { // one is sent, the others wait for company
			wg.Go(func() { late(t.Context(), OpTimeout) })
			synctest.Wait()
		}
		soon, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		wg.Go(func() { late(soon, time.Millisecond) })
		wg.Wait()
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := together.do(gone, newCall()); !errors.Is(err, context.Canceled) {
			t.Errorf("one that has gone: %v", err)
		}
		left, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := together.do(left, newCall()); !errors.Is(err, context.Canceled) {
			t.Errorf("one that goes: %v", err)
		}
		together.close()
		if sent != 1+company {
			t.Errorf("%d were sent", sent)
		}
	})
}
