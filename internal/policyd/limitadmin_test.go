package policyd

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/postern-mail/postern/internal/admin/api"
)

// What is suggested from the most that each login has used, for how many may be
// touched.
func TestLimitsSuggest(t *testing.T) {
	c, _ := inForceWith(t, "--checks=limit", "--shadow=limit", "--limit-store=memory:", "--limit=login=2/1h", "--limit=login=1000/1d", "--limit=client=5/1h")
	for n, login := range []string{"a@x.example", "b@x.example", "c@x.example", "d@x.example"} {
		asks(t, c, login, login, 10*(n+1))
	}
	for touch, want := range map[int]string{0: "login.recipients=40/1h", 1: "login.recipients=30/1h", 3: "login.recipients=10/1h"} {
		got := adminAsk[api.LimitsSuggestResult](t, c, api.LimitsSuggest, api.LimitsSuggestArgs{Touch: touch}).Suggestions
		if len(got) != 2 || got[0].Limit != want || got[0].Touched != touch || got[0].Most != 40 || got[0].Logins != 4 || got[0].Now != "login.recipients=2/1h" {
			t.Errorf("touch %d: %+v", touch, got)
		}
	}
	if _, err := limitCommands(c)[api.LimitsSuggest](t.Context(), []byte(`{"touch":-1}`), func(any) {}); err == nil {
		t.Error("a negative number is taken")
	}
}

// What explain advises for a login that is over its limit, blocked, or has a limit of its own.
func TestLimitAdvice(t *testing.T) {
	overrides := filepath.Join(t.TempDir(), "overrides")
	if err := os.WriteFile(overrides, []byte("own@x.example recipients=1/1h\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _ := inForceWith(t, "--checks=limit", "--limit-store=memory:", "--limit=login=2/1h", "--limit-overrides=texthash:"+overrides)
	adminAsk[api.LimitsBlockResult](t, c, api.LimitsBlock, api.LimitsBlockArgs{Login: "eve@x.example"})
	o, release := inForce[*limitPart](c)
	defer release()
	for login, want := range map[string][]string{
		"bob@x.example": {"`postern limits reset bob@x.example` would forget what was counted for this login", "an entry for bob@x.example in a table of --limit-overrides would give it limits of its own"},
		"own@x.example": {"`postern limits reset own@x.example` would forget what was counted for this login"},
		"Eve@x.example": {"`postern limits unblock eve@x.example` would lift the block"},
		"":              nil,
	} {
		asks(t, c, login, login, 3)
		r := limitRequest(login, "last")
		d := ask(t, c, r)
		if got := o.advise(t.Context(), r, &d.Steps[0]); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", login, got, want)
		}
	}
}
