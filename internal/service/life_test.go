package service

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

// part is what states of the tests keep: a table by the name of its file.
type part struct {
	name   string
	opened int // how many were opened before it
}

type partKey struct{ name string }

// bench builds states of one kept part.
type bench struct {
	Current[string]
	opened int
	closed []string
	stale  bool // what was kept has changed
	worked []string
}

// build makes a state of a part.
func (b *bench) build(t *testing.T, word, name string) (*Life, part) {
	t.Helper()
	l := b.NewLife(nil)
	l.OnEnd(func() error { b.closed = append(b.closed, "state "+word); return nil })
	p, err := Keep(l, partKey{name}, func() (Opened[part], error) {
		b.opened++
		return Opened[part]{
			Value:     part{name, b.opened},
			Close:     func() error { b.closed = append(b.closed, "part "+name); return nil },
			Unchanged: func() bool { return !b.stale },
		}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return l, p
}

// A state is closed when it has been replaced and its last user is gone, not
// earlier; what it opened last is closed first.
func TestStateLivesAsLongAsItsUsers(t *testing.T) {
	var b bench
	l, _ := b.build(t, "first", "a")
	b.Apply("first", l)
	s, release := b.Acquire()
	if s != "first" {
		t.Errorf("acquired %q", s)
	}
	l, _ = b.build(t, "second", "b")
	b.Apply("second", l)
	if len(b.closed) > 0 {
		t.Errorf("closed under a user: %q", b.closed)
	}
	release()
	if want := []string{"part a", "state first"}; !slices.Equal(b.closed, want) {
		t.Errorf("closed %q, want %q", b.closed, want)
	}
	b.Close()
	if want := []string{"part a", "state first", "part b", "state second"}; !slices.Equal(b.closed, want) {
		t.Errorf("closed %q, want %q", b.closed, want)
	}
	if s, release := b.Acquire(); s != "" {
		t.Errorf("acquired %q after the end", s)
	} else {
		release()
	}
}

// What a state in force has under the same key is used again, and closed with
// its last user: a state that was discarded is none.
func TestKeep(t *testing.T) {
	var b bench
	first, p := b.build(t, "first", "a")
	b.Apply("first", first)
	discarded, again := b.build(t, "discarded", "a")
	if again != p {
		t.Errorf("%v was opened beside %v", again, p)
	}
	discarded.Discard()
	second, again := b.build(t, "second", "a")
	if again != p || slices.Contains(b.closed, "part a") {
		t.Errorf("%v was opened beside %v, closed %q", again, p, b.closed)
	}
	b.Apply("second", second)
	third, other := b.build(t, "third", "b")
	b.Apply("third", third)
	if other == p || !slices.Contains(b.closed, "part a") {
		t.Errorf("another key gives %v; closed %q", other, b.closed)
	}
	b.Close()
	if len(b.kept.things) != 0 {
		t.Errorf("%d things are kept after the end", len(b.kept.things))
	}
}

// A thing that has changed since it was opened is opened again. Users of the old
// one keep it.
func TestKeepOpensWhatHasChanged(t *testing.T) {
	var b bench
	first, old := b.build(t, "first", "a")
	b.Apply("first", first)
	b.stale = true
	second, fresh := b.build(t, "second", "a")
	if fresh == old {
		t.Error("what has changed was kept")
	}
	if len(b.closed) > 0 {
		t.Errorf("closed %q while the first state is in force", b.closed)
	}
	b.stale = false
	b.Apply("second", second)
	if want := []string{"part a", "state first"}; !slices.Equal(b.closed, want) {
		t.Errorf("closed %q, want %q", b.closed, want)
	}
	third, again := b.build(t, "third", "a")
	if again != fresh {
		t.Error("the new one is not kept")
	}
	third.Discard()
	b.Close()
}

func TestKeepFails(t *testing.T) {
	var b bench
	l := b.NewLife(nil)
	broken := errors.New("no such table")
	if _, err := Keep(l, partKey{"a"}, func() (Opened[part], error) { return Opened[part]{}, broken }); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	l.Discard()
	if len(b.kept.things) != 0 {
		t.Error("what could not be opened is kept")
	}
}

// Work of a state ends before that of the next one begins; work of what is kept
// goes on. Neither begins in a state that is not put in force.
func TestBackgroundWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bench
		var mu sync.Mutex
		log := func(text string) {
			mu.Lock()
			defer mu.Unlock()
			b.worked = append(b.worked, text)
		}
		work := func(name string) func(context.Context) {
			return func(ctx context.Context) {
				log(name + " begins")
				<-ctx.Done()
				log(name + " ends")
			}
		}
		build := func(word string) *Life {
			l := b.NewLife(nil)
			_, err := Keep(l, partKey{"a"}, func() (Opened[part], error) { return Opened[part]{Work: work("part")}, nil })
			if err != nil {
				t.Fatal(err)
			}
			l.OnBegin(func() { log(word + " is prepared") })
			l.Background(work(word))
			return l
		}
		build("discarded").Discard()
		for _, word := range []string{"first", "second"} {
			b.Apply(word, build(word))
			synctest.Wait()
		}
		slices.Sort(b.worked[1:3]) // work of both begins at once
		b.Close()
		want := []string{
			"first is prepared", "first begins", "part begins",
			"second is prepared", "first ends", "second begins",
			"second ends", "part ends",
		}
		if !slices.Equal(b.worked, want) {
			t.Errorf("got  %q\nwant %q", b.worked, want)
		}
	})
}

func TestFilesAreWatchedOnce(t *testing.T) {
	l := NewLife()
	l.Watch("/a", "/b")
	l.Watch("/a")
	if got := l.Files(); !slices.Equal(got, []string{"/a", "/b"}) {
		t.Errorf("watches %q", got)
	}
}

func TestReplaceUnderUsers(t *testing.T) {
	var c Current[*int]
	next := func() {
		l, n := c.NewLife(nil), 1
		l.OnEnd(func() error { n = 0; return nil })
		c.Apply(&n, l)
	}
	next()
	stop := make(chan struct{})
	var users sync.WaitGroup
	for range 4 {
		users.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				n, release := c.Acquire()
				if *n != 1 {
					t.Error("a state was closed under its user")
				}
				release()
			}
		})
	}
	for range 50 {
		next()
	}
	close(stop)
	users.Wait()
	c.Close()
}

// Acquiring costs no allocation: it is done for each request.
func TestAcquireDoesNotAllocate(t *testing.T) {
	var c Current[*int]
	c.Apply(new(int), c.NewLife(nil))
	if n := testing.AllocsPerRun(100, func() { _, release := c.Acquire(); release() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
