package sqlitestore_test

import (
	"database/sql"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/postern-mail/postern/internal/dmarcreport"
	"github.com/postern-mail/postern/internal/dmarcreport/storetest"
)

// TestManyRows shows that a report is written in one pass, in memory that does not
// depend on the number of its rows. With POSTERN_REPORT_ROWS=1000000 it takes half a
// minute.
func TestManyRows(t *testing.T) {
	const bound = 64 << 20
	rows := 20_000
	if n, err := strconv.Atoi(os.Getenv("POSTERN_REPORT_ROWS")); err == nil {
		rows = n
	}
	path := filepath.Join(t.TempDir(), "reports.db")
	closed(t, open(t, path)) // makes the tables
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`INSERT INTO reports VALUES (1, ?, 'example.com', '{"p":"none"}')`, storetest.Day); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		INSERT INTO rows SELECT 1, printf('{"ip":"10.%d.%d.%d","do":"none","hf":"example.com","sd":"example.com","sr":"pass","c":"%07d"}', i >> 16, (i >> 8) & 255, i & 255, i), 1, 1 FROM n`, rows); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s := open(t, path)
	defer closed(t, s)
	runtime.GC()
	out := &peak{}
	r := &dmarcreport.Report{Day: storetest.Day, Domain: dmarcreport.Domain{Name: "example.com"}}
	if err := r.WriteGzip(t.Context(), out, s); err != nil {
		t.Fatal(err)
	}
	if most := out.heap.Load(); most > bound {
		t.Errorf("%d MiB of memory", most>>20)
	}
	if out.octets < rows {
		t.Errorf("only %d octets for %d rows", out.octets, rows)
	}
	t.Logf("%d octets, %d MiB", out.octets, out.heap.Load()>>20)
}

// peak measures how much memory is in use while it is written to.
type peak struct {
	octets, writes int
	heap           atomic.Uint64
}

var _ io.Writer = (*peak)(nil)

func (p *peak) Write(b []byte) (int, error) {
	p.octets += len(b)
	if p.writes++; p.writes%16 == 0 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		p.heap.Store(max(p.heap.Load(), m.HeapInuse))
	}
	return len(b), nil
}
