package sqlitestore

import (
	"context"
	"time"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/greylist/memstore"
	"github.com/postern-mail/postern/internal/store/sqlitefile"
)

// purge is the position of the search for expired rows.
type purge struct {
	after   int64 // rowid of the last row that was checked
	started time.Time
	resting bool
}

// purgeStep checks the next rows and removes those that have expired. It reports no
// failure: the next write uses the same disk, and reports it.
func (s *Store) purgeStep(f *sqlitefile.File) {
	limits := s.limits.Load()
	now := s.now()
	if limits == nil || s.purge.resting && now.Sub(s.purge.started) < purgePause {
		return
	}
	if s.purge.after == 0 {
		s.purge.started, s.purge.resting = now, false
	}
	rows, err := page(s.life(), s.after, s.purge.after, purgeRows)
	if err != nil {
		return
	}
	if err := s.expire(f, rows, greylist.At(now), *limits); err != nil {
		return
	}
	if len(rows) == purgeRows {
		s.purge.after = rows[len(rows)-1].RowID
		return
	}
	s.purge.after, s.purge.resting = 0, true
	s.memory.Purge(greylist.At(now), *limits)
}

// expire deletes rows that have expired by the times in the file. If memory has a
// newer time, the entry is written again.
func (s *Store) expire(f *sqlitefile.File, rows []row, now greylist.Stamp, l greylist.Limits) error {
	var expired []memstore.Row
	for _, r := range rows {
		if r.Expired(now, l) {
			r.Deleted = true
			expired = append(expired, r.Row)
		}
	}
	if len(expired) == 0 {
		return nil
	}
	if err := s.store(f, expired); err != nil {
		return err
	}
	for _, r := range expired {
		s.memory.Discard(r.ID, r.RowID)
	}
	return nil
}

// Walk implements greylist.Browser. It writes first, so that the file is
// complete.
func (s *Store) Walk(ctx context.Context, yield func(greylist.Entry) error) error {
	if err := s.Sync(ctx); err != nil {
		return err
	}
	after := int64(0)
	for {
		var rows []row
		err := s.keeper.Read(func(*sqlitefile.File) (err error) {
			rows, err = page(ctx, s.after, after, walkRows)
			return err
		})
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
