package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/greylist/memstore"
)

// purge is where the search for expired rows stands.
type purge struct {
	after   int64 // rowid of the last row looked at
	started time.Time
	resting bool
}

// purgeStep looks at the next rows and removes those that have expired. A
// failure is left to the next write, which meets the same disk.
func (s *Store) purgeStep() {
	limits := s.limits.Load()
	now := s.options.Now()
	if limits == nil || s.purge.resting && now.Sub(s.purge.started) < purgePause {
		return
	}
	if s.purge.after == 0 {
		s.purge.started, s.purge.resting = now, false
	}
	rows, err := s.page(s.life(), s.purge.after, purgeRows)
	if err != nil {
		return
	}
	if err := s.expire(rows, greylist.At(now), *limits); err != nil {
		return
	}
	if len(rows) == purgeRows {
		s.purge.after = rows[len(rows)-1].RowID
		return
	}
	s.purge.after, s.purge.resting = 0, true
	s.memory.Purge(greylist.At(now), *limits)
}

// expire deletes what has expired by what the file says; what memory knows
// better is written again.
func (s *Store) expire(rows []memstore.Row, now greylist.Stamp, l greylist.Limits) error {
	var expired []memstore.Row
	for _, r := range rows {
		if r.Expired(now, l) {
			r.Deleted = true
			expired = append(expired, r)
		}
	}
	if len(expired) == 0 {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.file.store(expired, s.behind.late); err != nil {
		return err
	}
	for _, r := range expired {
		s.memory.Discard(r.ID, r.RowID)
	}
	return nil
}

// page reads the rows that follow a rowid.
func (s *Store) page(ctx context.Context, after int64, limit int) (page []memstore.Row, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	err = each(ctx, s.file.reader, func(rows *sql.Rows) error {
		r, err := scan(rows)
		page = append(page, r)
		return err
	}, "SELECT "+rowColumns+" FROM entries WHERE rowid > ? ORDER BY rowid LIMIT ?", after, limit)
	return page, err
}

// walkRows is how many rows Walk reads at once.
const walkRows = 1000

// Walk implements greylist.Browser. It writes first, so that the file is
// complete.
func (s *Store) Walk(ctx context.Context, yield func(greylist.Entry) error) error {
	if err := s.Sync(ctx); err != nil {
		return err
	}
	after := int64(0)
	for {
		rows, err := s.page(ctx, after, walkRows)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if err := yield(r.Entry); err != nil {
				return err
			}
		}
		if len(rows) < walkRows {
			return nil
		}
		after = rows[len(rows)-1].RowID
	}
}

// fill reads a file that nobody else uses yet into memory, the newest first.
func (s *Store) fill(ctx context.Context, f *file) error {
	s.memory = memstore.New(memstore.Options{MaxEntries: s.options.MaxEntries, Backing: backing{s}})
	return each(ctx, f.reader, func(rows *sql.Rows) error {
		r, err := scan(rows)
		if err == nil {
			s.memory.Fill(r)
		}
		return err
	}, "SELECT "+rowColumns+" FROM entries ORDER BY rowid DESC")
}

// each calls f for every row of a query.
func each(ctx context.Context, db *sql.DB, f func(*sql.Rows) error, query string, args ...any) (err error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
