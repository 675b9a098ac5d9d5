package sqlitestore

import (
	"path/filepath"
	"testing"

	"github.com/postern-mail/postern/internal/store/sqlitefile"
)

// Rows of an older scheme are marked in steps: one long statement would keep the file
// behind memory, and all requests waiting for it.
func TestRenewInSteps(t *testing.T) {
	const rows = 2*renewRows + 5
	s := &Store{keeper: &sqlitefile.Keeper{Pace: sqlitefile.NewPace()}}
	s.memory = s.newMemory()
	w := writer{s}
	err := sqlitefile.Update(t.Context(), schema, filepath.Join(t.TempDir(), "greylist.db"), func(f *sqlitefile.File) error {
		if _, err := f.Writer.Exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
			INSERT INTO entries SELECT 10 * i, printf('192.0.2.0/24 alice@example.org bob%d@example.net', i), 1, 1, 0, 0, 0, 1 FROM n`, rows); err != nil {
			t.Fatal(err)
		}
		if err := w.Fill(t.Context(), f); err != nil {
			t.Fatal(err)
		}
		for _, want := range []int{rows - renewRows, rows - 2*renewRows, 0, 0} {
			if err := w.Turn(f); err != nil {
				t.Fatal(err)
			}
			var old int
			if err := f.Writer.QueryRow("SELECT COUNT(*) FROM entries WHERE scheme < 2").Scan(&old); err != nil || old != want {
				t.Errorf("%d rows are of the older scheme, want %d: %v", old, want, err)
			}
		}
		if s.outdated {
			t.Error("it looks at rows for ever")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
