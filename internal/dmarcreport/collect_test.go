package dmarcreport_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/internal/dmarcreport"
)

// deaf is a store that accepts nothing until it is fixed.
type deaf struct {
	dmarcreport.Store
	mu    sync.Mutex
	works bool
	rows  map[string]int64
}

func (s *deaf) Add(_ context.Context, b *dmarcreport.Batch) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.works {
		return 0, errors.New("no")
	}
	for _, r := range b.Rows {
		s.rows[b.Day.String()+" "+b.Domain+" "+r.Row] += r.Count
	}
	return 0, nil
}

func (s *deaf) Flush(context.Context) error                             { return nil }
func (s *deaf) Purge(context.Context, dmarcreport.Day, time.Time) error { return nil }

// TestCollector shows that a store that fails delays no mail, costs a bounded amount
// of memory, is reported once, and gets what was counted once it works again.
func TestCollector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &deaf{rows: make(map[string]int64)}
		var heard []error
		c := dmarcreport.NewCollector(store, time.Now, func(err error) { heard = append(heard, err) })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { c.Run(ctx); close(done) }()
		const most, more = 20_000, 100
		for i := range most + more {
			row := &dmarcreport.Row{Source: fmt.Sprint(i), HeaderFrom: "example.com"}
			c.Record("example.com", dmarcreport.Policy{P: "none"}, row)
			if i < most {
				c.Record("example.com", dmarcreport.Policy{P: "none"}, row)
			}
			if i%1000 == 0 {
				time.Sleep(time.Second) // a tick of the writer, by the test's clock
				synctest.Wait()
			}
		}
		if counted, dropped := c.Counted(); counted != 2*most || dropped != more {
			t.Errorf("%d counted, %d dropped", counted, dropped)
		}
		if c.Up() {
			t.Error("a store that fails counts as up")
		}
		store.mu.Lock()
		store.works = true
		store.mu.Unlock()
		time.Sleep(2 * time.Second)
		cancel()
		<-done
		var sum int64
		for _, n := range store.rows {
			sum += n
		}
		if len(store.rows) != most || sum != 2*most {
			t.Errorf("%d rows, %d messages", len(store.rows), sum)
		}
		if len(heard) != 2 || heard[0] == nil || heard[1] != nil || !c.Up() {
			t.Error(heard)
		}
	})
}

// TestPurgeOfDeafStore shows that a purge that works is no news about a store that takes
// no batches.
func TestPurgeOfDeafStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var heard []error
		c := dmarcreport.NewCollector(&deaf{}, time.Now, func(err error) { heard = append(heard, err) })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { c.Run(ctx); close(done) }()
		c.Record("example.com", dmarcreport.Policy{P: "none"}, &dmarcreport.Row{Source: "192.0.2.1"})
		time.Sleep(3*time.Hour + time.Minute)
		cancel()
		<-done
		if len(heard) != 1 || heard[0] == nil || c.Up() {
			t.Error(heard)
		}
	})
}

// full is a store on a server that removes rows and takes none.
type full struct {
	deaf
	room atomic.Bool
}

func (f *full) Probe(context.Context) error {
	if f.room.Load() {
		return nil
	}
	return errors.New("full")
}

// A store that takes no rows is noticed before there is one, and stays down over a purge
// that works.
func TestFullStoreIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var heard []error
		store := new(full)
		c := dmarcreport.NewCollector(store, time.Now, func(err error) { heard = append(heard, err) })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { c.Run(ctx); close(done) }()
		after := func(wait time.Duration, up bool, heardOf int) {
			t.Helper()
			time.Sleep(wait)
			synctest.Wait()
			if c.Up() != up || len(heard) != heardOf || (heard[heardOf-1] == nil) != up {
				t.Errorf("after %s: up %t, heard %v", wait, c.Up(), heard)
			}
		}
		after(0, false, 1)
		after(3*time.Hour, false, 1)
		store.room.Store(true)
		after(time.Minute, true, 2)
		cancel()
		<-done
	})
}

// TestLastFlush shows that a store that comes back within a few seconds gets what is left
// when the process ends, and that the end does not wait longer for one that does not.
func TestLastFlush(t *testing.T) {
	for _, back := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			store := &deaf{rows: make(map[string]int64)}
			c := dmarcreport.NewCollector(store, time.Now, nil)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- c.Run(ctx) }()
			row := &dmarcreport.Row{Source: "192.0.2.1"}
			for range 3 {
				c.Record("example.com", dmarcreport.Policy{P: "none"}, row)
			}
			time.Sleep(2 * time.Second) // the rows are in a batch that the store does not take
			c.Record("example.org", dmarcreport.Policy{P: "none"}, row)
			cancel()
			synctest.Wait()
			time.Sleep(3 * time.Second)
			store.mu.Lock()
			store.works = back
			store.mu.Unlock()
			began := time.Now()
			err := <-ended
			_, dropped := c.Counted()
			switch {
			case back:
				if err != nil || dropped != 0 || len(store.rows) != 2 {
					t.Error(err, dropped, store.rows)
				}
			case err == nil || err.Error() != "4 messages could not be written and are lost: no" || dropped != 4 || time.Since(began) > 2*time.Second:
				t.Error(err, dropped, time.Since(began))
			}
		})
	}
}

func TestRowKey(t *testing.T) {
	d, err := dmarcreport.ParseDay("2026-11-25")
	if err != nil || d.String() != "2026-11-25" || d.End().Sub(d.Begin()) != 24*time.Hour-time.Second || d.Begin().Location() != time.UTC {
		t.Error(d, err)
	}
	if _, err := dmarcreport.ParseDay("25.11.2026"); err == nil {
		t.Error("a day of another form is taken")
	}
}
