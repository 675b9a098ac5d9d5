package sqlitestore

import (
	"context"
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
	if f := s.filters.current.Load(); f != nil && f.crowded() && s.filters.building.Load() == nil {
		s.done.Go(s.buildFilter)
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
	if err := s.file.store(expired); err != nil {
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
	rows, err := s.file.reader.QueryContext(ctx,
		"SELECT rowid, id, first, last, passed, passes, manual FROM entries WHERE rowid > ? ORDER BY rowid LIMIT ?", after, limit)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		r, err := scan(rows)
		if err != nil {
			return nil, err
		}
		page = append(page, r)
	}
	return page, rows.Err()
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

// buildFilter makes a filter of all keys while requests go on. What is added
// meanwhile goes into it as well, and Barrier sees to what was under way when
// it began.
func (s *Store) buildFilter() {
	f, err := s.build()
	if err == nil {
		s.filters.current.Store(f) // before the other is taken away, see filters.add
	}
	s.filters.building.Store(nil)
	if err != nil && s.life().Err() == nil {
		s.options.Report(Event{Kind: BuildFailing, Path: s.options.Path, Err: explain(s.options.Path, err)})
	}
}

func (s *Store) build() (f *filter, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var count int64
	if err := s.file.reader.QueryRowContext(s.life(), "SELECT COUNT(*) FROM entries").Scan(&count); err != nil {
		return nil, err
	}
	f = newFilter(count)
	s.filters.building.Store(f)
	s.memory.Barrier(func(id greylist.ID) { f.add(hashOf(id)) })
	rows, err := s.file.reader.QueryContext(s.life(), "SELECT hash FROM entries")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var hash int64
		if err := rows.Scan(&hash); err != nil {
			return nil, err
		}
		f.add(hash)
	}
	return f, rows.Err()
}
