package dmarcreport

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxWaiting is the most different rows that wait for the store.
	maxWaiting = 20_000
	// flushEvery is the time between two writes.
	flushEvery = time.Second
	purgeEvery = time.Hour
	// probeEvery is the time between two looks whether a store would take rows, while there
	// are none to write.
	probeEvery = 10 * time.Second
	// lastFlush bounds the writes at the end of the process.
	lastFlush = 5 * time.Second
	// lastPause is the time between two of them.
	lastPause = 500 * time.Millisecond
)

// Collector takes rows while mail is processed, and writes them to a store in the
// background. Record never waits.
type Collector struct {
	store Store
	now   func() time.Time
	// failed is called once with the error when the store begins to fail, and once with
	// nil when it works again.
	failed func(error)

	mu      sync.Mutex
	waiting map[waitingKey]*waitingDomain
	rows    int // in waiting and in unsent

	writing sync.Mutex // guards the following fields
	unsent  []*Batch

	counted, dropped, late atomic.Int64
	up                     atomic.Bool
}

type waitingKey struct {
	day    Day
	domain string
}

type waitingDomain struct {
	policy Policy
	rows   map[string]*Counted
}

// NewCollector returns a collector. Its Run method writes the rows. failed may be nil.
func NewCollector(store Store, now func() time.Time, failed func(error)) *Collector {
	c := &Collector{store: store, now: now, failed: failed, waiting: make(map[waitingKey]*waitingDomain)}
	c.up.Store(true)
	return c
}

// Record counts a message.
func (c *Collector) Record(domain string, policy Policy, row *Row) {
	key := row.key()
	at := waitingKey{DayOf(c.now()), domain}
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.waiting[at]
	if d == nil {
		d = &waitingDomain{rows: make(map[string]*Counted)}
		at.domain = strings.Clone(domain) // domain may be a part of a long field
	}
	one := d.rows[key]
	if one == nil {
		if c.rows >= maxWaiting {
			c.dropped.Add(1)
			return
		}
		one = &Counted{Row: key, Plain: !row.Report}
		d.rows[key] = one
		c.rows++
		c.waiting[at] = d
	}
	d.policy = policy
	one.Count++
	c.counted.Add(1)
}

// Counted returns how many messages were counted, and how many were dropped because
// there was no room.
func (c *Collector) Counted() (counted, dropped int64) { return c.counted.Load(), c.dropped.Load() }

// Late returns how many messages came too late for the report of their day, and are
// part of a later one.
func (c *Collector) Late() int64 { return c.late.Load() }

// Up reports whether the store can be written.
func (c *Collector) Up() bool { return c.up.Load() }

// Run writes regularly until ctx ends, and then what is left. The error says how much is
// lost.
func (c *Collector) Run(ctx context.Context) error {
	flush, purge, probe := time.NewTicker(flushEvery), time.NewTicker(purgeEvery), time.NewTicker(probeEvery)
	defer flush.Stop()
	defer purge.Stop()
	defer probe.Stop()
	c.purge(ctx)
	c.probe(ctx)
	for {
		select {
		case <-ctx.Done():
			return c.finish(context.WithoutCancel(ctx))
		case <-flush.C:
			_ = c.write(ctx)
		case <-probe.C:
			c.probe(ctx)
		case <-purge.C:
			c.purge(ctx)
		}
	}
}

// finish writes what is left. A store that does not take it is tried again for a short
// time, because it may be restarting too.
func (c *Collector) finish(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lastFlush)
	defer cancel()
	again := time.NewTicker(lastPause)
	defer again.Stop()
	for {
		err := c.Flush(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return c.lose(err)
		}
	}
}

// lose counts what the store has not taken. What it has taken, it writes when it is
// closed.
func (c *Collector) lose(cause error) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.take()
	lost := int64(0)
	for _, b := range c.unsent {
		lost += b.messages()
	}
	if lost == 0 {
		return nil
	}
	c.dropped.Add(lost)
	c.unsent = nil
	return fmt.Errorf("%d messages could not be written and are lost: %w", lost, cause)
}

// Flush writes what was counted so far.
func (c *Collector) Flush(ctx context.Context) error {
	if err := c.write(ctx); err != nil {
		return err
	}
	return c.store.Flush(ctx)
}

// prober is a store on a server, which may be full or away while there is nothing to write.
type prober interface {
	// Probe returns an error if the store would take no rows.
	Probe(ctx context.Context) error
}

// probe asks a store on a server whether it would take rows.
func (c *Collector) probe(ctx context.Context) {
	if s, ok := c.store.(prober); ok {
		c.look(ctx, s.Probe)
	}
}

func (c *Collector) purge(ctx context.Context) {
	c.look(ctx, func(ctx context.Context) error {
		now := c.now()
		err := c.store.Purge(ctx, DayOf(now.Add(-Retention)), now)
		if s, ok := c.store.(prober); ok && err == nil {
			err = s.Probe(ctx) // to remove rows needs no room
		}
		return err
	})
}

// look notes whether a use of the store has failed. That one has worked is no news while
// batches wait that the store does not take.
func (c *Collector) look(ctx context.Context, use func(context.Context) error) {
	err := use(ctx)
	c.writing.Lock()
	defer c.writing.Unlock()
	if err != nil || len(c.unsent) == 0 {
		c.settle(err)
	}
}

// write passes batches to the store. Batches that fail are tried again later.
func (c *Collector) write(ctx context.Context) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.take()
	if len(c.unsent) == 0 {
		return nil
	}
	for i, b := range c.unsent {
		dropped, err := c.add(ctx, b)
		if err != nil {
			c.unsent = c.unsent[i:]
			c.settle(err)
			return err
		}
		c.dropped.Add(dropped)
		c.mu.Lock()
		c.rows -= len(b.Rows)
		c.mu.Unlock()
	}
	c.unsent = nil
	c.settle(nil)
	return nil
}

// add passes a batch to the store. If the report of its day was begun before, because
// another host or the store was away for a while, the batch becomes part of the domain's
// next report.
func (c *Collector) add(ctx context.Context, b *Batch) (dropped int64, err error) {
	for {
		dropped, err = c.store.Add(ctx, b)
		if !errors.Is(err, ErrSealed) {
			return dropped, err
		}
		if b.Since == 0 {
			b.Since = b.Day
			c.late.Add(b.messages())
		}
		b.Day = max(b.Day+1, DayOf(c.now())) // at last a day that is not over on any host
	}
}

// take makes batches of the rows that wait.
func (c *Collector) take() {
	c.mu.Lock()
	waiting := c.waiting
	c.waiting = make(map[waitingKey]*waitingDomain)
	c.mu.Unlock()
	for at, d := range waiting {
		var b *Batch
		for _, one := range d.rows {
			if b == nil || len(b.Rows) == BatchRows {
				b = &Batch{ID: rand.Text(), Day: at.day, Domain: at.domain, Policy: d.policy}
				c.unsent = append(c.unsent, b)
			}
			b.Rows = append(b.Rows, *one)
		}
	}
}

// settle reports a change of the store's state.
func (c *Collector) settle(err error) {
	if c.up.Swap(err == nil) != (err == nil) && c.failed != nil {
		c.failed(err)
	}
}
