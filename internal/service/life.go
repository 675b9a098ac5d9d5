package service

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Life keeps open what one load of the configuration has opened. It is filled
// while a state is built from the settings, begins when that state is put in
// force, and ends with the last user of the state after it was replaced.
//
// Only the goroutine that builds the state may call the methods that fill it.
type Life struct {
	kept    *kept
	failed  func(error) // is called with errors of closing; may be nil
	files   []string
	again   time.Duration // after which a reload is due; 0 is none
	closers []func() error
	begins  []func()
	starts  []func()
	running worker

	users   atomic.Int64
	release func() // l.done, made once: a method value costs an allocation
}

// NewLife returns a life for a state that is never put in force. The caller ends
// it with [Life.Discard].
func NewLife() *Life { return newLife(new(kept), nil) }

func newLife(k *kept, failed func(error)) *Life {
	l := &Life{kept: k, failed: failed}
	l.release = l.done
	l.users.Store(1)
	return l
}

// Watch adds files and folders. A change of one of them leads to a reload.
func (l *Life) Watch(files ...string) {
	for _, name := range files {
		if !slices.Contains(l.files, name) {
			l.files = append(l.files, name)
		}
	}
}

// Files returns what is watched.
func (l *Life) Files() []string { return l.files }

// LookAgain asks for a reload after a time, because a file was not fit to be
// read. Of several times the shortest counts.
func (l *Life) LookAgain(after time.Duration) {
	if l.again == 0 || after < l.again {
		l.again = after
	}
}

// Again returns the time after which a reload is due, 0 for none.
func (l *Life) Again() time.Duration { return l.again }

// OnEnd adds a function that is called when the life ends. The functions are
// called in reverse order.
func (l *Life) OnEnd(f func() error) { l.closers = append(l.closers, f) }

// OnBegin adds a function that is called just before the state is put in force.
// It must not fail or wait for anything.
func (l *Life) OnBegin(f func()) { l.begins = append(l.begins, f) }

// Background adds work that runs while the state is in force. Its context ends
// when the state is replaced, and the work must return soon after.
func (l *Life) Background(work func(context.Context)) {
	l.starts = append(l.starts, func() { l.running.start(work) })
}

// Discard ends the life of a state that was not put in force.
func (l *Life) Discard() { l.done() }

// start begins the background work.
func (l *Life) start() {
	for _, f := range l.starts {
		f()
	}
}

// use counts one more user. It returns false when the life has ended already.
func (l *Life) use() bool {
	for {
		n := l.users.Load()
		if n == 0 {
			return false
		}
		if l.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// done counts one user less. The last user closes what was opened.
func (l *Life) done() {
	if l.users.Add(-1) > 0 {
		return
	}
	var errs []error
	for _, f := range slices.Backward(l.closers) {
		errs = append(errs, f())
	}
	l.fail(errors.Join(errs...))
}

func (l *Life) fail(err error) {
	if err != nil && l.failed != nil {
		l.failed(err)
	}
}

// worker runs background work and can stop it. The zero value has no work.
type worker struct {
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
}

func (w *worker) start(work func(context.Context)) {
	if w.cancel == nil {
		w.ctx, w.cancel = context.WithCancel(context.Background())
	}
	w.running.Go(func() { work(w.ctx) })
}

// stop returns when all work has ended.
func (w *worker) stop() {
	if w.cancel != nil {
		w.cancel()
	}
	w.running.Wait()
}
