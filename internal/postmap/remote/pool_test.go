package remote

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var (
	errLinkDown = errors.New("down")
	errFinal    = errors.New("final")
)

// hosts are servers that a test breaks.
type hosts struct {
	mu     sync.Mutex
	broken map[string]bool
	events []string
	open   int
	most   int
}

// link is a connection to one of them.
type link struct {
	host string
	dead bool
}

func (h *hosts) note(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, fmt.Sprintf(format, args...))
}

func (h *hosts) pool(most int, names ...string) *Pool[*link] {
	c := PoolConfig[*link]{InOrder: true, Max: most, Idle: time.Minute, Lifetime: time.Hour, Retry: time.Minute, Now: time.Now}
	c.Close = func(l *link) {
		h.note("close %s", l.host)
		h.mu.Lock()
		h.open--
		h.mu.Unlock()
	}
	for _, name := range names {
		c.Hosts = append(c.Hosts, Host[*link]{Name: name, First: strings.HasPrefix(name, "unix"), Dial: func(context.Context) (*link, error) {
			h.note("dial %s", name)
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.broken[name] {
				return nil, errLinkDown
			}
			h.open++
			h.most = max(h.most, h.open)
			return &link{host: name}, nil
		}})
	}
	return NewPool(c)
}

func (h *hosts) use(_ context.Context, l *link) error {
	h.mu.Lock()
	broken := h.broken[l.host] || l.dead
	h.mu.Unlock()
	h.note("ask %s", l.host)
	if broken {
		return errLinkDown
	}
	return nil
}

func (h *hosts) take() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	text := strings.Join(h.events, ", ")
	h.events = nil
	return text
}

func isFinal(err error) bool { return errors.Is(err, errFinal) }

func TestPoolDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hosts{broken: map[string]bool{}}
		p := h.pool(2, "a", "b")
		step := func(name, want string, wantErr error) {
			t.Helper()
			err := p.Do(t.Context(), h.use, isFinal)
			if got := h.take(); got != want || !errors.Is(err, wantErr) || (err == nil) != (wantErr == nil) {
				t.Errorf("%s: %s, %v\nwant %s, %v", name, got, err, want, wantErr)
			}
		}
		step("first", "dial a, ask a", nil)
		step("reused", "ask a", nil)
		p.idle[0].c.dead = true
		step("restarted", "ask a, close a, dial b, ask b", nil)
		h.broken["b"] = true
		step("failed over", "ask b, close b, dial a, ask a", nil)
		h.broken["a"] = true
		step("both down", "ask a, close a, dial a, dial b", errLinkDown)
		h.broken["a"], h.broken["b"] = false, false
		step("both back", "dial a, ask a", nil)
		time.Sleep(time.Minute)
		step("idle for too long", "close a, dial a, ask a", nil)
		if err := p.Do(t.Context(), func(context.Context, *link) error { return errFinal }, isFinal); !errors.Is(err, errFinal) {
			t.Error(err)
		}
		h.take()
		p.Close()
		step("closed", "", ErrPoolClosed)
	})
}

func TestPoolOrder(t *testing.T) {
	h := &hosts{broken: map[string]bool{}}
	p := h.pool(1, "a", "unix1", "b", "unix2")
	p.config.InOrder = false
	for range 50 {
		got := p.order()
		if slices.Sort(got[:2]); got[0] != 1 || got[1] != 3 {
			t.Fatalf("sockets come first: %v", got)
		}
	}
	p.failed(1)
	for range 50 {
		if got := p.order(); got[0] != 3 || got[3] != 1 {
			t.Fatalf("the host that failed comes last: %v", got)
		}
	}
}

func TestPoolBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hosts{broken: map[string]bool{}}
		p := h.pool(3, "a")
		var wg sync.WaitGroup
		for range 30 {
			wg.Go(func() {
				if err := p.Do(t.Context(), func(context.Context, *link) error { time.Sleep(time.Second); return nil }, isFinal); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if h.most != 3 || p.Idle() != 3 {
			t.Errorf("%d connections, %d idle", h.most, p.Idle())
		}
		release := make(chan struct{})
		for range 3 {
			wg.Go(func() { _ = p.Do(t.Context(), func(context.Context, *link) error { <-release; return nil }, isFinal) })
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.Do(ctx, h.use, isFinal); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "busy") {
			t.Error(err)
		}
		p.Close()
		close(release)
		wg.Wait()
		if h.open != 0 {
			t.Errorf("%d connections are left", h.open)
		}
	})
}

// TestShare holds that a server which hangs leaves time for the next.
func TestPoolShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hosts{broken: map[string]bool{}}
		p := h.pool(1, "a", "b")
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		begin := time.Now()
		err := p.Do(ctx, func(ctx context.Context, l *link) error {
			if l.host == "a" {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}, isFinal)
		if err != nil || time.Since(begin) != 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}
