package sqlitestore

import (
	"context"
	"slices"
	"time"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/greylist/memstore"
	"github.com/postern-mail/postern/internal/store/sqlitefile"
)

// review is the position of the search for rows that have expired, that memory has a
// newer row for, or whose latest sighting is not written yet.
type review struct {
	after   int64 // rowid of the last row that was checked
	started time.Time
	resting bool
}

// reviewStep checks the next rows.
func (s *Store) reviewStep(f *sqlitefile.File) error {
	now := s.now()
	if s.review.resting && now.Sub(s.review.started) < reviewPause {
		return nil
	}
	if s.review.after == 0 {
		s.review.started, s.review.resting = now, false
	}
	rows, err := page(s.life(), s.after, s.review.after, reviewRows)
	if err == nil {
		err = s.reviewPage(f, rows, greylist.At(now))
	}
	switch limits := s.limits.Load(); {
	case err != nil:
		return err
	case len(rows) == reviewRows:
		s.review.after = rows[len(rows)-1].RowID
	default:
		s.review.after, s.review.resting = 0, true
		if limits != nil {
			s.memory.Purge(greylist.At(now), *limits)
		}
	}
	return nil
}

// reviewPage writes the latest sightings that memory has for some rows, and deletes those
// that have expired or are not needed.
func (s *Store) reviewPage(f *sqlitefile.File, rows []row, now greylist.Stamp) error {
	known := make([]memstore.Row, len(rows))
	for i := range rows {
		known[i] = rows[i].Row
	}
	renewed, gone := s.memory.Review(known)
	if err := s.flush(f, renewed); err != nil {
		return err
	}
	if limits := s.limits.Load(); limits != nil {
		gone = append(gone, expired(known, gone, renewed.Rows, now, *limits)...)
	}
	for some := range slices.Chunk(gone, txRows) {
		if err := s.store(f, some); err != nil {
			return err
		}
		for _, r := range some {
			s.memory.Discard(r.ID, r.RowID)
		}
	}
	return nil
}

// expired returns the rows that have expired by the times in the file, to be deleted, but
// none that was written since or is to be deleted anyway. These are in the order of rows.
func expired(rows, gone, renewed []memstore.Row, now greylist.Stamp, l greylist.Limits) (expired []memstore.Row) {
	for _, r := range rows {
		switch {
		case len(gone) > 0 && gone[0].RowID == r.RowID:
			gone = gone[1:]
		case len(renewed) > 0 && renewed[0].RowID == r.RowID:
			renewed = renewed[1:]
		case r.Expired(now, l):
			r.Deleted = true
			expired = append(expired, r)
		}
	}
	return expired
}

// Walk implements greylist.Browser. It writes first, so that the file has all entries.
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
			entry, ok := s.memory.Current(r.Row)
			if !ok {
				continue
			}
			if err := yield(entry); err != nil {
				return err
			}
		}
		if len(rows) < walkRows {
			return nil
		}
		after = rows[len(rows)-1].RowID
	}
}
