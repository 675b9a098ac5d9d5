package main

import (
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/admin/api"
)

// The exit status of limits show is whether the login can send now.
func TestLimitsShowStatus(t *testing.T) {
	use := func(used int64, action, unit string) []api.LimitUse {
		return []api.LimitUse{{Limit: "login." + unit + "=5/1h", Unit: unit, Used: used, Count: 5, Action: action}}
	}
	block := &api.LimitBlock{Login: "bob@x.example", Since: time.Unix(0, 0)}
	for name, c := range map[string]struct {
		shown api.LimitsShowResult
		code  int
		want  string
	}{
		"room":          {api.LimitsShowResult{Uses: use(4, "defer", "recipients")}, exitYes, "used 4"},
		"deferred":      {api.LimitsShowResult{Uses: use(5, "defer", "recipients")}, exitNo, "reached: defer\n"},
		"rejected":      {api.LimitsShowResult{Uses: use(5, "reject", "bytes")}, exitNo, "reached: reject\n"},
		"held":          {api.LimitsShowResult{Uses: use(9, "hold", "messages")}, exitYes, "reached: hold\n"},
		"warned":        {api.LimitsShowResult{Uses: use(9, "warn", "messages")}, exitYes, "reached: warn\n"},
		"networks":      {api.LimitsShowResult{Uses: use(5, "defer", "networks")}, exitYes, "reached: defer from other networks\n"},
		"blocked":       {api.LimitsShowResult{Block: block}, exitNo, "is blocked since"},
		"only watched":  {api.LimitsShowResult{Shadow: true, Uses: use(5, "defer", "recipients")}, exitYes, "nothing is refused"},
		"block watched": {api.LimitsShowResult{Shadow: true, Block: block}, exitYes, "nothing is refused"},
	} {
		var out strings.Builder
		if code := printLimitsShow(&out, &c.shown); code != c.code || !strings.Contains(out.String(), c.want) {
			t.Errorf("%s: exit %d, want %d: %s", name, code, c.code, out.String())
		}
	}
}
