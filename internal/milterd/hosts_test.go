package milterd

import (
	"maps"
	"testing"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/store/redistest"
)

// A daemon writes the settings that all hosts with its Redis must have in common, one that
// rotates no keys too: the Redis for rotations is a sign that it should.
func TestSettingsForOtherHosts(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	report := "--report-store=redis://" + server.Addr + "/0?prefix="
	lead := "--dkim-rotate-lead=redis://" + server.Addr + "/0?prefix="
	for name, test := range map[string]struct {
		args    []string
		setting string
		want    map[string]string
	}{
		"reports":       {[]string{report + "a"}, "report-store", map[string]string{"report-from": "", "report-org": "", "report-contact": "", "dmarc-org": "treewalk"}},
		"other reports": {[]string{report + "b", "--report-from=r@home.example", "--report-org=Home", "--report-contact=+1 2", "--dmarc-org=psl"}, "report-store", map[string]string{"report-from": "r@home.example", "report-org": "Home", "report-contact": "+1 2", "dmarc-org": "psl"}},
		"no rotation":   {[]string{lead + "c"}, "dkim-rotate-lead", map[string]string{"dkim-rotate": "0s", "dkim-expire": "7d", "dns-update": "", "dns-command": ""}},
		"a rotation":    {[]string{lead + "d", "--dkim-rotate=90d", "--dkim-expire=8d", "--dns-command=/bin/true"}, "dkim-rotate-lead", map[string]string{"dkim-rotate": "90d", "dkim-expire": "8d", "dns-update": "", "dns-command": "a program"}},
		"updates":       {[]string{lead + "e", "--dkim-rotate=90d", "--dns-update=tsig:/no/such/key@192.0.2.53"}, "dkim-rotate-lead", map[string]string{"dkim-rotate": "90d", "dkim-expire": "7d", "dns-update": "192.0.2.53:53", "dns-command": ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCurrent()
			defer c.Close()
			runtime := service.NewRuntime(zap.NewNop(), metrics.New(metrics.Options{}))
			args := append(test.args, "--dkim-keys="+t.TempDir())
			l, err := loadInto(c, runtime, args...)
			if err != nil {
				t.Fatal(err)
			}
			c.Apply(l.state, l.life)
			for { // it is written in the background
				all, err := SharedRedis(t.Context(), append(args, "--config="), nil)
				if err != nil || len(all) != 1 || all[0].Err != nil || all[0].Setting != test.setting || all[0].Unreadable > 0 || len(all[0].Hosts) > 1 {
					t.Fatalf("%+v, %v", all, err)
				}
				if len(all[0].Hosts) == 1 {
					if got := all[0].Hosts[0].Settings; !maps.Equal(got, test.want) {
						t.Errorf("%v\nwant %v", got, test.want)
					}
					return
				}
			}
		})
	}
}
