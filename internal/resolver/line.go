package resolver

import (
	"container/list"
	"net/netip"
)

// waiter is a question that waits for a place.
type waiter struct {
	place   *place
	network netip.Prefix // of the client; invalid for questions of our own
	granted chan struct{}
	gate    *gate // where it waits; nil once it has its place
	at      *list.Element
}

// line is the queue at one gate. Client networks take turns, so that many questions
// of one network do not delay the few of another.
type line struct {
	turns  list.List // of *queue
	queues map[netip.Prefix]*queue
}

// queue holds the waiting questions of one network, and the position of the network
// in the turns.
type queue struct {
	network netip.Prefix
	waiters list.List // of *waiter
	turn    *list.Element
}

func (l *line) push(w *waiter) {
	q := l.queues[w.network]
	if q == nil {
		q = &queue{network: w.network}
		if l.queues == nil {
			l.queues = map[netip.Prefix]*queue{}
		}
		l.queues[w.network] = q
		q.turn = l.turns.PushBack(q)
	}
	w.at = q.waiters.PushBack(w)
}

// pop removes and returns the first question of the network whose turn it is. It is
// nil when none waits.
func (l *line) pop() *waiter {
	front := l.turns.Front()
	if front == nil {
		return nil
	}
	q := front.Value.(*queue)
	w := q.waiters.Front().Value.(*waiter)
	l.turns.MoveToBack(front)
	l.remove(w)
	return w
}

func (l *line) remove(w *waiter) {
	q := l.queues[w.network]
	q.waiters.Remove(w.at)
	if q.waiters.Len() == 0 {
		l.turns.Remove(q.turn)
		delete(l.queues, w.network)
	}
}
