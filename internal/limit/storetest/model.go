package storetest

import (
	"math"
	"slices"
	"time"

	"github.com/postern-mail/postern/internal/limit"
)

// model is a naive exact counter: it remembers every single thing that was counted.
type model struct {
	events map[limit.ID][]event // by counter, in order of time
	txns   map[limit.Digest]*modelTxn
}

type event struct {
	at time.Time
	n  int64
}

type modelTxn struct {
	parts map[limit.Digest]bool
	held  map[limit.ID]*modelHeld
	done  bool
	ends  time.Time
}

type modelHeld struct {
	reserved, counted int64
	at                time.Time
}

func newModel() *model {
	return &model{make(map[limit.ID][]event), make(map[limit.Digest]*modelTxn)}
}

// used returns what was counted within a span, and what is reserved.
func (m *model) used(id limit.ID, now time.Time, span time.Duration) int64 {
	sum := m.reserved(id)
	for _, e := range m.events[id] {
		if now.Sub(e.at) < span {
			sum += e.n
		}
	}
	return sum
}

func (m *model) reserved(id limit.ID) (sum int64) {
	for _, t := range m.txns {
		if h := t.held[id]; h != nil {
			sum += h.reserved
		}
	}
	return sum
}

// expire ends transactions.
func (m *model) expire(now time.Time) {
	for id, t := range m.txns {
		if !now.Before(t.ends) {
			delete(m.txns, id)
		}
	}
}

func (m *model) txn(op *limit.Op) *modelTxn {
	t := m.txns[op.Txn]
	if t == nil {
		t = &modelTxn{parts: make(map[limit.Digest]bool), held: make(map[limit.ID]*modelHeld)}
		m.txns[op.Txn] = t
	}
	t.ends = op.Now.Add(limit.HoldFor)
	return t
}

func (t *modelTxn) hold(id limit.ID) *modelHeld {
	h := t.held[id]
	if h == nil {
		h = new(modelHeld)
		t.held[id] = h
	}
	return h
}

func (t *modelTxn) counted(op *limit.Op) bool {
	return op.Step == limit.End && t.done || op.Step == limit.Name && t.parts[op.Part]
}

// more returns what an item adds.
func (t *modelTxn) more(op *limit.Op, it *limit.Item) int64 {
	own := int64(0)
	if h := t.held[it.ID]; h != nil {
		own = h.reserved + h.counted
	}
	switch {
	case op.Step == limit.End:
		return it.Amount - own
	case it.Once && own > 0:
		return 0
	}
	return it.Amount
}

// over returns whether a store must refuse an item, and whether it may: by what is
// within the window, and by what may be forgotten a hundredth later.
func (m *model) over(t *modelTxn, op *limit.Op, it *limit.Item) (must, may bool) {
	more := max(t.more(op, it), it.Need)
	if more <= 0 {
		return false, false
	}
	w := it.Rule.Window
	return m.used(it.ID, op.Now, w)+more > it.Rule.Count, m.used(it.ID, op.Now, late(w))+more > it.Rule.Count
}

// late returns the longest time for which something counts.
func late(w time.Duration) time.Duration { return w + w/limit.Cells + time.Millisecond }

// count records what a store has counted.
func (m *model) count(t *modelTxn, op *limit.Op) {
	for i := range op.Items {
		it := &op.Items[i]
		more := t.more(op, it)
		h := t.hold(it.ID)
		switch {
		case op.Step == limit.End:
			m.add(it.ID, op.Now, it.Amount-h.counted)
			*h = modelHeld{0, it.Amount, op.Now}
		case more <= 0:
		case op.Reserve:
			h.reserved += more
		default:
			m.add(it.ID, op.Now, more)
			h.counted, h.at = h.counted+more, op.Now
		}
	}
	if op.Step == limit.End {
		t.done = true
	} else {
		t.parts[op.Part] = true
	}
}

func (m *model) add(id limit.ID, now time.Time, n int64) {
	if n < 0 {
		m.sub(id, -n)
		return
	}
	m.events[id] = append(m.events[id], event{now, n})
}

// sub takes back the latest counts.
func (m *model) sub(id limit.ID, n int64) {
	for n > 0 && len(m.events[id]) > 0 {
		last := &m.events[id][len(m.events[id])-1]
		taken := min(n, last.n)
		n, last.n = n-taken, last.n-taken
		if last.n == 0 {
			m.events[id] = m.events[id][:len(m.events[id])-1]
		}
	}
}

// undo takes back what was counted.
func (m *model) undo(op *limit.Op) {
	t := m.txns[op.Txn]
	if t == nil || !t.counted(op) {
		return
	}
	delete(t.parts, op.Part)
	for i := range op.Items {
		it := &op.Items[i]
		h := t.held[it.ID]
		if h == nil || op.Step == limit.Name && it.Once && len(t.parts) > 0 {
			continue
		}
		amount := it.Amount
		if op.Step == limit.End {
			amount = math.MaxInt64
		}
		reserved := min(h.reserved, amount)
		counted := min(h.counted, amount-reserved)
		if op.Now.Sub(h.at) < it.Rule.Window {
			m.sub(it.ID, counted)
		}
		h.reserved, h.counted = h.reserved-reserved, h.counted-counted
	}
	if op.Step == limit.End {
		delete(m.txns, op.Txn)
	}
}

// forget drops what is outside of every window, so that the model stays fast.
func (m *model) forget(now time.Time, span time.Duration) {
	for id, all := range m.events {
		m.events[id] = slices.DeleteFunc(all, func(e event) bool { return now.Sub(e.at) > 2*span })
	}
}
