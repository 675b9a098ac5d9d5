package sqlitestore_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/dmarcreport"
	"github.com/postern-mail/postern/internal/dmarcreport/sqlitestore"
	"github.com/postern-mail/postern/internal/dmarcreport/storetest"
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

// TestFull shows that a file that is not written takes a bounded number of rows.
func TestFull(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "reports.db"))
	defer closed(t, s)
	b := &dmarcreport.Batch{Day: storetest.Day, Domain: "example.com", Rows: make([]dmarcreport.Counted, 60_000)}
	if _, err := s.Add(t.Context(), b); err != dmarcreport.ErrBusy {
		t.Error(err)
	}
}
