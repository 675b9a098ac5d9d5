// Package sqlitestore keeps the rows of DMARC reports in a SQLite file. Batches wait in
// memory for the only goroutine that writes. Notes are in memory, and a change of a note
// is written before it returns.
package sqlitestore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/postern-mail/postern/internal/dmarcreport"
	"github.com/postern-mail/postern/internal/store/sqlitefile"
)

// maxPending is the most rows that wait to be written.
const maxPending = 50_000

// Options describe a store.
type Options struct {
	Path   string
	Report func(sqlitefile.Event) // may be nil
	Now    func() time.Time       // nil: time.Now
	// Succeeds is sqlitefile's. Until the file is free, methods return an error, of Add and
	// the notes dmarcreport.ErrNotYet.
	Succeeds bool
}

// Store implements dmarcreport.Store.
type Store struct {
	keeper *sqlitefile.Keeper

	mu      sync.Mutex
	filled  bool // the file has been read
	pending []*dmarcreport.Batch
	waiting int // rows in pending
	notes   map[string]note
	dirty   map[string]bool // names of notes that have to be written
	purging dmarcreport.Day // earlier days are to be removed; 0 when they are
	lost    int64           // messages that had no room and were not reported yet

	// days has the days that were written. It belongs to the writer.
	days map[dmarcreport.Day]dayCount
}

type note struct {
	text  string
	until int64 // seconds since 1970
}

// dayCount counts the rows and domains of a day.
type dayCount struct{ rows, domains int64 }

var schema = sqlitefile.Schema{
	Name: "DMARC report", ID: 0x506f4452, Version: 1,
	Create: `
CREATE TABLE IF NOT EXISTS reports (
	id       INTEGER PRIMARY KEY,
	day      INTEGER NOT NULL, -- days since 1970
	domain   TEXT NOT NULL,    -- Policy Domain
	policy   TEXT NOT NULL,    -- JSON
	UNIQUE (day, domain)
);
CREATE TABLE IF NOT EXISTS rows (
	report INTEGER NOT NULL,
	row    TEXT NOT NULL,    -- JSON
	count  INTEGER NOT NULL,
	plain  INTEGER NOT NULL, -- 0 for DMARC reports
	PRIMARY KEY (report, row)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS late ( -- reports that have messages of earlier days
	report INTEGER PRIMARY KEY,
	since  INTEGER NOT NULL -- the first of these days
);
CREATE TABLE IF NOT EXISTS notes (
	name  TEXT PRIMARY KEY,
	text  TEXT NOT NULL,
	until INTEGER NOT NULL -- seconds since 1970
) WITHOUT ROWID;
`}

// Open opens or creates the file. A corrupt file is renamed and reported.
func Open(o Options) (*Store, error) {
	s := &Store{notes: make(map[string]note), dirty: make(map[string]bool), days: make(map[dmarcreport.Day]dayCount)}
	var err error
	s.keeper, err = sqlitefile.Open(sqlitefile.Options{Path: o.Path, Schema: schema, Report: o.Report, Now: o.Now, Succeeds: o.Succeeds}, writer{s})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Add implements dmarcreport.Store. Only when a batch is written is it known how many
// messages had no room. The next Add returns that number.
func (s *Store) Add(_ context.Context, b *dmarcreport.Batch) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.filled {
		return 0, dmarcreport.ErrNotYet
	}
	if _, sealed := s.notes[dmarcreport.StateName(b.Day, b.Domain)]; sealed {
		return 0, dmarcreport.ErrSealed
	}
	if s.waiting+len(b.Rows) > maxPending {
		return 0, dmarcreport.ErrBusy
	}
	s.pending = append(s.pending, b)
	s.waiting += len(b.Rows)
	lost := s.lost
	s.lost = 0
	return lost, nil
}

// Flush implements dmarcreport.Store.
func (s *Store) Flush(ctx context.Context) error { return s.keeper.Sync(ctx) }

// Failing reports whether the file cannot be written now.
func (s *Store) Failing() bool { return s.keeper.Pace.Failing() }

// Close writes pending changes and closes the file. It must be called once, after the
// last use.
func (s *Store) Close() error { return s.keeper.Close() }

// Days implements dmarcreport.Store.
func (s *Store) Days(ctx context.Context) (days []dmarcreport.Day, err error) {
	err = s.each(ctx, func(rows *sql.Rows) error {
		var day dmarcreport.Day
		err := rows.Scan(&day)
		days = append(days, day)
		return err
	}, "SELECT DISTINCT day FROM reports ORDER BY day")
	return days, err
}

// Domains implements dmarcreport.Store.
func (s *Store) Domains(ctx context.Context, day dmarcreport.Day) (list []dmarcreport.Domain, err error) {
	return s.domains(ctx, "day = ?", day)
}

// Domain implements dmarcreport.Store.
func (s *Store) Domain(ctx context.Context, day dmarcreport.Day, name string) (dmarcreport.Domain, error) {
	list, err := s.domains(ctx, "day = ? AND domain = ?", day, name)
	if err != nil || len(list) == 0 {
		return dmarcreport.Domain{Name: name}, err
	}
	return list[0], nil
}

func (s *Store) domains(ctx context.Context, where string, args ...any) (list []dmarcreport.Domain, err error) {
	err = s.each(ctx, func(rows *sql.Rows) error {
		var d dmarcreport.Domain
		var policy string
		if err := rows.Scan(&d.Name, &policy, &d.Messages, &d.Plain, &d.Rows, &d.Since); err != nil {
			return err
		}
		list = append(list, d)
		return json.Unmarshal([]byte(policy), &list[len(list)-1].Policy)
	}, `SELECT domain, policy, COALESCE(SUM(count), 0), COALESCE(SUM(count * plain), 0), COUNT(count),
		COALESCE((SELECT since FROM late WHERE late.report = id), 0)
		FROM reports LEFT JOIN rows ON rows.report = id WHERE `+where+` GROUP BY id ORDER BY domain`, args...)
	return list, err
}

// Rows implements dmarcreport.Store.
func (s *Store) Rows(ctx context.Context, day dmarcreport.Day, domain string, yield func(dmarcreport.Counted) error) error {
	return s.each(ctx, func(rows *sql.Rows) error {
		var c dmarcreport.Counted
		if err := rows.Scan(&c.Row, &c.Count, &c.Plain); err != nil {
			return err
		}
		return yield(c)
	}, "SELECT row, count, plain FROM rows WHERE report = (SELECT id FROM reports WHERE day = ? AND domain = ?) ORDER BY row", day, domain)
}

func (s *Store) each(ctx context.Context, row func(*sql.Rows) error, query string, args ...any) error {
	return s.keeper.Read(ctx, func(f *sqlitefile.File) error { return f.Each(ctx, row, query, args...) })
}

// Purge implements dmarcreport.Store. Rows are removed in steps, between writes.
func (s *Store) Purge(_ context.Context, before dmarcreport.Day, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.purging = before
	for name, n := range s.notes {
		if n.until < now.Unix() {
			delete(s.notes, name)
			s.dirty[name] = true
		}
	}
	return nil
}

// Note implements dmarcreport.Notes.
func (s *Store) Note(_ context.Context, name string, now time.Time) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.filled {
		return "", dmarcreport.ErrNotYet
	}
	return s.note(name, now), nil
}

func (s *Store) note(name string, now time.Time) string {
	if n := s.notes[name]; n.until >= now.Unix() {
		return n.text
	}
	return ""
}

var errFull = errors.New("too many notes about reports")

// SwapNote implements dmarcreport.Notes.
func (s *Store) SwapNote(ctx context.Context, name, old, text string, now, until time.Time) (bool, error) {
	s.mu.Lock()
	if !s.filled {
		s.mu.Unlock()
		return false, dmarcreport.ErrNotYet
	}
	if s.note(name, now) != old {
		s.mu.Unlock()
		return false, nil
	}
	if _, known := s.notes[name]; !known && len(s.notes) >= dmarcreport.MaxNotes {
		s.mu.Unlock()
		return false, errFull
	}
	if text == "" {
		delete(s.notes, name)
	} else {
		s.notes[name] = note{text, until.Unix()}
	}
	if strings.HasPrefix(name, dmarcreport.LeasePrefix) {
		s.mu.Unlock()
		return true, nil // no other process uses the file
	}
	s.dirty[name] = true
	s.mu.Unlock()
	return true, s.keeper.Sync(ctx)
}

// EachNote implements dmarcreport.Notes.
func (s *Store) EachNote(_ context.Context, prefix string, now time.Time, yield func(name, text string) error) error {
	found := make(map[string]string)
	s.mu.Lock()
	if !s.filled {
		s.mu.Unlock()
		return dmarcreport.ErrNotYet
	}
	for name, n := range s.notes {
		if strings.HasPrefix(name, prefix) && n.until >= now.Unix() {
			found[name] = n.text
		}
	}
	s.mu.Unlock()
	for name, text := range found {
		if err := yield(name, text); err != nil {
			return err
		}
	}
	return nil
}
