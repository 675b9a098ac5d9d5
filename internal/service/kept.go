package service

import (
	"context"
	"sync"
)

// kept holds things that successive states share as long as their settings stay
// the same, so that what such a thing has learnt outlives a reload. The last user
// closes a thing.
type kept struct {
	mu     sync.Mutex
	things map[any]*thing
}

// thing is something that is kept.
type thing struct {
	value     any
	close     func() error // may be nil
	unchanged func() bool  // may be nil
	work      func(context.Context)
	begin     sync.Once // of the work
	running   worker
	users     int // guarded by kept.mu
}

// Opened is what the open function of [Keep] returns.
type Opened[T any] struct {
	Value T
	// Close is called once, when the last state that uses the value has ended.
	Close func() error
	// Work runs in the background. It starts when a state with this value is
	// first put in force, and ends when the value is closed.
	Work func(context.Context)
	// Unchanged reports whether open would still return the same value, because
	// what it read beside its settings, such as files, has not changed. Nil means
	// that it always would.
	Unchanged func() bool
}

// Keep returns the value that a state in force has under a key, or opens it. Two
// values have the same key only when one can replace the other, so the key has
// every setting that open reads. The key is a comparable struct of the caller's
// own type, so that keys of different packages are never equal. It has secrets
// only as digests.
func Keep[T any](l *Life, key any, open func() (Opened[T], error)) (T, error) {
	t, err := l.kept.use(key)
	l.fail(err)
	if t == nil {
		opened, err := open()
		if err != nil {
			return opened.Value, err
		}
		t = &thing{value: opened.Value, close: opened.Close, work: opened.Work, unchanged: opened.Unchanged, users: 1}
		l.kept.keep(key, t)
	}
	l.OnEnd(func() error { return l.kept.done(key, t) })
	if t.work != nil {
		l.starts = append(l.starts, func() { t.begin.Do(func() { t.running.start(t.work) }) })
	}
	return t.value.(T), nil
}

// use returns the thing under a key and counts one more user of it. It returns
// nil when there is none that can be used. The error is one of closing a thing
// that has changed.
func (k *kept) use(key any) (*thing, error) {
	k.mu.Lock()
	t := k.things[key]
	if t != nil {
		t.users++
	}
	k.mu.Unlock()
	if t == nil || t.unchanged == nil || t.unchanged() {
		return t, nil
	}
	return nil, k.done(key, t)
}

// keep keeps a thing under a key. It replaces one that has changed.
func (k *kept) keep(key any, t *thing) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.things == nil {
		k.things = make(map[any]*thing)
	}
	k.things[key] = t
}

// done counts one user less of a thing. The last user closes it.
func (k *kept) done(key any, t *thing) error {
	k.mu.Lock()
	t.users--
	last := t.users == 0
	if last && k.things[key] == t {
		delete(k.things, key)
	}
	k.mu.Unlock()
	if !last {
		return nil
	}
	t.running.stop()
	if t.close == nil {
		return nil
	}
	return t.close()
}
