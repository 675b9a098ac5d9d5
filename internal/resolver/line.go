package resolver

import (
	"container/list"
	"net/netip"
)

// waiter is a question that waits for its place.
type waiter struct {
	place   *place
	network netip.Prefix // of the client; invalid for questions of our own
	granted chan struct{}
	gate    *gate // where it waits; nil once it has its place
	at      *list.Element
}

// line is those who wait at one gate. Each client network has its turn, so that
// the many questions of one are not before the few of another.
type line struct {
	turns  list.List // of *queue
	queues map[netip.Prefix]*queue
}

// queue is the questions of one network, and its place among the turns.
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

// pop takes out the first question of the network whose turn it is, nil when
// no one waits.
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
