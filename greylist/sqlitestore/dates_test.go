package sqlitestore_test

import (
	"database/sql"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/greylist/sqlitestore"
)

// TestEditedDates opens a file with dates that no daemon writes. Each sender passes after
// one delay at the latest, and all entries can be listed.
func TestEditedDates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "greylist.db")
	closeStore(t, open(t, sqlitestore.Options{Path: path}))
	dates := []int64{
		0, -1, 1, at().Add(-24 * time.Hour).UnixMilli(), at().Add(24 * time.Hour).UnixMilli(),
		time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli(), at().UnixNano(), math.MinInt64, math.MaxInt64,
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	put := func(id greylist.ID, first, last, passed int64) {
		if _, err := db.Exec("INSERT INTO entries (id, first, last, passed, passes, manual, scheme) VALUES (?,?,?,?,3,0,?)", string(id), first, last, passed, greylist.Scheme); err != nil {
			t.Fatal(err)
		}
		rows++
	}
	for _, first := range dates {
		for _, last := range dates {
			for _, passed := range dates {
				put(key(rows).ByNetwork(), first, last, passed)
			}
		}
	}
	triplets := rows
	for i, last := range dates {
		put(greylist.ID(fmt.Sprintf("198.51.%d.0/24", i)), 0, last, 0)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for _, most := range []int64{0, 1} {
		s := open(t, sqlitestore.Options{Path: path, Memory: most})
		for i := range triplets {
			r, err := s.Seen(t.Context(), key(i), at(), limits())
			if err != nil {
				t.Fatal(err)
			}
			if d := greylist.Decide(r, at(), limits()); !d.Pass() && (d.Wait > limits().Delay || d.Wait <= 0) {
				t.Errorf("%+v: waits for %v", r.ByNetwork, d.Wait)
			}
			later := at().Add(limits().Delay)
			if r, err = s.Seen(t.Context(), key(i), later, limits()); err != nil || !greylist.Decide(r, later, limits()).Pass() {
				t.Errorf("%+v has not passed after the delay: %v", r.ByNetwork, err)
			}
		}
		for i := range dates {
			if err := s.Credit(t.Context(), fmt.Sprintf("198.51.%d.0/24", i), at()); err != nil {
				t.Error(err)
			}
		}
		listed := 0
		if err := errors.Join(s.Sync(t.Context()), s.Walk(t.Context(), func(greylist.Entry) error { listed++; return nil })); err != nil || listed < triplets {
			t.Errorf("%d entries listed: %v", listed, err)
		}
		closeStore(t, s)
	}
}
