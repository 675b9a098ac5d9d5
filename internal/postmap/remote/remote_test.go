package remote

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

var errDown = errors.New("no route to host")

// server is a source that answers by answer.
type server struct {
	asked  atomic.Int64
	closed atomic.Int64
	answer func(ctx context.Context, key string) ([]string, error)
}

func (s *server) Lookup(ctx context.Context, key string) ([]string, error) {
	s.asked.Add(1)
	return s.answer(ctx, key)
}

func (s *server) Locate(string) string { return "t.cf:3" }
func (s *server) Close() error         { s.closed.Add(1); return nil }

func echo(_ context.Context, key string) ([]string, error) {
	if strings.HasPrefix(key, "no") {
		return nil, nil
	}
	return []string{key}, nil
}

func failing(context.Context, string) ([]string, error) { return nil, errDown }

// want asks for a key.
func want(t *testing.T, table *Table, key, want string) {
	t.Helper()
	got, err := table.Lookup(t.Context(), key)
	text := strings.Join(got, ",")
	if err != nil {
		text = "error"
	}
	if text != want {
		t.Errorf("%s: got %q, %v, want %q", key, got, err, want)
	}
}

// A key that is a part of a request does not keep the request in memory.
func TestKeptKeyIsACopy(t *testing.T) {
	table := New(&server{answer: echo}, Config{TTL: time.Minute})
	request := "sender=alice@x.example\nhelo_name=mx.x.example\n"
	sender := request[len("sender="):len("sender=alice@x.example")]
	want(t, table, sender, "alice@x.example")
	if table.cache.len() != 1 {
		t.Fatal("nothing is kept")
	}
	for i := range table.cache.shards {
		for key := range table.cache.shards[i].entries {
			if unsafe.StringData(key) == unsafe.StringData(sender) {
				t.Error("the whole request is kept")
			}
		}
	}
}

func TestTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: echo}
		table := New(s, Config{TTL: time.Minute, NegativeTTL: 10 * time.Second})
		asked := func(n int64) {
			t.Helper()
			if got := s.asked.Load(); got != n {
				t.Errorf("asked %d times, want %d", got, n)
			}
		}
		for range 2 {
			want(t, table, "a", "a")
			want(t, table, "no", "")
		}
		asked(2)
		time.Sleep(10 * time.Second)
		want(t, table, "a", "a")
		want(t, table, "no", "")
		asked(3)
		time.Sleep(50 * time.Second)
		want(t, table, "a", "a")
		asked(4)
		if err := table.Close(); err != nil || s.closed.Load() != 1 {
			t.Errorf("%v, closed %d times", err, s.closed.Load())
		}
		want(t, table, "b", "error")
	})
}

func TestNothingKept(t *testing.T) {
	s := &server{answer: echo}
	table := New(s, Config{})
	want(t, table, "a", "a")
	want(t, table, "a", "a")
	table.config.TTL = time.Hour
	want(t, table, strings.Repeat("k", maxKey+1), strings.Repeat("k", maxKey+1))
	s.answer = func(context.Context, string) ([]string, error) {
		return []string{strings.Repeat("v", maxValues+1)}, nil
	}
	want(t, table, "b", strings.Repeat("v", maxValues+1))
	if s.asked.Load() != 4 || table.cache.len() != 0 {
		t.Errorf("asked %d times, %d entries kept", s.asked.Load(), table.cache.len())
	}
}

func TestBound(t *testing.T) {
	table := New(&server{answer: echo}, Config{TTL: time.Hour, MaxEntries: 64})
	for i := range 5000 {
		want(t, table, fmt.Sprint(i), fmt.Sprint(i))
	}
	if n := table.cache.len(); n > 64 || n < 32 {
		t.Errorf("%d entries of 64", n)
	}
}

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: failing}
		var changes []Change
		table := New(s, Config{State: func(c Change) { changes = append(changes, c) }})
		for range 100 {
			want(t, table, "a", "error")
		}
		if s.asked.Load() != maxFailures || len(changes) != 1 || changes[0].Up || !errors.Is(changes[0].Err, errDown) {
			t.Errorf("asked %d times, heard %+v", s.asked.Load(), changes)
		}
		if _, err := table.Lookup(t.Context(), "a"); !errors.Is(err, errDown) {
			t.Errorf("the error %v does not say why", err)
		}
		// The pauses grow to their bound: far fewer questions than seconds.
		for range 600 {
			time.Sleep(100 * time.Millisecond)
			want(t, table, "a", "error")
		}
		if n := s.asked.Load(); n < 10 || n > 25 {
			t.Errorf("asked %d times in a minute", n)
		}
		s.answer = echo
		time.Sleep(lastPause)
		want(t, table, "a", "a")
		want(t, table, "b", "b")
		if len(changes) != 2 || !changes[1].Up || changes[1].Down < time.Minute {
			t.Errorf("heard %+v", changes)
		}
	})
}

func TestKeyErrorsAreNoOutage(t *testing.T) {
	s := &server{answer: func(context.Context, string) ([]string, error) {
		return nil, fmt.Errorf("x: %w", &KeyError{"too much"})
	}}
	table := New(s, Config{TTL: time.Hour, StaleFor: time.Hour, State: func(Change) { t.Error("a key brought the server down") }})
	for range 10 {
		want(t, table, "a", "error")
	}
	if s.asked.Load() != 10 {
		t.Errorf("asked %d times", s.asked.Load())
	}
}

func TestLastKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: echo}
		table := New(s, Config{TTL: time.Minute, NegativeTTL: time.Second, StaleFor: time.Hour})
		want(t, table, "a", "a")
		want(t, table, "no", "")
		s.answer = failing
		time.Sleep(2 * time.Minute)
		for range 10 {
			want(t, table, "a", "a")
			want(t, table, "no", "")
			want(t, table, "unknown", "error")
		}
		if where := table.Locate("a"); where != "t.cf:3 (last known, 2m0s old)" {
			t.Error(where)
		}
		// A probe runs behind an answer that may be used instead.
		time.Sleep(lastPause)
		before := s.asked.Load()
		want(t, table, "a", "a")
		synctest.Wait()
		if s.asked.Load() != before+1 {
			t.Errorf("%d probes", s.asked.Load()-before)
		}
		time.Sleep(time.Hour)
		want(t, table, "a", "error")
		want(t, table, "no", "error")
	})
}

func TestHungServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(ctx context.Context, _ string) ([]string, error) { <-ctx.Done(); return nil, ctx.Err() }}
		table := New(s, Config{Timeout: 3 * time.Second})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		if _, err := table.Lookup(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		want(t, table, "a", "error") // joins the same question
		if time.Since(begin) != 3*time.Second || s.asked.Load() != 1 {
			t.Errorf("after %v, asked %d times", time.Since(begin), s.asked.Load())
		}
		// Closing ends what is under way.
		go func() { _, _ = table.Lookup(context.Background(), "b") }()
		synctest.Wait()
		begin = time.Now()
		if err := table.Close(); err != nil || time.Since(begin) != 0 {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

func TestOneQuestionForMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(_ context.Context, key string) ([]string, error) {
			time.Sleep(time.Second)
			return []string{key}, nil
		}}
		table := New(s, Config{})
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { want(t, table, "a", "a") })
		}
		wg.Wait()
		if s.asked.Load() != 1 {
			t.Errorf("asked %d times", s.asked.Load())
		}
	})
}

// TestProbeJoinsNothing holds that a probe reports even if the same key is being
// asked for since before the server went down.
func TestProbeJoinsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		s.answer = func(_ context.Context, key string) ([]string, error) {
			if key == "slow" {
				time.Sleep(2 * time.Second)
			}
			return nil, errDown
		}
		table := New(s, Config{})
		go func() { _, _ = table.Lookup(context.Background(), "slow") }()
		synctest.Wait()
		for range maxFailures {
			want(t, table, "a", "error")
		}
		time.Sleep(time.Second)
		want(t, table, "slow", "error")
		s.answer = echo
		time.Sleep(lastPause)
		want(t, table, "a", "a")
	})
}

func TestPanic(t *testing.T) {
	table := New(&server{answer: func(context.Context, string) ([]string, error) { panic("driver") }}, Config{})
	if _, err := table.Lookup(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), "panic: driver") {
		t.Error(err)
	}
}
