package resolver

import (
	"container/list"
	"context"
	"net/netip"
	"sync"
	"time"
)

// The parts of Config.MaxInFlight.
const (
	keptPart    = 4  // a quarter is kept for questions that judge a mail
	networkPart = 8  // of one client network
	zonePart    = 8  // in one asked zone
	maxPerAsker = 16 // of one mail: more than it has at once when DNS answers
)

// places hands out the places for questions in flight.
//
// Every place is bounded by several gates: all questions, those of strangers
// that judge no mail, the asked zone, the client's network, the mail. A question takes its
// places in all of them at once, or waits at the first that is full and holds
// nothing meanwhile. Whoever waits is served by client networks in turn.
//
// Questions to servers that are well are answered soon; those that hold places
// for long ask about names whose own servers are silent. So a question that waits
// ends the oldest one at its gate, once that has had its time (patience). A
// stranger can fill gates with silent names, and keeps no one out for longer.
//
// Invariants: a gate with room has no one waiting; mu is never held while
// anything is sent or waited for; a gate without questions is forgotten.
type places struct {
	patience time.Duration
	limit    int

	mu       sync.Mutex
	closed   chan struct{}
	running  sync.WaitGroup // one for each place that is taken
	all      *gate
	common   *gate
	zones    map[string]*gate
	networks map[netip.Prefix]*gate
	askers   map[*Asker]*gate
	queued   uint64
	crowded  uint64 // questions that were ended for others
}

// gate is one bound.
type gate struct {
	limit   int
	taken   int
	users   int       // places that hold it or wait
	oldest  list.List // of *place: those that have not been told to end, by age
	waiting line
	forget  func() // when the last user has gone; nil for those that stay
}

// place is one question in flight, or one that waits to be.
type place struct {
	gates  []*gate
	marks  []*list.Element // in the gates' oldest
	room   [maxGates]*gate // for gates and marks
	places [maxGates]*list.Element
	since  time.Time
	end    context.CancelCauseFunc // of the flight; nil until it has begun
	ending bool
}

func newPlaces(limit int, patience time.Duration) *places {
	return &places{
		patience: patience,
		limit:    limit,
		closed:   make(chan struct{}),
		all:      &gate{limit: limit},
		common:   &gate{limit: max(limit-limit/keptPart, 1)},
		zones:    map[string]*gate{},
		networks: map[netip.Prefix]*gate{},
		askers:   map[*Asker]*gate{},
	}
}

// close ends all waits and waits for the questions in flight.
func (p *places) close() {
	p.mu.Lock()
	close(p.closed)
	p.mu.Unlock()
	p.running.Wait()
}

// acquire waits for a place for a question. Whoever gets one must release it.
func (p *places) acquire(ctx context.Context, q question) (*place, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	a := askingOf(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isClosed() {
		return nil, ErrClosed
	}
	pl := &place{}
	pl.gates = p.gates(pl.room[:0], a, q)
	full := pl.full()
	if full == nil {
		p.grant(pl)
		return pl, nil
	}
	p.queued++
	w := &waiter{place: pl, granted: make(chan struct{})}
	if a.who != nil {
		w.network = a.who.network
	}
	full.waiting.push(w)
	w.gate = full
	return p.wait(ctx, w)
}

// wait waits until w has its place. mu is held at the beginning and at the end,
// and not in between.
func (p *places) wait(ctx context.Context, w *waiter) (*place, error) {
	for {
		again := time.NewTimer(p.crowd(w.gate))
		p.mu.Unlock()
		var err error
		select {
		case <-w.granted:
		case <-again.C:
		case <-ctx.Done():
			err = ctx.Err()
		case <-p.closed:
			err = ErrClosed
		}
		again.Stop()
		p.mu.Lock()
		switch {
		case w.gate == nil:
			return w.place, nil
		case err != nil:
			w.gate.waiting.remove(w)
			w.place.drop()
			return nil, err
		}
	}
}

// start runs work that needs no place, unless the places are closed, which then
// waits for it.
func (p *places) start(work func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isClosed() {
		return false
	}
	p.running.Go(work)
	return true
}

func (p *places) isClosed() bool {
	select {
	case <-p.closed:
		return true
	default:
		return false
	}
}

// maxGates is how many gates a question passes at most.
const maxGates = 5

// gates appends those that a question has to pass, in the order in which it waits.
func (p *places) gates(gates []*gate, a asking, q question) []*gate {
	if a.who != nil {
		gates = append(gates, gateOf(p.askers, a.who, min(maxPerAsker, p.limit)))
		if a.who.network.IsValid() {
			gates = append(gates, gateOf(p.networks, a.who.network, max(p.limit/networkPart, 1)))
		}
		if !a.listed {
			gates = append(gates, gateOf(p.zones, zoneOf(q.name), max(p.limit/zonePart, 1)))
		}
	}
	if a.who != nil && !a.kept {
		gates = append(gates, p.common)
	}
	gates = append(gates, p.all)
	for _, g := range gates {
		g.users++
	}
	return gates
}

func gateOf[K comparable](all map[K]*gate, key K, limit int) *gate {
	g := all[key]
	if g == nil {
		g = &gate{limit: limit, forget: func() { delete(all, key) }}
		all[key] = g
	}
	return g
}

// full returns the first gate without room, nil when there is none.
func (pl *place) full() *gate {
	for _, g := range pl.gates {
		if g.taken >= g.limit {
			return g
		}
	}
	return nil
}

func (p *places) grant(pl *place) {
	p.running.Add(1)
	pl.since = time.Now()
	pl.marks = pl.places[:0]
	for _, g := range pl.gates {
		g.taken++
		pl.marks = append(pl.marks, g.oldest.PushBack(pl))
	}
}

// begin says how the question in a place is ended.
func (p *places) begin(pl *place, end context.CancelCauseFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pl.end = end
	if pl.ending {
		end(ErrCrowded)
	}
}

// crowd ends the oldest question at a gate if it has had its time, and returns
// when to look again.
func (p *places) crowd(g *gate) time.Duration {
	front := g.oldest.Front()
	if front == nil {
		return p.patience
	}
	pl := front.Value.(*place)
	if left := p.patience - time.Since(pl.since); left > 0 {
		return left
	}
	pl.ending = true
	pl.unmark()
	p.crowded++
	if pl.end != nil {
		pl.end(ErrCrowded)
	}
	return p.patience
}

func (pl *place) unmark() {
	for i, mark := range pl.marks {
		pl.gates[i].oldest.Remove(mark)
	}
	pl.marks = nil
}

// release gives a place back, and those that wait their turn.
func (p *places) release(pl *place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pl.unmark()
	for _, g := range pl.gates {
		g.taken--
	}
	for _, g := range pl.gates {
		p.serve(g)
	}
	pl.drop()
	p.running.Done()
}

// serve gives the room of a gate to those who wait at it. One that would still
// have to wait for another gate goes there.
func (p *places) serve(g *gate) {
	for g.taken < g.limit && !p.isClosed() {
		w := g.waiting.pop()
		if w == nil {
			return
		}
		if full := w.place.full(); full != nil {
			full.waiting.push(w)
			w.gate = full
			continue
		}
		p.grant(w.place)
		w.gate = nil
		close(w.granted)
	}
}

// drop lets go of the gates.
func (pl *place) drop() {
	for _, g := range pl.gates {
		if g.users--; g.users == 0 && g.forget != nil {
			g.forget()
		}
	}
}

// load is the numbers for Stats.
func (p *places) load() (inFlight int, queued, crowded uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all.taken, p.queued, p.crowded
}
