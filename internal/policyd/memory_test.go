package policyd

import (
	"net/netip"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-mail/postern/internal/limit"
	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/service"
)

// A daemon with little memory keeps fewer entries than its settings and defaults allow,
// in memory and beside a file, and says so.
func TestStoresUnderMemoryLimit(t *testing.T) {
	const heap = 32 << 20
	t.Setenv("GOMEMLIMIT", "is the test's")
	before := debug.SetMemoryLimit(heap)
	defer debug.SetMemoryLimit(before)
	for _, file := range []bool{false, true} {
		greylistStore, limitStore := memoryStore, memoryStore
		if file {
			dir := t.TempDir()
			greylistStore, limitStore = sqliteScheme+filepath.Join(dir, "greylist.db"), sqliteScheme+filepath.Join(dir, "limits.db")
		}
		core, logged := observer.New(zap.WarnLevel)
		c := newCurrent()
		s, err := loadInto(c, service.NewRuntime(zap.New(core), metrics.New(metrics.Options{})), []string{"--config=", "--checks=greylist,limit",
			"--greylist-store=" + greylistStore, "--limit-store=" + limitStore, "--limit=client=5/1h", "--greylist-flood=0", "--greylist-flood-network=0"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.apply(c)
		if lines := logged.FilterMessageSnippet("less memory than greylist-memory").All(); len(lines) != 1 || lines[0].ContextMap()["entries_have"] != int64(heap/2) {
			t.Errorf("files: %v; logged %v", file, lines)
		}
		const clients, most = 15_000, limit.DefaultStrangers / 16 // as much as 32 MiB are of 512
		for i := range clients {
			r := limitRequest("", strconv.Itoa(i))
			r.Client.Address = netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
			ask(t, c, r)
		}
		part, release := inForce[*limitPart](c)
		kept := 0
		if err := part.store.store.Counters(t.Context(), "", time.Now(), func(limit.Counter) error { kept++; return nil }); err != nil {
			t.Error(err)
		}
		release()
		if kept != most {
			t.Errorf("files: %v; of %d clients %d are counted, want %d", file, clients, kept, most)
		}
		c.Close()
	}
}
