package memstore

import "github.com/postern-mail/postern/internal/limit"

// table has the counters of one budget. The counters of one value, such as those of a
// login with several windows, are a list: a mail touches all of them, and only the first
// must be looked up.
type table struct {
	values map[string]*counter // the first counter of each value
	len    int                 // counters
	most   int
}

func newTable(most int) table { return table{values: make(map[string]*counter), most: most} }

// find returns a counter, or nil.
func (t *table) find(id limit.ID) *counter { return t.values[id.Value].of(id.Rule) }

// of returns the counter of a rule in the list that begins with c, or nil.
func (c *counter) of(rule string) *counter {
	for c != nil && c.id.Rule != rule {
		c = c.next
	}
	return c
}

// insert adds a counter that the table does not have.
func (t *table) insert(c *counter) {
	t.len++
	if first := t.values[c.id.Value]; first != nil {
		c.id.Value = first.id.Value // one text for all
		c.next, first.next = first.next, c
		return
	}
	t.values[c.id.Value] = c
}

func (t *table) remove(c *counter) {
	t.len--
	first := t.values[c.id.Value]
	switch {
	case first != c:
		for first.next != c {
			first = first.next
		}
		first.next = c.next
	case c.next == nil:
		delete(t.values, c.id.Value)
	default:
		t.values[c.id.Value] = c.next
	}
	c.next = nil
}

// all calls yield for the counters until it returns false. The order of Go's maps is
// random. yield may remove its counter.
func (t *table) all(yield func(*counter) bool) {
	for _, c := range t.values {
		for c != nil {
			next := c.next
			if !yield(c) {
				return
			}
			c = next
		}
	}
}

// looks is how many counters are looked at to choose one to drop.
const looks = 8

// least looks at a few counters and returns the one that has counted least.
func (t *table) least() *counter {
	var found *counter
	n := 0
	for c := range t.all {
		if found == nil || c.weight() < found.weight() {
			found = c
		}
		if n++; n == looks {
			break
		}
	}
	return found
}

func (c *counter) weight() int64 { return c.series.Sum() + c.reserved + c.spread.Len() }
