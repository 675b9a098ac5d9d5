package sqlitestore_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/dmarcreport"
	"github.com/postern-mail/postern/internal/dmarcreport/sqlitestore"
	"github.com/postern-mail/postern/internal/dmarcreport/storetest"
	"github.com/postern-mail/postern/internal/store/sqlitefile"
)

func open(t *testing.T, path string) *sqlitestore.Store {
	t.Helper()
	s, err := sqlitestore.Open(sqlitestore.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closed(t *testing.T, s *sqlitestore.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) dmarcreport.Store {
		s := open(t, filepath.Join(t.TempDir(), "reports.db"))
		t.Cleanup(func() { closed(t, s) })
		return s
	})
}

// TestRestart shows that rows and notes outlive the process, and leases do not.
func TestRestart(t *testing.T) {
	path, now := filepath.Join(t.TempDir(), "reports.db"), time.Unix(1_800_000_000, 0)
	s := open(t, path)
	b := &dmarcreport.Batch{ID: "1", Day: storetest.Day, Domain: "example.com", Rows: []dmarcreport.Counted{{Row: "a", Count: 3, Plain: true}}}
	if _, err := s.Add(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"note", dmarcreport.LeasePrefix + "x"} {
		if ok, err := s.SwapNote(t.Context(), name, "", "text", now, now.Add(time.Hour)); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	closed(t, s)
	s = open(t, path)
	defer closed(t, s)
	if list, err := s.Domains(t.Context(), storetest.Day); err != nil || len(list) != 1 || list[0].Messages != 3 {
		t.Error(list, err)
	}
	if text, _ := s.Note(t.Context(), "note", now); text != "text" {
		t.Error("the note is lost")
	}
	if text, _ := s.Note(t.Context(), dmarcreport.LeasePrefix+"x", now); text != "" {
		t.Error("a lease outlives the only process that can have it")
	}
}

// TestSuccessor shows that a store whose file the predecessor still has takes nothing that
// depends on what is in the file: which reports were begun, and who sends them.
func TestSuccessor(t *testing.T) {
	path, now := filepath.Join(t.TempDir(), "reports.db"), time.Unix(1_800_000_000, 0)
	before := open(t, path)
	if ok, err := before.SwapNote(t.Context(), dmarcreport.StateName(storetest.Day, "example.com"), "", "begun", now, now.Add(time.Hour)); !ok || err != nil {
		t.Fatal(ok, err)
	}
	free := make(chan struct{})
	after, err := sqlitestore.Open(sqlitestore.Options{Path: path, Succeeds: true, Report: func(e sqlitefile.Event) {
		if e.Kind == sqlitefile.WritingAgain {
			close(free)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, after)
	b := &dmarcreport.Batch{ID: "1", Day: storetest.Day, Domain: "example.com", Rows: []dmarcreport.Counted{{Row: "a", Count: 3, Plain: true}}}
	_, addErr := after.Add(t.Context(), b)
	_, noteErr := after.Note(t.Context(), "note", now)
	_, swapErr := after.SwapNote(t.Context(), dmarcreport.LeasePrefix+"x", "", "text", now, now.Add(time.Hour))
	eachErr := after.EachNote(t.Context(), "", now, func(string, string) error { return nil })
	for _, err := range []error{addErr, noteErr, swapErr, eachErr} {
		if !errors.Is(err, dmarcreport.ErrNotYet) {
			t.Errorf("got %v", err)
		}
	}
	if _, err := after.Days(t.Context()); err == nil {
		t.Error("days of a file that is not open")
	}
	closed(t, before)
	<-free
	if _, err := after.Add(t.Context(), b); !errors.Is(err, dmarcreport.ErrSealed) {
		t.Errorf("the report was begun by the predecessor: %v", err)
	}
	b.Day++
	if _, err := after.Add(t.Context(), b); err != nil {
		t.Error(err)
	}
}

// TestPurgedLate shows that nothing is left of the beginning of a report that was purged:
// its number may be used again.
func TestPurgedLate(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "reports.db"))
	defer closed(t, s)
	add := func(id string, since dmarcreport.Day) dmarcreport.Domain {
		t.Helper()
		b := &dmarcreport.Batch{ID: id, Day: storetest.Day, Since: since, Domain: "example.com", Rows: []dmarcreport.Counted{{Row: "a", Count: 3}}}
		if _, err := s.Add(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		d, err := s.Domain(t.Context(), storetest.Day, "example.com")
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if d := add("1", storetest.Day-1); d.Since != storetest.Day-1 {
		t.Errorf("%+v", d)
	}
	if err := s.Purge(t.Context(), storetest.Day+1, time.Now()); err != nil {
		t.Fatal(err)
	}
	for days := []dmarcreport.Day{0}; len(days) > 0; { // it purges in the background
		var err error
		if days, err = s.Days(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if d := add("2", 0); d.Since != 0 || d.Messages != 3 {
		t.Errorf("%+v", d)
	}
}

// TestFull shows that a file that is not written takes a bounded number of rows.
func TestFull(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "reports.db"))
	defer closed(t, s)
	b := &dmarcreport.Batch{Day: storetest.Day, Domain: "example.com", Rows: make([]dmarcreport.Counted, 60_000)}
	if _, err := s.Add(t.Context(), b); err != dmarcreport.ErrBusy {
		t.Error(err)
	}
}
