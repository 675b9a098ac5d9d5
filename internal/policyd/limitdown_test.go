package policyd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/store/redistest"
	"github.com/postern-mail/postern/policy"
)

// TestLimitPaused stops Redis while mail comes. Every request is answered by limit-on-error,
// a block that is known holds, each command fails with the fix, and both changes are logged
// once. Counts are off by at most what was under way.
func TestLimitPaused(t *testing.T) {
	t.Parallel()
	for word, kind := range map[string]policy.Kind{"pass": policy.Pass, "defer": policy.Defer} {
		t.Run(word, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			const most, before, workers, each = 20, 5, 8, 4
			d := startLogged(t, "--checks=limit", "--limit-store=redis://"+server.Addr, fmt.Sprintf("--limit=login=%d/1h", most), "--limit-on-error="+word)
			if n := asks(t, d.current, "bob@x.example", "before", before); n != before {
				t.Fatalf("%d passed", n)
			}
			adminAsk[api.LimitsBlockResult](t, d.current, api.LimitsBlock, api.LimitsBlockArgs{Login: "eve@x.example"})
			server.Pause()
			var done sync.WaitGroup
			for w := range workers {
				done.Go(func() {
					for i := range each {
						v := ask(t, d.current, limitRequest("bob@x.example", fmt.Sprint("paused", w, "-", i)))
						if v.Kind != kind {
							t.Errorf("%+v", v)
						}
						if v := ask(t, d.current, limitRequest("eve@x.example", fmt.Sprint("paused", w, "-", i))); v.Reason != record.LimitBlocked {
							t.Errorf("a block while the server is paused: %+v", v)
						}
					}
				})
			}
			done.Wait()
			d.await("does not answer")
			commandsFail(t, d.current)
			server.Resume()
			d.await("works again")
			used := adminAsk[api.LimitsShowResult](t, d.current, api.LimitsShow, api.LimitsOfArgs{Value: "bob@x.example"}).Uses[0].Used
			if used < before || used > before+2*workers {
				t.Errorf("%d used", used)
			}
			if n := asks(t, d.current, "bob@x.example", "after", most+1); int64(n) != most-used {
				t.Errorf("%d passed after %d were used", n, used)
			}
			d.quiet()
		})
	}
}

// commandsFail checks that each command fails with the fix while the store is down.
func commandsFail(t *testing.T, c *current) {
	t.Helper()
	for name, args := range map[string]any{
		api.LimitsList: api.LimitsListArgs{}, api.LimitsShow: api.LimitsOfArgs{Value: "bob@x.example"}, api.LimitsReset: api.LimitsOfArgs{Value: "bob@x.example"},
		api.LimitsBlock: api.LimitsBlockArgs{Login: "bob@x.example"}, api.LimitsUnblock: api.LimitsBlockArgs{Login: "bob@x.example"}, api.LimitsSuggest: api.LimitsSuggestArgs{},
	} {
		if _, err := adminTry(t, c, name, args); err == nil || !strings.Contains(err.Error(), "see that limit-store") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLimitOverridesMidWindow changes the override of a login in the middle of a window.
// What was counted in the same window goes on to count, whatever the entry was meanwhile.
func TestLimitOverridesMidWindow(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "overrides")
	args := []string{"--checks=limit", "--limit-store=memory:", "--limit=login=5/1h", "--limit-overrides=texthash:" + path}
	age := time.Now().Add(-24 * time.Hour)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		age = age.Add(time.Hour)
		if err := os.Chtimes(path+".new", age, age); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	write("ann@x.example off\n")
	c, _ := inForceWith(t, args...)
	for i, step := range []struct {
		entry  string
		passed int // of 4
		used   int64
		count  int64
	}{
		{"ann@x.example off", 4, 4, 5},
		{"bob@x.example recipients=7/1h", 3, 7, 7},
		{"bob@x.example off", 4, 0, 0},
		{"bob@x.example recipients=3/1d", 3, 3, 3}, // another window begins with nothing
		{"bob@x.example recipients=9/1h", 2, 9, 9},
		{"bob@x.example many", 0, 9, 5}, // the general limit
		{"ann@x.example off", 0, 9, 5},
	} {
		write(step.entry + "\n")
		l, err := loadInto(c, quiet(), append([]string{"--config="}, args...), nil)
		if err != nil {
			t.Fatal(err)
		}
		l.apply(c)
		if n := asks(t, c, "bob@x.example", fmt.Sprint("step", i, "-"), 4); n != step.passed {
			t.Errorf("%s: %d passed, want %d", step.entry, n, step.passed)
		}
		show := adminAsk[api.LimitsShowResult](t, c, api.LimitsShow, api.LimitsOfArgs{Value: "bob@x.example"})
		if step.count == 0 {
			if len(show.Uses) != 0 {
				t.Errorf("%s: %+v", step.entry, show)
			}
			continue
		}
		if u := show.Uses[0]; u.Used != step.used || u.Count != step.count {
			t.Errorf("%s: %+v", step.entry, u)
		}
		if o := show.Override; strings.HasPrefix(step.entry, "bob") && (o == nil || o.Where != path+":1") || strings.HasSuffix(step.entry, "many") && o.Error == "" {
			t.Errorf("%s: override %+v", step.entry, o)
		}
	}
}
