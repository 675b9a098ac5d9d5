package reportread

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/postern-mail/postern/internal/store/sqlitefile"
)

// schema is the schema of the file with reports. A command writes it from time to time,
// and daemons read it.
var schema = sqlitefile.Schema{
	Name: "report", ID: 0x506f5272, Version: 1, Shared: true,
	Create: `
CREATE TABLE IF NOT EXISTS reports (
	id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, kind TEXT NOT NULL, domain TEXT NOT NULL,
	begin INTEGER NOT NULL, end INTEGER NOT NULL, head TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS reports_end ON reports (end);
CREATE TABLE IF NOT EXISTS groups (
	report INTEGER NOT NULL REFERENCES reports (id), source TEXT NOT NULL, author TEXT NOT NULL, disposition TEXT NOT NULL,
	dkim INTEGER NOT NULL, spf INTEGER NOT NULL, why TEXT NOT NULL, messages INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS groups_report ON groups (report);
CREATE TABLE IF NOT EXISTS sources (
	domain TEXT NOT NULL, source TEXT NOT NULL, name TEXT NOT NULL, confirmed INTEGER NOT NULL, spf TEXT NOT NULL, seen INTEGER NOT NULL,
	PRIMARY KEY (domain, source)) WITHOUT ROWID;`,
}

const (
	// maxPending is the most groups that are written at once.
	maxPending = 20_000
	// ahead is how far a report may be dated in the future, because clocks differ. Others
	// are forged: they would never be too old, and would always be the latest.
	ahead = 48 * time.Hour
	// MaxOctets bounds the file, because anyone can send reports. Beyond it, the oldest
	// reports are removed.
	MaxOctets = 2 << 30
	// maxSources bounds the stored DNS results.
	maxSources = 100_000
	// trimReports and trimGroups bound what is removed in one transaction.
	trimReports = 10
	trimGroups  = 1000
)

// Store keeps reports in a SQLite file. The file is open only during writes, so that
// several commands can use it.
type Store struct {
	Path string
	Keep time.Duration // older reports are removed; 0 means none
	Most int64         // octets of the file; 0 means MaxOctets
	Now  func() time.Time

	// Counts of reports: those that were written, that were in the file, that are too old,
	// and that are dated in the future.
	New, Known, Old, Future int
	// Removed is the number of reports that were removed because the file had too many
	// octets, and RemovedUntil the end of the latest of them.
	Removed      int
	RemovedUntil time.Time

	pending []any // *Report or *TLSReport
	size    int
}

// Add adds a report. Flush writes it, if it was not written before.
func (s *Store) Add(ctx context.Context, r *Report) error {
	return s.insert(ctx, r, r.End, len(r.Groups))
}

// AddTLS adds a TLS report.
func (s *Store) AddTLS(ctx context.Context, r *TLSReport) error {
	size := len(r.Policies)
	for i := range r.Policies {
		size += len(r.Policies[i].Failures)
	}
	return s.insert(ctx, r, r.End, size)
}

func (s *Store) insert(ctx context.Context, report any, end time.Time, size int) error {
	switch {
	case s.Keep > 0 && end.Before(s.oldest()):
		s.Old++
		return nil
	case end.After(s.latest()):
		s.Future++
		return nil
	}
	s.pending, s.size = append(s.pending, report), s.size+1+size
	if s.size < maxPending {
		return nil
	}
	return s.Flush(ctx)
}

// Flush writes all added reports or none, and removes reports that are too old.
func (s *Store) Flush(ctx context.Context) error {
	added, known := 0, 0
	err := sqlitefile.Update(ctx, schema, s.Path, func(f *sqlitefile.File) error {
		err := f.InTx(func(tx *sql.Tx) error {
			for _, report := range s.pending {
				isNew, err := insert(ctx, tx, report)
				if err != nil {
					return err
				}
				if isNew {
					added++
				} else {
					known++
				}
			}
			return s.expire(ctx, tx)
		})
		if err != nil {
			return err
		}
		return s.trim(ctx, f)
	})
	if err != nil {
		return err
	}
	s.New, s.Known = s.New+added, s.Known+known
	s.pending, s.size = nil, 0
	return nil
}

func (s *Store) oldest() time.Time { return s.Now().Add(-s.Keep) }
func (s *Store) latest() time.Time { return s.Now().Add(ahead) }

// expire removes reports that Add would not accept now.
func (s *Store) expire(ctx context.Context, tx *sql.Tx) error {
	before := int64(0)
	if s.Keep > 0 {
		before = s.oldest().Unix()
	}
	after := s.latest().Unix()
	for _, one := range []struct {
		statement string
		args      []any
	}{
		{"DELETE FROM groups WHERE report IN (SELECT id FROM reports WHERE end < ? OR end > ?)", []any{before, after}},
		{"DELETE FROM reports WHERE end < ? OR end > ?", []any{before, after}},
		{"DELETE FROM sources WHERE seen < ?", []any{before}},
	} {
		if _, err := tx.ExecContext(ctx, one.statement, one.args...); err != nil {
			return err
		}
	}
	return nil
}

// trim removes the oldest reports while the file has too many octets. The file itself
// does not become smaller, but its free pages are used again.
func (s *Store) trim(ctx context.Context, f *sqlitefile.File) error {
	for {
		octets, err := octetsOf(ctx, f)
		if err != nil || octets <= cmp.Or(s.Most, MaxOctets) {
			return err
		}
		removed := 0
		if err := f.InTx(func(tx *sql.Tx) (err error) {
			removed, err = s.removeOldest(ctx, tx)
			return err
		}); err != nil || removed == 0 {
			return err
		}
		s.Removed += removed
	}
}

// octetsOf returns how many octets of a file are in use.
func octetsOf(ctx context.Context, f *sqlitefile.File) (int64, error) {
	var pages, free, size int64
	err := f.Writer.QueryRowContext(ctx, "SELECT page_count, freelist_count, page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size").Scan(&pages, &free, &size)
	return (pages - free) * size, err
}

// removeOldest removes some of the oldest reports, at least one if there is one, and
// returns their number.
func (s *Store) removeOldest(ctx context.Context, tx *sql.Tx) (removed int, err error) {
	rows, err := tx.QueryContext(ctx, "SELECT id, end, (SELECT COUNT(*) FROM groups WHERE report = id) FROM reports ORDER BY end, id LIMIT ?", trimReports)
	if err != nil {
		return 0, err
	}
	var id, end, groups int64
	var oldest []int64
	for total := int64(0); rows.Next() && total < trimGroups; total += groups {
		if err := rows.Scan(&id, &end, &groups); err != nil {
			return 0, errors.Join(err, rows.Close())
		}
		oldest = append(oldest, id)
		if at := time.Unix(end, 0).UTC(); at.After(s.RemovedUntil) {
			s.RemovedUntil = at
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return 0, err
	}
	for _, id := range oldest {
		for _, statement := range []string{"DELETE FROM groups WHERE report = ?", "DELETE FROM reports WHERE id = ?"} {
			if _, err := tx.ExecContext(ctx, statement, id); err != nil {
				return 0, err
			}
		}
	}
	return len(oldest), nil
}

// insert writes a report. It reports whether the report is new in the file.
func insert(ctx context.Context, tx *sql.Tx, report any) (isNew bool, err error) {
	switch r := report.(type) {
	case *Report:
		id, err := insertHead(ctx, tx, r.key(), "dmarc", r.Policy.Domain, r.Begin, r.End, headOf(r))
		if id == 0 || err != nil {
			return false, err
		}
		return true, insertGroups(ctx, tx, id, r.Groups)
	case *TLSReport: // its details are few, and read whole
		id, err := insertHead(ctx, tx, r.key(), "tls", "", r.Begin, r.End, r)
		return id != 0, err
	}
	return false, fmt.Errorf("report store: %T is no report", report)
}

// headOf returns a report without its groups, which are in rows of their own.
func headOf(r *Report) *Report {
	head := *r
	head.Groups = nil
	return &head
}

// insertHead returns 0 if the file has the report already.
func insertHead(ctx context.Context, tx *sql.Tx, k key, kind, domain string, begin, end time.Time, head any) (id int64, err error) {
	text, err := json.Marshal(head)
	if err != nil {
		return 0, err
	}
	done, err := tx.ExecContext(ctx, "INSERT OR IGNORE INTO reports (key, kind, domain, begin, end, head) VALUES (?, ?, ?, ?, ?, ?)",
		k[:], kind, domain, begin.Unix(), end.Unix(), string(text))
	if err != nil {
		return 0, err
	}
	if n, err := done.RowsAffected(); n == 0 || err != nil {
		return 0, err
	}
	return done.LastInsertId()
}

func insertGroups(ctx context.Context, tx *sql.Tx, report int64, groups []Group) error {
	insert, err := tx.PrepareContext(ctx, "INSERT INTO groups VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
	if err != nil {
		return err
	}
	for _, g := range groups {
		source := ""
		if g.Source.IsValid() {
			source = g.Source.String()
		}
		if _, err := insert.ExecContext(ctx, report, source, g.From, g.Disposition, g.DKIM, g.SPF, g.Why, g.Messages); err != nil {
			return errors.Join(err, insert.Close())
		}
	}
	return insert.Close()
}

// Remember stores the DNS results for the sources of sum, so that readers of the file
// need not ask the DNS.
func (s *Store) Remember(ctx context.Context, sum *Summary) error {
	return sqlitefile.Update(ctx, schema, s.Path, func(f *sqlitefile.File) error {
		return f.InTx(func(tx *sql.Tx) error {
			for _, d := range sum.Domains {
				for _, one := range d.Sources {
					if one.Name == "" && one.SPF == "" {
						continue
					}
					if _, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?, ?, ?)",
						d.Domain, one.Address, one.Name, one.Confirmed, one.SPF, s.Now().Unix()); err != nil {
						return err
					}
				}
			}
			_, err := tx.ExecContext(ctx, "DELETE FROM sources WHERE (domain, source) IN (SELECT domain, source FROM sources ORDER BY seen DESC LIMIT -1 OFFSET ?)", maxSources)
			return err
		})
	})
}

// Stored returns a summary of the reports in a file that end after since: who sends
// mail in the name of our domains. It asks no DNS. The error of a file that is not
// there is [os.ErrNotExist].
func Stored(ctx context.Context, path string, t *Tally) (*Summary, error) {
	err := sqlitefile.Look(ctx, schema, path, func(f *sqlitefile.File) error {
		if err := eachStored(ctx, f, t); err != nil {
			return err
		}
		return recall(ctx, f, t)
	})
	if err != nil {
		return nil, err
	}
	return t.Summary(), nil
}

// eachStored adds the reports of a file one by one. Nothing is locked from one report to
// the next, so that a command that writes the file need not wait for the last one.
func eachStored(ctx context.Context, f *sqlitefile.File, t *Tally) (err error) {
	var ids []int64
	if err := f.Each(ctx, func(rows *sql.Rows) error {
		var id int64
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	}, "SELECT id FROM reports WHERE end >= ? AND (? = '' OR kind = 'tls' OR domain = ?) AND (kind <> 'tls' OR NOT ?) ORDER BY id", since(t), t.Of, t.Of, t.NoTLS); err != nil {
		return err
	}
	heads, err := f.Reader.PrepareContext(ctx, "SELECT kind, head FROM reports WHERE id = ?")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, heads.Close()) }()
	groups, err := f.Reader.PrepareContext(ctx, "SELECT source, author, disposition, dkim, spf, why, messages FROM groups WHERE report = ?")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, groups.Close()) }()
	for _, id := range ids {
		var kind, head string
		err := heads.QueryRowContext(ctx, id).Scan(&kind, &head)
		if errors.Is(err, sql.ErrNoRows) {
			continue // it has expired meanwhile
		}
		if err == nil {
			err = addStored(ctx, groups, id, kind, head, t)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// addStored adds one report.
func addStored(ctx context.Context, groups *sql.Stmt, id int64, kind, head string, t *Tally) error {
	if kind == "tls" {
		r := &TLSReport{}
		if err := json.Unmarshal([]byte(head), r); err != nil {
			return err
		}
		t.AddTLS(r)
		return nil
	}
	r := &Report{}
	if err := json.Unmarshal([]byte(head), r); err != nil {
		return err
	}
	if err := readGroups(ctx, groups, id, r); err != nil {
		return err
	}
	t.Add(r)
	return nil
}

func since(t *Tally) int64 {
	if t.Since.IsZero() {
		return 0
	}
	return t.Since.Unix()
}

func readGroups(ctx context.Context, groups *sql.Stmt, id int64, r *Report) (err error) {
	rows, err := groups.QueryContext(ctx, id)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var g Group
		var source string
		if err := rows.Scan(&source, &g.From, &g.Disposition, &g.DKIM, &g.SPF, &g.Why, &g.Messages); err != nil {
			return err
		}
		g.Source, _ = netip.ParseAddr(source) // "" is not valid, as it was
		r.Groups = append(r.Groups, g)
	}
	return rows.Err()
}

// recall adds the stored DNS results for the sources.
func recall(ctx context.Context, f *sqlitefile.File, t *Tally) error {
	return f.Each(ctx, func(rows *sql.Rows) error {
		var domain, address string
		var one Source
		if err := rows.Scan(&domain, &address, &one.Name, &one.Confirmed, &one.SPF); err != nil {
			return err
		}
		d, ip := t.domains[domain], netip.Addr{}
		ip, _ = netip.ParseAddr(address)
		if d != nil && d.sources[ip] != nil {
			s := d.sources[ip]
			s.Name, s.Confirmed, s.SPF = one.Name, one.Confirmed, one.SPF
		}
		return nil
	}, "SELECT domain, source, name, confirmed, spf FROM sources")
}
