package verify

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
)

// later is the result of work that runs while the message comes.
type later[T any] struct {
	done  chan struct{} // closed when the work has ended
	value T
	err   error // a panic of the work
}

// beside does the work at once if the resolver's cache has all answers, because then
// a goroutine with its timer would cost more than the work. Otherwise it does the
// work in a goroutine, until the first deadline at the latest. m.running counts that
// goroutine.
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

// start runs work in a goroutine, which is counted in running.
func start[T any](running *sync.WaitGroup, work func() T) *later[T] {
	l := &later[T]{done: make(chan struct{})}
	running.Go(func() { l.run(work) })
	return l
}

// run does the work. A panic becomes an error, so that the daemon and the rest of
// this message go on.
func (l *later[T]) run(work func() T) {
	defer close(l.done)
	defer rescue(&l.err)
	l.value = work()
}

// wait returns the result of the work, or the zero value after a panic.
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
