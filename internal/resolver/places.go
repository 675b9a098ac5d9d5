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
	keptPart    = 4  // a quarter is reserved for questions that judge a mail
	networkPart = 8  // of one client network
	zonePart    = 8  // in one asked zone
	maxPerAsker = 16 // of one mail: more than it needs at once while DNS answers
)

// places assigns the places for questions in flight.
//
// A question must pass several gates, each with its own limit: for all questions,
// for those of strangers that judge no mail, for the asked zone, for the client's
// network, and for the mail. It takes a place in all of them at once. If one is
// full, it waits there and holds no place meanwhile. The waiting client networks
// are served in turn.
//
// Most questions are answered soon. Those that hold a place for long ask about
// names whose own servers are silent. So a question that waits ends the oldest one
// at its gate, once that has had its time (patience). A stranger can fill gates
// with silent names, but others wait no longer than that time.
//
// Invariants: no question waits at a gate with room; mu is never held while
// something is sent or waited for; a gate without questions is deleted.
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

// gate is one limit.
type gate struct {
	limit   int
	taken   int
	users   int       // places that use it or wait for it
	oldest  list.List // of *place, by age, without those that were asked to end
	waiting line
	forget  func() // called when the last user is gone; nil for gates that stay
}

// place is one question in flight, or one that waits for its place.
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

// acquire waits for a place for a question. The caller must release it.
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

// wait waits until w has its place. mu is held when it is called and when it
// returns, and not in between.
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

// start runs work that needs no place, unless the places are closed. close waits
// for it.
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

// maxGates is the largest number of gates that a question passes.
const maxGates = 5

// gates appends the gates that a question has to pass, in the order in which it
// waits.
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

// begin sets the function that ends the question in a place.
func (p *places) begin(pl *place, end context.CancelCauseFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pl.end = end
	if pl.ending {
		end(ErrCrowded)
	}
}

// crowd ends the oldest question at a gate if it has had its time, and returns when
// to check again.
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

// release frees a place and serves the questions that wait.
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

// serve assigns the room of a gate to the questions that wait there. A question
// that must still wait for another gate moves there.
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

// drop leaves the gates of the place.
func (pl *place) drop() {
	for _, g := range pl.gates {
		if g.users--; g.users == 0 && g.forget != nil {
			g.forget()
		}
	}
}

// load returns the numbers for Stats.
func (p *places) load() (inFlight int, queued, crowded uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all.taken, p.queued, p.crowded
}
