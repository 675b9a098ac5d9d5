package policyd

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/store/disktest"
	"github.com/postern-mail/postern/policy"
)

// While the disk of its file is full, the greylist answers and says that it keeps nothing
// new; when there is room again it says no more.
func TestGreylistDiskFull(t *testing.T) {
	t.Parallel()
	dir := disktest.Small(t)
	d := startLogged(t, "--checks=greylist", "--greylist-store="+sqliteScheme+filepath.Join(dir, "greylist.db"))
	kept := func() bool { // as postern doctor asks
		t.Helper()
		stats, err := adminTry(t, d.current, api.GreylistStats, struct{}{})
		unsaved := stats.(api.GreylistStatsResult).Unsaved
		if said := d.condition("greylist store"); said != "ok" && !unsaved || !strings.HasPrefix(said, "ok: what is new is not stored") && unsaved {
			t.Errorf("unsaved %t: %s", unsaved, said)
		}
		return err == nil && !unsaved
	}
	seen := func(sender string) {
		t.Helper()
		hook, err := d.current.Hook("greylist", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer hook.Release()
		r := limitRequest(sender, sender)
		r.Login = "" // a stranger
		if v := hook.Chain.Decide(t.Context(), r); v.Kind != policy.Defer {
			t.Errorf("%s: %+v", sender, v)
		}
	}
	if !kept() {
		t.Error("nothing is kept on a disk with room")
	}
	free := disktest.Filled(t, dir)
	seen("a@away.example")
	d.await("cannot be written")
	if kept() {
		t.Error("the answer of a full disk is that new entries are kept")
	}
	free()
	seen("b@away.example")
	d.await("written again")
	if !kept() {
		t.Error("nothing is kept on a disk that has room again")
	}
}
