package service

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Life is how long what one load of the configuration has opened stays open. It
// is filled while the settings are turned into a state, begins when that state
// is put in force, and ends with the last user of a state that was replaced.
//
// The methods that fill it are for the one goroutine that builds the state.
type Life struct {
	kept    *kept
	failed  func(error) // hears what could not be closed; may be nil
	files   []string
	again   time.Duration // after which a reload is due; 0 is none
	closers []func() error
	begins  []func()
	starts  []func()
	running worker

	users   atomic.Int64
	release func() // l.done, made once: a method value costs an allocation
}

// NewLife returns a life of its own, for a state that is built and never put in
// force. The caller ends it with [Life.Discard].
func NewLife() *Life { return newLife(new(kept), nil) }

func newLife(k *kept, failed func(error)) *Life {
	l := &Life{kept: k, failed: failed}
	l.release = l.done
	l.users.Store(1)
	return l
}

// Watch adds files and folders whose change must lead to a reload.
func (l *Life) Watch(files ...string) {
	for _, name := range files {
		if !slices.Contains(l.files, name) {
			l.files = append(l.files, name)
		}
	}
}

// Files returns what is watched.
func (l *Life) Files() []string { return l.files }

// LookAgain asks for a reload after a time, the shortest of several: a file was not
// fit to be read.
func (l *Life) LookAgain(after time.Duration) {
	if l.again == 0 || after < l.again {
		l.again = after
	}
}

// Again returns after which time a reload is due, 0 for none.
func (l *Life) Again() time.Duration { return l.again }

// OnEnd adds what is done when the life ends; the latest is done first.
func (l *Life) OnEnd(f func() error) { l.closers = append(l.closers, f) }

// OnBegin adds what is done just before the state is put in force. It must not
// fail, and not wait for anything.
func (l *Life) OnBegin(f func()) { l.begins = append(l.begins, f) }

// Background has work done while the state is in force: from then on until it
// is replaced. The work returns soon after its context ends.
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

// use counts a user in. False means that the life has ended already.
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

// done counts a user out. The last one closes what was opened.
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

// worker is background work with its end. The zero value has none.
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
