// Package remote puts a cache and a breaker in front of a table in a server.
//
// Answers are cached, including the answer that a key is not listed. Requests for the
// same key at the same time share one question to the server. When several questions
// fail in a row, the server counts as down. Then most requests fail at once, and one at
// a time is let through to test whether the server is back. Meanwhile an expired answer
// may be used for a bounded time.
//
// Invariants:
//   - a request waits no longer than the time-out and its own context;
//   - a failure is an error or the last known answer, never "not listed";
//   - entries, their size and the questions under way are bounded;
//   - State is called once for each change between up and down;
//   - every goroutine is a question with a time-out, and Close waits for them.
package remote

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/postern-mail/postern/internal/breaker"
)

// Defaults and bounds.
const (
	DefaultTimeout    = 3 * time.Second
	DefaultMaxEntries = 20_000
	maxFlights        = 4096    // questions under way
	maxKey            = 1 << 10 // octets of a key that is kept
	maxValues         = 4 << 10 // octets of an answer that is kept
)

// KeyError is the error for a key that has no usable answer, for example because the
// answer is too large. It does not mean that the server has failed.
type KeyError struct{ What string }

func (e *KeyError) Error() string { return e.What }

// IsKeyError reports whether an error is, or wraps, a [KeyError].
func IsKeyError(err error) bool {
	var k *KeyError
	return errors.As(err, &k)
}

// Change is passed to State.
type Change = breaker.Change

// A server that is down is tried again after firstPause, then after twice that,
// and so on up to lastPause.
const (
	maxFailures = 3 // in a row make it count as down
	firstPause  = 250 * time.Millisecond
	lastPause   = 5 * time.Second
)

// classify returns what an error means for the breaker. A KeyError is not a failure of
// the server.
func classify(err error) breaker.Class {
	if err == nil || IsKeyError(err) {
		return breaker.Answered
	}
	return breaker.Failed
}

// Source is a table in a server. Lookup returns every value of the key, none if the key
// is not listed. An error means that this is not known.
type Source interface {
	Lookup(ctx context.Context, key string) ([]string, error)
	Close() error
}

// locator is a [Source] that can return the place of an entry.
type locator interface {
	Locate(key string) string
}

// Config has the settings of a table. The zero value caches nothing.
type Config struct {
	Timeout     time.Duration // of one question; 0 means DefaultTimeout
	TTL         time.Duration // how long an answer is kept
	NegativeTTL time.Duration // how long the answer that a key is not listed is kept
	StaleFor    time.Duration // how long after that an answer may be used while the server is down
	MaxEntries  int           // 0 means DefaultMaxEntries
	State       func(Change)  // may be nil
	Now         func() time.Time
}

// Table is a table behind a server. It is safe for concurrent use.
type Table struct {
	source  Source
	config  Config
	cache   *cache
	breaker *breaker.Breaker
	group   singleflight.Group

	mu      sync.Mutex
	flights map[*flight]struct{}
	running sync.WaitGroup
	closed  bool
}

// flight is one question under way.
type flight struct{ cancel context.CancelFunc }

// New returns a table in front of source, which it owns from now on.
func New(source Source, c Config) *Table {
	if c.Timeout <= 0 {
		c.Timeout = DefaultTimeout
	}
	if c.MaxEntries <= 0 {
		c.MaxEntries = DefaultMaxEntries
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.State == nil {
		c.State = func(Change) {}
	}
	return &Table{
		source: source, config: c, cache: newCache(c.MaxEntries), flights: map[*flight]struct{}{},
		breaker: breaker.New(breaker.Config{Failures: maxFailures, First: firstPause, Last: lastPause, Classify: classify, Changed: c.State, Now: c.Now}),
	}
}

// Lookup implements [Source]. Callers must not change the values.
func (t *Table) Lookup(ctx context.Context, key string) ([]string, error) {
	now := t.config.Now()
	known, ok := t.cache.get(key)
	if ok && now.Sub(known.at) < t.ttl(known.values) {
		return known.values, nil
	}
	mayStand := ok && now.Sub(known.at) < t.ttl(known.values)+t.config.StaleFor
	question, err := t.breaker.Allow()
	if err != nil {
		if mayStand {
			return known.values, nil
		}
		return nil, fmt.Errorf("the server %w", err)
	}
	answers := t.start(ctx, key, question)
	if mayStand && question.Probe() {
		return known.values, nil // the question goes on without us
	}
	values, err := t.wait(ctx, answers)
	if err != nil && mayStand && !IsKeyError(err) {
		return known.values, nil
	}
	return values, err
}

// start begins a question, or joins the one for the same key. A probe never joins
// another, because it must report its own result.
func (t *Table) start(ctx context.Context, key string, q breaker.Question) <-chan singleflight.Result {
	if !q.Probe() {
		return t.group.DoChan(key, func() (any, error) { return t.query(ctx, key, q) })
	}
	answer := make(chan singleflight.Result, 1)
	go func() {
		values, err := t.query(ctx, key, q)
		answer <- singleflight.Result{Val: values, Err: err}
	}()
	return answer
}

func (t *Table) wait(ctx context.Context, answers <-chan singleflight.Result) ([]string, error) {
	select {
	case answer := <-answers:
		values, _ := answer.Val.([]string)
		return values, answer.Err
	case <-ctx.Done():
		return nil, fmt.Errorf("no answer yet: %w", context.Cause(ctx))
	}
}

func (t *Table) ttl(values []string) time.Duration {
	if len(values) == 0 {
		return t.config.NegativeTTL
	}
	return t.config.TTL
}

// query asks the server one question. It goes on when the request that began it has
// ended, because others may wait for the same answer. It ends with its time-out.
func (t *Table) query(ctx context.Context, key string, q breaker.Question) (values []string, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.config.Timeout)
	defer cancel()
	f := &flight{cancel: cancel}
	if err := t.begin(f); err != nil {
		q.Abandon()
		return nil, err
	}
	defer t.end(f)
	values, err = t.lookup(ctx, key)
	if err != nil && t.isClosed() {
		q.Abandon()
		return nil, err
	}
	q.Done(err)
	if err != nil {
		return nil, err
	}
	t.keep(key, values, t.config.Now())
	return values, nil
}

// lookup asks the source. If a driver panics on an answer, it returns an error, so that
// the daemon does not end.
func (t *Table) lookup(ctx context.Context, key string) (values []string, err error) {
	defer func() {
		if r := recover(); r != nil {
			values, err = nil, fmt.Errorf("panic: %v", r)
		}
	}()
	return t.source.Lookup(ctx, key)
}

func (t *Table) keep(key string, values []string, now time.Time) {
	if t.ttl(values)+t.config.StaleFor <= 0 || len(key) > maxKey {
		return
	}
	size := 0
	for _, v := range values {
		size += len(v)
	}
	if size <= maxValues {
		t.cache.put(strings.Clone(key), entry{values: values, at: now}) // key may be a part of a whole request
	}
}

func (t *Table) begin(f *flight) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closed:
		return errors.New("the table is closed")
	case len(t.flights) >= maxFlights:
		return fmt.Errorf("more than %d questions under way", maxFlights)
	}
	t.flights[f] = struct{}{}
	t.running.Add(1)
	return nil
}

func (t *Table) end(f *flight) {
	t.mu.Lock()
	delete(t.flights, f)
	t.mu.Unlock()
	t.running.Done()
}

func (t *Table) isClosed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closed
}

// Locate returns the place of an entry, and notes when the answer is the last known
// one.
func (t *Table) Locate(key string) string {
	l, ok := t.source.(locator)
	if !ok {
		return ""
	}
	where := l.Locate(key)
	known, ok := t.cache.get(key)
	if age := t.config.Now().Sub(known.at); ok && where != "" && age >= t.ttl(known.values) && t.breaker.Down() != nil {
		return fmt.Sprintf("%s (last known, %v old)", where, age.Round(time.Second))
	}
	return where
}

// Down returns the last failure while the breaker is open, else nil.
func (t *Table) Down() error { return t.breaker.Down() }

// ProbeKey is a key that no table has.
const ProbeKey = "postern-probe@mail.probe.postern.invalid"

// Probe asks the source and bypasses cache and breaker. A [KeyError] is not an error
// here.
func (t *Table) Probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.config.Timeout)
	defer cancel()
	err := error(nil)
	if prober, ok := t.source.(interface{ Probe(context.Context) error }); ok {
		err = prober.Probe(ctx)
	} else {
		_, err = t.lookup(ctx, ProbeKey)
	}
	if IsKeyError(err) {
		return nil
	}
	return err
}

// Close ends the questions under way and closes the source.
func (t *Table) Close() error {
	t.mu.Lock()
	t.closed = true
	for f := range t.flights {
		f.cancel()
	}
	t.mu.Unlock()
	t.running.Wait()
	return t.source.Close()
}
