package verify

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
)

// later is the result of work that runs beside the message.
type later[T any] struct {
	done  chan struct{} // closed when the work has ended
	value T
	err   error // a panic of the work
}

// beside does work at once if the resolver remembers all that it asks, and
// otherwise in a goroutine that the message's running counts, until the first
// deadline at the latest: a goroutine with its timer costs more than the work when
// everything is known.
func beside[T any](ctx context.Context, m *Mail, work func(context.Context, Resolver) T) *later[T] {
	v := m.verifier
	if v.memory != nil {
		memory := v.memory.Memory()
		l := &later[T]{done: make(chan struct{})}
		l.run(func() T { return work(ctx, memory) })
		if !memory.Missed() {
			return l
		}
	}
	return start(&m.running, func() T {
		ctx, done := context.WithTimeout(ctx, v.options.firstDeadline())
		defer done()
		return work(ctx, v.options.Resolver)
	})
}

// start runs work in a goroutine that running counts.
func start[T any](running *sync.WaitGroup, work func() T) *later[T] {
	l := &later[T]{done: make(chan struct{})}
	running.Go(func() { l.run(work) })
	return l
}

// run does the work. A panic of it becomes an error: it must cost neither the
// daemon nor the rest of this message.
func (l *later[T]) run(work func() T) {
	defer close(l.done)
	defer rescue(&l.err)
	l.value = work()
}

// wait returns what the work gave, the zero value after a panic.
func (l *later[T]) wait() T {
	<-l.done
	return l.value
}

// rescue turns a panic into an error. It is deferred.
func rescue(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
	}
}
