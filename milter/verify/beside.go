package verify

import (
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

// start runs work in a goroutine that running counts. A panic of it becomes an
// error: it must cost neither the daemon nor the rest of this message.
func start[T any](running *sync.WaitGroup, work func() T) *later[T] {
	l := &later[T]{done: make(chan struct{})}
	running.Go(func() {
		defer close(l.done)
		defer rescue(&l.err)
		l.value = work()
	})
	return l
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
