package sqlitefile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/greylist/memstore"
)

// nothing is a backing that is empty.
type nothing struct{}

func (nothing) Load(context.Context, int64) (memstore.Row, bool, error) {
	return memstore.Row{}, false, errors.New("nothing is there to load")
}

// disk is a backing that takes its time, and knows when it got what.
type disk struct {
	start, perRow time.Duration // of a transaction, and of each of its rows

	mu     sync.Mutex
	stored map[greylist.ID]bool
}

func (d *disk) store(rows []memstore.Row) error {
	if len(rows) == 0 {
		return nil
	}
	time.Sleep(d.start + time.Duration(len(rows))*d.perRow)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range rows {
		d.stored[r.ID] = true
	}
	return nil
}

func (d *disk) has(id greylist.ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stored[id]
}

// follower writes what changes in memory, as a Keeper has it done.
type follower struct {
	*Pace
	memory *memstore.Store
	store  func([]memstore.Row) error
}

func (f follower) turn() error {
	began := time.Now()
	for from := 0; ; {
		batch, next := f.memory.Take(from, 10_000)
		if err := f.store(batch.Rows); err != nil {
			return err
		}
		f.memory.Written(batch)
		if from = next; from == 0 {
			f.stored(began)
			return nil
		}
	}
}

// TestPromise lets fake time pass under load and asks, every few milliseconds,
// what a crash would take.
func TestPromise(t *testing.T) {
	for name, test := range map[string]struct {
		disk  *disk
		pause time.Duration // of a connection between two sightings
	}{
		"an easy load":                   {&disk{start: time.Millisecond, perRow: 10 * time.Microsecond}, 5 * time.Millisecond},
		"nearly all that the disk takes": {&disk{start: 20 * time.Millisecond, perRow: 200 * time.Microsecond}, time.Millisecond},
		"half as much again as it takes": {&disk{start: 20 * time.Millisecond, perRow: 375 * time.Microsecond}, time.Millisecond},
		"a slow beginning":               {&disk{start: 300 * time.Millisecond, perRow: 50 * time.Microsecond}, time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { keepsPromise(t, test.disk, test.pause) })
		})
	}
}

const (
	loadTime  = 8 * time.Second
	loadConns = 4
)

func keepsPromise(t *testing.T, d *disk, pause time.Duration) {
	d.stored = map[greylist.ID]bool{}
	memory := memstore.New(memstore.Options{Backing: nothing{}})
	b := follower{NewPace(), memory, d.store}
	end := time.Now().Add(loadTime)
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(flushInterval)
		defer ticker.Stop()
		for range ticker.C {
			if err := b.turn(); err != nil {
				t.Error(err)
			}
			if time.Now().After(end) {
				return
			}
		}
	})
	type answer struct {
		id greylist.ID
		at time.Time
	}
	var mu sync.Mutex
	var answers []answer // oldest first, without those that are known to be stored
	total := 0
	for c := range loadConns {
		wg.Go(func() {
			for i := 0; time.Now().Before(end); i++ {
				k := greylist.NewKey("", "", "192.0.2.0/24", fmt.Sprint(c, ".", i, "@example.org"), "x@example.net")
				b.Wait(t.Context())
				if _, err := memory.Seen(t.Context(), k, time.Now(), greylist.Limits{Delay: time.Minute, RetryWindow: time.Hour}); err != nil {
					t.Error(err)
				}
				mu.Lock()
				answers = append(answers, answer{k.ByNetwork(), time.Now()})
				total++
				mu.Unlock()
				time.Sleep(pause)
			}
		})
	}
	for time.Now().Before(end) {
		time.Sleep(7 * time.Millisecond)
		mu.Lock()
		old := 0
		for old < len(answers) && time.Since(answers[old].at) > promise {
			old++
		}
		due := answers[:old]
		answers = answers[old:]
		mu.Unlock()
		if i := slices.IndexFunc(due, func(a answer) bool { return !d.has(a.id) }); i >= 0 {
			t.Errorf("a crash after %v would take %s, answered %v ago", loadTime-time.Until(end), due[i].id, time.Since(due[i].at))
			break
		}
	}
	wg.Wait()
	if total < 1000 {
		t.Errorf("only %d sightings: no load", total)
	}
}

// TestWaitGrowsWithLag has a file that is behind, more and more.
func TestWaitGrowsWithLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewPace()
		for lag, want := range map[time.Duration]time.Duration{
			slackLag:                         0,
			slackLag + (promise-slackLag)/10: giveWay / 10,
			slackLag + (promise-slackLag)/2:  giveWay / 2,
			promise:                          giveWay,
			time.Minute:                      giveWay,
		} {
			before := time.Now()
			b.stored(before.Add(-lag))
			b.Wait(t.Context())
			if waited := time.Since(before); waited != want {
				t.Errorf("%v behind: waited %v, want %v", lag, waited, want)
			}
		}
	})
}

// TestFailingDiskCostsNoAnswer has a disk that takes nothing: requests do not
// wait for it.
func TestFailingDiskCostsNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewPace()
		time.Sleep(time.Minute)
		before := time.Now()
		b.Wait(t.Context())
		if waited := time.Since(before); waited != giveWay {
			t.Errorf("behind: waited %v", waited)
		}
		b.failing.Store(true)
		before = time.Now()
		b.Wait(t.Context())
		if waited := time.Since(before); waited != 0 {
			t.Errorf("failing: waited %v", waited)
		}
		b.failing.Store(false)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		before = time.Now()
		b.Wait(ctx)
		if waited := time.Since(before); waited != 0 {
			t.Errorf("a caller that has gone waited %v", waited)
		}
	})
}

func TestRest(t *testing.T) {
	for _, c := range []struct {
		name              string
		lag, worked, want time.Duration
		closed            bool
	}{
		{name: "as long as the work", worked: 3 * time.Millisecond, want: 3 * time.Millisecond},
		{name: "after a slow disk", worked: time.Second, want: longestRest},
		{name: "the file is behind", lag: promise, worked: 3 * time.Millisecond},
		{name: "the store is being closed", worked: 3 * time.Millisecond, closed: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := NewPace()
				time.Sleep(c.lag)
				ctx, end := context.WithCancel(t.Context())
				defer end()
				if c.closed {
					end()
				}
				began := time.Now()
				p.Rest(ctx, c.worked)
				if rested := time.Since(began); rested != c.want {
					t.Errorf("%v, want %v", rested, c.want)
				}
			})
		})
	}
}
