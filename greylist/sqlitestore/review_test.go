package sqlitestore_test

import (
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/greylist/memstore"
	"github.com/postern-mail/postern/greylist/sqlitestore"
)

// clock is the fake time of a bubble of synctest, and how far it has jumped: the writer
// has nothing to do in a jump.
type clock struct{ jumped atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.jumped.Load())) }

// pass lets time pass. Its last seconds are enough for the writer to review all rows, of
// some thousands, if it is due.
func (c *clock) pass(d time.Duration) {
	const atWork = 4 * time.Second
	c.jumped.Add(int64(d - atWork))
	time.Sleep(atWork)
}

// aReview is the time after which all rows have been reviewed.
const aReview = 11 * time.Minute

// file is what the next process finds in the file when this one is killed.
type file struct {
	rows  int
	store *sqlitestore.Store
}

// killed returns the file of a store that was killed once everything that must not wait
// was written.
func killed(t *testing.T, s *sqlitestore.Store, path string) file {
	t.Helper()
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "greylist.db")
	for _, end := range []string{"", "-wal"} {
		content, err := os.ReadFile(path + end)
		if err == nil {
			err = os.WriteFile(copied+end, content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	f := file{rows: rowsOf(t, copied), store: open(t, sqlitestore.Options{Path: copied})}
	t.Cleanup(func() { closeStore(t, f.store) })
	return f
}

// rowsOf counts the rows of a file.
func rowsOf(t *testing.T, path string) (n int) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err == nil {
		err = db.QueryRowContext(t.Context(), "SELECT count(*) FROM entries").Scan(&n)
	}
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return n
}

// sees records a sighting of a key at the present time.
func (c *clock) sees(t *testing.T, s greylist.Store, k greylist.Key, l greylist.Limits) greylist.Outcome {
	t.Helper()
	r, err := s.Seen(t.Context(), k, c.now(), l)
	if err != nil {
		t.Fatal(err)
	}
	return greylist.Decide(r, c.now(), l)
}

// tripletOf returns what a store knows.
func tripletOf(t *testing.T, s greylist.Store, k greylist.Key) greylist.Triplet {
	t.Helper()
	r, err := s.Peek(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	return r.ByNetwork
}

// TestLatestSightingsWait: a first pass is written at once. A later sighting is written
// when all rows are reviewed, or when the store is closed, unless triplets end soon.
func TestLatestSightingsWait(t *testing.T) {
	for name, short := range map[string]bool{"a long life": false, "a short life": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { latestSightingsWait(t, short) })
		})
	}
}

func latestSightingsWait(t *testing.T, short bool) {
	const n = 1200
	var c clock
	path := filepath.Join(t.TempDir(), "greylist.db")
	s := open(t, sqlitestore.Options{Path: path, Now: c.now})
	l := limits()
	if short {
		l.PassTTL = time.Hour
	}
	s.SetLimits(l)
	seeAll := func(want greylist.Why) greylist.Stamp {
		for i := range n {
			if o := c.sees(t, s, key(i), l); o.Why != want {
				t.Fatalf("%d: %d, want %d", i, o.Why, want)
			}
		}
		return greylist.At(c.now())
	}
	holds := func(what string, s *sqlitestore.Store, want greylist.Stamp) {
		t.Helper()
		for i := range n {
			if got := tripletOf(t, s, key(i)); got.Last != want || got.Passed == 0 {
				t.Fatalf("%s, %d: %+v, want the last at %d", what, i, got, want)
			}
		}
	}
	seeAll(greylist.New)
	c.pass(l.Delay)
	passed := seeAll(greylist.Waited)
	holds("once they have passed", killed(t, s, path).store, passed)
	c.pass(aReview)
	again := seeAll(greylist.Known)
	want := passed
	if short {
		want = again
	}
	holds("seen again", killed(t, s, path).store, want)
	shown := 0
	err := s.Walk(t.Context(), func(e greylist.Entry) error {
		if shown++; e.Triplet.Last != again {
			return fmt.Errorf("%+v is shown, want the last at %d", e, again)
		}
		return nil
	})
	if err != nil || shown != n {
		t.Errorf("%d of %d are shown: %v", shown, n, err)
	}
	c.pass(aReview)
	holds("after a review", killed(t, s, path).store, again)
	last := seeAll(greylist.Known)
	closeStore(t, s)
	s = open(t, sqlitestore.Options{Path: path})
	holds("after a restart", s, last)
	closeStore(t, s)
}

// TestBegunAnew: a triplet that had expired gets a new row, which counts, and the old one
// is removed.
func TestBegunAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 1200
		var c clock
		path := filepath.Join(t.TempDir(), "greylist.db")
		s := open(t, sqlitestore.Options{Path: path, Now: c.now})
		l := limits()
		l.RetryWindow = time.Hour
		for i := range n {
			c.sees(t, s, key(i), l)
		}
		c.pass(2 * time.Hour)
		for i := range n {
			if o := c.sees(t, s, key(i), l); o.Why != greylist.New {
				t.Fatalf("%d: %d", i, o.Why)
			}
		}
		began := greylist.At(c.now())
		f := killed(t, s, path)
		if f.rows != 2*n {
			t.Errorf("%d rows, want those of before too: %d", f.rows, 2*n)
		}
		for _, s := range []*sqlitestore.Store{s, f.store} {
			shown := 0
			if err := s.Walk(t.Context(), func(greylist.Entry) error { shown++; return nil }); err != nil || shown != n {
				t.Errorf("%d are shown, want %d: %v", shown, n, err)
			}
			for i := range n {
				if got := tripletOf(t, s, key(i)); got.First != began {
					t.Fatalf("%d: %+v, want the first at %d", i, got, began)
				}
			}
			c.pass(aReview)
		}
		if got := killed(t, s, path).rows; got != n {
			t.Errorf("%d rows after a review, want %d", got, n)
		}
		closeStore(t, s)
	})
}

// TestManyWait: entries whose latest sighting waits do not fill a small memory.
func TestManyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 5500 // memory has room for 4,096
		var c clock
		var last greylist.Stamp
		path := filepath.Join(t.TempDir(), "greylist.db")
		s := open(t, sqlitestore.Options{Path: path, Memory: 1, Now: c.now})
		defer closeStore(t, s)
		synced := func(i int) {
			if i%250 != 0 {
				return
			}
			if err := s.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for _, want := range []greylist.Why{greylist.New, greylist.Waited, greylist.Known, greylist.Known} {
			for i := range n {
				synced(i)
				if o := c.sees(t, s, key(i), limits()); o.Why != want {
					t.Fatalf("%d: %d, want %d", i, o.Why, want)
				}
			}
			last = greylist.At(c.now())
			c.pass(limits().Delay)
		}
		for i := range n {
			if got := tripletOf(t, s, key(i)); got.Last != last || got.Passed == 0 {
				t.Fatalf("%d: %+v, want the last at %d", i, got, last)
			}
		}
	})
}

// TestAnyHistory compares the decisions of a store, which is closed and opened again, and
// whose rows are reviewed, with those of a store that only has memory.
func TestAnyHistory(t *testing.T) {
	for _, memory := range []int64{0, 1} {
		t.Run(fmt.Sprint("memory ", memory), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { anyHistory(t, memory) })
		})
	}
}

func anyHistory(t *testing.T, memory int64) {
	const keys = 3000
	var c clock
	path := filepath.Join(t.TempDir(), "greylist.db")
	l := limits()
	l.RetryWindow, l.PassTTL = 30*time.Minute, 48*time.Hour
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	reference := memstore.New(memstore.Options{})
	reopened := func() *sqlitestore.Store {
		s := open(t, sqlitestore.Options{Path: path, Memory: memory, Now: c.now})
		s.SetLimits(l)
		return s
	}
	s := reopened()
	for range 40 {
		for range 300 {
			k := key(random.IntN(keys))
			if got, want := c.sees(t, s, k, l), c.sees(t, reference, k, l); got != want {
				t.Fatalf("seed %d, %s: %+v, want %+v", seed, k.ByNetwork(), got, want)
			}
		}
		var gone []greylist.ID
		for range random.IntN(50) {
			gone = append(gone, key(random.IntN(keys)).ByNetwork())
		}
		for _, s := range []greylist.Browser{s, reference} {
			if _, err := s.Delete(t.Context(), gone); err != nil {
				t.Fatal(err)
			}
		}
		c.pass([]time.Duration{4 * time.Second, 2 * time.Minute, aReview, 26 * time.Hour}[random.IntN(4)])
		if random.IntN(4) == 0 {
			closeStore(t, s)
			s = reopened()
		}
	}
	closeStore(t, s)
}
