// Package memstore keeps counters in memory. They are either lost when the process
// ends, or sqlitestore also writes them to a file.
//
// Invariants:
//
//   - Counters of logins and of strangers have separate bounds. To make room, the store
//     looks at a few counters and drops the one that has counted least.
//   - One lock guards everything, and nothing blocks while it is held.
//   - Times are those of the monotonic clock of the process: a step of the machine's
//     clock changes nothing while the process runs.
package memstore

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-mail/postern/internal/limit"
)

// Options describe a store.
type Options struct {
	Logins, Strangers int       // counters of each budget; 0 means the default
	Start             time.Time // of the steady clock; zero means time.Now()
}

// Store implements limit.Store.
type Store struct {
	start time.Time

	mu       sync.Mutex
	counters slab[counter]
	tables   [budgets]table
	born     uint32 // of the latest counter
	op       uint32 // counts the ops that touch counters
	txns     txns
	blocks   map[string]limit.Block
	changes
}

// The budgets. A file has these numbers.
const (
	logins = iota
	strangers
	budgets
)

// counter is what is known about one value of a key, for one rule. What each mail needs is
// at the beginning, up to the latest counts of series: it is in two lines of the
// processor's cache, and the rest in a third one.
type counter struct {
	id     limit.ID
	window int64 // milliseconds
	last   limit.Millis
	ref           // of itself
	next   slot   // of the same value
	op     uint32 // the latest that has touched it

	reserved int64
	peak     int64
	round    uint32 // it is in changes.unsettled, if this is the present round
	logins   bool
	dirty    bool   // it is in changes.dirty
	networks bool   // spread is in use
	_        uint64 // a counter has 192 octets, so that it begins with a line
	series   limit.Series

	alarms [2]limit.Millis // when 80 and 100 percent were reached
	spread limit.Spread
}

// New returns an empty store.
func New(o Options) *Store {
	if o.Start.IsZero() {
		o.Start = time.Now()
	}
	s := &Store{start: o.Start, blocks: make(map[string]limit.Block)}
	s.tables[logins] = newTable(&s.counters, cmp.Or(o.Logins, limit.DefaultLogins))
	s.tables[strangers] = newTable(&s.counters, cmp.Or(o.Strangers, limit.DefaultStrangers))
	return s
}

// millis converts a time to the monotonic clock. A time with a monotonic reading, such
// as from time.Now(), does not depend on steps of the machine's clock.
func (s *Store) millis(t time.Time) limit.Millis {
	return s.start.UnixMilli() + t.Sub(s.start).Milliseconds()
}

func budgetOf(ofLogins bool) int {
	if ofLogins {
		return logins
	}
	return strangers
}

func (s *Store) tableOf(ofLogins bool) *table { return &s.tables[budgetOf(ofLogins)] }

// find appends the counters of items to found, and creates those that are missing. They
// are valid until the next call.
func (s *Store) find(items []limit.Item, now limit.Millis, found []*counter) []*counter {
	s.op++
	var t *table
	var value string
	var first *counter // of value in t
	for i := range items {
		it := &items[i]
		if own := s.tableOf(it.Rule.OfLogins()); own != t || value != it.ID.Value {
			t, value = own, it.ID.Value
			first = t.first(value, t.hash(value))
		}
		c := t.of(first, it.ID.Rule)
		if c == nil {
			c = s.create(t, it)
			first = t.first(value, t.hash(value)) // the one before may have been dropped
		}
		c.op = s.op
		c.advance(now)
		c.last = now
		found = append(found, c)
	}
	return found
}

// create adds the counter of an item. If the table is full, it makes room first. It drops
// no counter of the present op: a table that has only those has more than it may for a
// moment.
func (s *Store) create(t *table, it *limit.Item) *counter {
	for t.len >= t.most {
		least := t.least(s.op)
		if least == nil {
			break
		}
		s.drop(t, least)
	}
	return s.add(t, &counter{
		id:     limit.ID{Rule: it.ID.Rule, Value: strings.Clone(it.ID.Value)},
		window: it.Rule.Window.Milliseconds(), logins: it.Rule.OfLogins(),
	})
}

// add copies a counter that is missing into a slot.
func (s *Store) add(t *table, missing *counter) *counter {
	if s.born++; s.born == 0 { // the number of free slots
		s.born++
	}
	missing.ref = ref{s.counters.take(), s.born}
	c := s.counters.at(missing.slot)
	*c = *missing
	t.insert(c)
	return c
}

func (s *Store) drop(t *table, c *counter) {
	t.remove(c)
	s.removed(c)
	s.counters.give(c.slot)
}

func (c *counter) width() int64 { return c.window / limit.Cells }

// advance removes from the counter what has left the window.
func (c *counter) advance(now limit.Millis) {
	c.series.Advance(now, c.width())
	if c.networks {
		c.spread.Advance(now, c.window)
	}
}

// used returns what counts against a rule.
func (c *counter) used(r *limit.Rule) int64 {
	if r.Unit == limit.Networks {
		return c.spread.Len()
	}
	return c.series.Sum() + c.reserved
}

// wait returns the time until need fits.
func (c *counter) wait(r *limit.Rule, need int64, now limit.Millis) time.Duration {
	if r.Unit == limit.Networks {
		return c.spread.Wait(now, c.window, r.Count)
	}
	return c.series.Wait(now, c.width(), c.used(r)+need-r.Count)
}

// alarm returns the percentage that was reached for the first time in this window.
func (c *counter) alarm(r *limit.Rule, over bool, now limit.Millis) int {
	used := c.used(r)
	level := -1
	switch {
	case over || used >= r.Count:
		level = 1
	case used >= (r.Count*4+4)/5:
		level = 0
	default:
		return 0
	}
	if at := c.alarms[level]; at != 0 && at <= now && now-at < c.window { // else the clock was set back
		return 0
	}
	for i := range level + 1 {
		c.alarms[i] = now
	}
	return [...]int{80, 100}[level]
}

// Counters implements limit.Store.
func (s *Store) Counters(ctx context.Context, prefix string, now time.Time, yield func(limit.Counter) error) error {
	s.mu.Lock()
	at := s.millis(now)
	var found []limit.Counter
	var id []byte
	for i := range s.tables {
		for c := range s.tables[i].all() {
			if id = c.id.Append(id[:0]); strings.HasPrefix(string(id), prefix) {
				found = append(found, c.report(at))
			}
		}
	}
	s.mu.Unlock()
	for _, c := range found {
		if err := cmp.Or(ctx.Err(), yield(c)); err != nil {
			return err
		}
	}
	return nil
}

func (c *counter) report(now limit.Millis) limit.Counter {
	c.advance(now)
	used := c.series.Sum() + c.reserved
	if n := c.spread.Len(); n > 0 {
		used = n
	}
	out := limit.Counter{ID: c.id.String(), Used: used, Reserved: c.reserved, Peak: c.peak, Last: time.UnixMilli(c.last), Members: c.spread.Texts()}
	if c.series.Sum() > 0 {
		out.Wait = c.series.Wait(now, c.width(), 1)
	}
	return out
}

// Reset implements limit.Store.
func (s *Store) Reset(_ context.Context, ids []string) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, id := range ids {
		for i := range s.tables {
			if c := s.tables[i].find(limit.ParseID(id)); c != nil {
				s.drop(&s.tables[i], c)
				n++
			}
		}
	}
	return n, nil
}

// SetBlock implements limit.Store.
func (s *Store) SetBlock(_ context.Context, b limit.Block, lift bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.blocks) >= limit.MaxBlocks { // those that have ended make room
		maps.DeleteFunc(s.blocks, func(_ string, old limit.Block) bool { return !old.Active(b.Since) })
	}
	switch {
	case lift:
		delete(s.blocks, b.Login)
	case len(s.blocks) >= limit.MaxBlocks && s.blocks[b.Login].Login == "":
		return limit.ErrFull
	default:
		s.blocks[b.Login] = b
	}
	s.blocksChanged = true
	return nil
}

// Blocks implements limit.Store.
func (s *Store) Blocks(context.Context) ([]limit.Block, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.blocks)), nil
}

// blocked returns the active block of a login, or nil.
func (s *Store) blocked(login string, now time.Time) *limit.Block {
	if login == "" || len(s.blocks) == 0 {
		return nil
	}
	b, ok := s.blocks[login]
	if !ok || !b.Active(now) {
		return nil
	}
	return &b
}
