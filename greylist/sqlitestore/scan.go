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

// purgeStep checks the next rows and removes those that have expired.
func (s *Store) purgeStep(f *sqlitefile.File) error {
	limits := s.limits.Load()
	now := s.now()
	if limits == nil || s.purge.resting && now.Sub(s.purge.started) < purgePause {
		return nil
	}
	if s.purge.after == 0 {
		s.purge.started, s.purge.resting = now, false
	}
	return s.purgeRows(f, greylist.At(now), *limits)
}

func (s *Store) purgeRows(f *sqlitefile.File, now greylist.Stamp, l greylist.Limits) error {
	rows, err := page(s.life(), s.after, s.purge.after, purgeRows)
	if err == nil {
		err = s.expire(f, rows, now, l)
	}
	switch {
	case err != nil:
		return err
	case len(rows) == purgeRows:
		s.purge.after = rows[len(rows)-1].RowID
	default:
		s.purge.after, s.purge.resting = 0, true
		s.memory.Purge(now, l)
	}
	return nil
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
		err := s.keeper.Read(ctx, func(*sqlitefile.File) (err error) {
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
