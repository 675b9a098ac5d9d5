package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"math"
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
	if s.filters.current.Load().crowded() && s.filters.building.Load() == nil {
		s.rebuild()
	}
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
	}, "SELECT rowid, id, first, last, passed, passes, manual FROM entries WHERE rowid > ? ORDER BY rowid LIMIT ?", after, limit)
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

// fill reads a file that nobody else uses yet into memory, and makes the filter
// of what does not fit.
func (s *Store) fill(ctx context.Context, f *file) error {
	s.memory = memstore.New(memstore.Options{MaxEntries: s.options.MaxEntries, Backing: backing{s}})
	count, err := f.count(ctx)
	if err != nil {
		return err
	}
	filter := newFilter(count)
	s.filters.current.Store(filter)
	lowest := int64(math.MaxInt64)
	err = each(ctx, f.reader, func(rows *sql.Rows) error {
		r, err := scan(rows)
		lowest = r.RowID
		if err == nil && !s.memory.Fill(r) {
			filter.add(hashOf(r.ID))
		}
		return err
	}, "SELECT rowid, id, first, last, passed, passes, manual FROM entries ORDER BY rowid DESC LIMIT ?", s.options.MaxEntries)
	if err != nil || count <= int64(s.options.MaxEntries) {
		return err
	}
	return f.hashesBelow(ctx, lowest, filter.add)
}

// rebuild makes a filter that has room for more, while requests go on. What
// memory drops meanwhile goes into it as well.
func (s *Store) rebuild() {
	s.filters.building.Store(newFilter(0)) // it is under way
	s.done.Go(func() {
		defer s.filters.building.Store(nil) // after the new one is in use, see filters.add
		failed := false
		for pause := minRebuildPause; ; pause = min(2*pause, purgePause) {
			err := s.build(s.life())
			switch {
			case err == nil && failed:
				s.options.Report(Event{Kind: BuiltAgain, Path: s.options.Path})
				return
			case err == nil || s.life().Err() != nil:
				return
			case !failed:
				failed = true
				s.options.Report(Event{Kind: BuildFailing, Path: s.options.Path, Err: explain(s.options.Path, err)})
			}
			select {
			case <-time.After(pause):
			case <-s.stop:
				return
			}
		}
	})
}

// minRebuildPause is the time between the first two tries to build a filter; it
// doubles up to purgePause.
const minRebuildPause = time.Second

func (s *Store) build(ctx context.Context) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	count, err := s.file.count(ctx)
	if err != nil {
		return err
	}
	f := newFilter(count)
	s.filters.building.Store(f)
	if err := s.file.hashesBelow(ctx, math.MaxInt64, f.add); err != nil {
		return err
	}
	s.filters.current.Store(f)
	return nil
}

func (f *file) count(ctx context.Context) (n int64, err error) {
	err = f.reader.QueryRowContext(ctx, "SELECT COUNT(*) FROM entries").Scan(&n)
	return n, err
}

// hashesBelow gives the hashes of rows below a rowid.
func (f *file) hashesBelow(ctx context.Context, row int64, yield func(hash int64)) error {
	return each(ctx, f.reader, func(rows *sql.Rows) error {
		var hash int64
		err := rows.Scan(&hash)
		if err == nil {
			yield(hash)
		}
		return err
	}, "SELECT hash FROM entries WHERE rowid < ?", row)
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
