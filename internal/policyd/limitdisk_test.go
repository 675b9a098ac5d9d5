package policyd

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/store/disktest"
	"github.com/postern-mail/postern/policy"
)

// TestLimitDiskFull counts, blocks and unblocks on a full disk. Answers come from memory,
// whatever limit-on-error is, and every command says that its change is not on the disk.
// When there is room again, all of it is written.
func TestLimitDiskFull(t *testing.T) {
	t.Parallel()
	dir := disktest.Small(t)
	args := []string{"--checks=limit", "--limit-store=" + sqliteScheme + filepath.Join(dir, "limits.db"), "--limit=login=5/1h", "--limit-on-error=defer"}
	d := startLogged(t, args...)
	used := func(login string) int64 {
		t.Helper()
		return adminAsk[api.LimitsShowResult](t, d.current, api.LimitsShow, api.LimitsOfArgs{Value: login}).Uses[0].Used
	}
	asks(t, d.current, "bob@x.example", "before", 2)
	asks(t, d.current, "ann@x.example", "before", 5)
	adminAsk[api.LimitsBlockResult](t, d.current, api.LimitsBlock, api.LimitsBlockArgs{Login: "max@x.example"})
	free := disktest.Filled(t, dir)

	const unsaved = "lost if the daemon ends now"
	for range 5 { // as often as failures would open a breaker
		if _, err := adminTry(t, d.current, api.LimitsBlock, api.LimitsBlockArgs{Login: "eve@x.example"}); err == nil || !strings.Contains(err.Error(), unsaved) || !strings.Contains(err.Error(), "full") {
			t.Fatalf("block: %v", err)
		}
	}
	d.await("cannot be written")
	if said := d.condition("limit store"); !strings.HasPrefix(said, "ok: what is new is not stored") {
		t.Error(said)
	}
	if _, err := adminTry(t, d.current, api.LimitsUnblock, api.LimitsBlockArgs{Login: "max@x.example"}); err == nil || !strings.Contains(err.Error(), unsaved) {
		t.Errorf("unblock: %v", err)
	}
	if v := ask(t, d.current, limitRequest("eve@x.example", "full")); v.Reason != record.LimitBlocked {
		t.Errorf("a block on a full disk: %+v", v)
	}
	if v := ask(t, d.current, limitRequest("max@x.example", "full")); v.Kind != policy.Pass {
		t.Errorf("a block that was lifted on a full disk: %+v", v)
	}
	if reset := adminAsk[api.LimitsResetResult](t, d.current, api.LimitsReset, api.LimitsOfArgs{Value: "ann@x.example"}); reset.Reset != 1 || !reset.Unsaved {
		t.Errorf("%+v", reset)
	}
	if n := asks(t, d.current, "bob@x.example", "full", 5); n != 3 || used("bob@x.example") != 5 {
		t.Errorf("%d passed, %d used", n, used("bob@x.example"))
	}
	if list := adminAsk[api.LimitsListResult](t, d.current, api.LimitsList, api.LimitsListArgs{}); !list.Unsaved || list.Down != "" || len(list.Blocks) != 1 || len(list.Uses) != 2 {
		t.Errorf("%+v", list)
	}
	if s := adminAsk[api.LimitsSuggestResult](t, d.current, api.LimitsSuggest, api.LimitsSuggestArgs{}); len(s.Suggestions) != 1 {
		t.Errorf("%+v", s)
	}

	free()
	adminAsk[api.LimitsBlockResult](t, d.current, api.LimitsBlock, api.LimitsBlockArgs{Login: "ivy@x.example"}) // writes at once
	d.await("written again")
	if said := d.condition("limit store"); said != "ok" {
		t.Error(said)
	}
	d.Close()
	d = startLogged(t, args...)
	if used("bob@x.example") != 5 || used("ann@x.example") != 0 {
		t.Errorf("after a restart: %d, %d used", used("bob@x.example"), used("ann@x.example"))
	}
	if list := adminAsk[api.LimitsListResult](t, d.current, api.LimitsList, api.LimitsListArgs{}); list.Unsaved || len(list.Blocks) != 2 {
		t.Errorf("after a restart: %+v", list)
	}
}
