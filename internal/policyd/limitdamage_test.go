package policyd

import (
	"database/sql"
	"path/filepath"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/service"
)

// A limit file with a row that cannot be read does not stop the daemon. The row is counted,
// and the blocks hold.
func TestLimitFileDamaged(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "limits.db")
	args := []string{"--config=", "--checks=limit", "--limit=login=5/1h", "--limit-store=" + sqliteScheme + path}
	core, logs := observer.New(zap.WarnLevel)
	run := func() *current {
		t.Helper()
		c := newCurrent()
		l, err := loadInto(c, service.NewRuntime(zap.New(core), metrics.New(metrics.Options{})), args, nil)
		if err != nil {
			t.Fatal(err)
		}
		l.apply(c)
		return c
	}
	c := run()
	adminAsk[api.LimitsBlockResult](t, c, api.LimitsBlock, api.LimitsBlockArgs{Login: "eve@x.example"})
	c.Close()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("INSERT INTO journal (data) VALUES (x'00ff')"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	c = run()
	defer c.Close()
	if d := ask(t, c, limitRequest("eve@x.example", "a")); d.Reason != record.LimitBlocked {
		t.Errorf("%+v", d)
	}
	if n := logs.FilterMessageSnippet("rows of the limit file cannot be read").Len(); n != 1 {
		t.Errorf("%d lines in %v", n, logs.All())
	}
	part, release := inForce[*limitPart](c)
	defer release()
	if n := part.store.unreadable.Load(); n != 1 {
		t.Errorf("%d rows counted", n)
	}
}
