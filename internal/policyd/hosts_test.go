package policyd

import (
	"maps"
	"testing"

	"github.com/postern-mail/postern/internal/service/hosts"
	"github.com/postern-mail/postern/internal/store/redistest"
)

// A daemon writes the settings that all hosts with its stores must have in common, and after
// a reload the new ones.
func TestSettingsForOtherHosts(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := newCurrent()
	defer c.Close()
	args := []string{"--config=", "--checks=greylist,limit", "--greylist-store=redis://" + server.Addr, "--limit-store=redis://" + server.Addr + "/0?prefix=limits"}
	for _, step := range []struct {
		more []string
		want map[string]map[string]string // by setting
	}{
		{nil, map[string]map[string]string{
			"greylist-store": {
				"greylist-key": "spf", "greylist-ipv4-prefix": "24", "greylist-ipv6-prefix": "64", "recipient-delimiter": "+",
				"greylist-delay": "3m", "greylist-retry-window": "2d", "greylist-pass-ttl": "35d", "greylist-awl-after": "5", "greylist-awl-ttl": "35d",
				"greylist-flood-network": "1000", "greylist-when": "always",
			},
			"limit-store": {"limit": "", "limit-action": "defer", "limit-overrides": "", "limit-ipv4-prefix": "24", "limit-ipv6-prefix": "64", "login-domain": ""},
		}},
		{[]string{
			"--greylist-key=network", "--greylist-ipv4-prefix=32", "--greylist-ipv6-prefix=56", "--recipient-delimiter=-", "--greylist-delay=5m",
			"--greylist-retry-window=3d", "--greylist-pass-ttl=30d", "--greylist-awl-after=6", "--greylist-awl-ttl=31d", "--greylist-flood-network=7", "--greylist-when=suspicious",
			"--limit=login.recipients=300/60m", "--limit=client.messages=5/1h", "--limit-action=login=hold", "--limit-action=defer",
			"--limit-overrides=inline:{bob=messages=off}", "--limit-ipv4-prefix=23", "--limit-ipv6-prefix=48", "--login-domain=home.example",
		}, map[string]map[string]string{
			"greylist-store": {
				"greylist-key": "network", "greylist-ipv4-prefix": "32", "greylist-ipv6-prefix": "56", "recipient-delimiter": "-",
				"greylist-delay": "5m", "greylist-retry-window": "3d", "greylist-pass-ttl": "30d", "greylist-awl-after": "6", "greylist-awl-ttl": "31d",
				"greylist-flood-network": "7", "greylist-when": "suspicious",
			},
			"limit-store": {
				"limit": "client.messages=5/1h login.recipients=300/1h", "limit-action": "defer login=hold", "limit-overrides": "inline:{bob=messages=off}",
				"limit-ipv4-prefix": "23", "limit-ipv6-prefix": "48", "login-domain": "home.example",
			},
		}},
	} {
		all := append(args, step.more...)
		l, err := loadInto(c, quiet(), all, nil)
		if err != nil {
			t.Fatal(err)
		}
		l.apply(c)
		var shared []hosts.Shared
		for written := false; !written; { // in the background
			if shared, err = SharedStores(t.Context(), all, nil); err != nil || len(shared) != 2 {
				t.Fatalf("%+v, %v", shared, err)
			}
			written = true
			for _, s := range shared {
				if s.Err != nil || s.Unreadable > 0 || len(s.Hosts) > 1 {
					t.Fatalf("%+v", s)
				}
				written = written && len(s.Hosts) == 1 && (step.more == nil || s.Hosts[0].Settings["greylist-delay"] == "5m" || s.Hosts[0].Settings["login-domain"] != "")
			}
		}
		for _, s := range shared {
			if got := s.Hosts[0].Settings; !maps.Equal(got, step.want[s.Setting]) {
				t.Errorf("%s: %v\nwant %v", s.Setting, got, step.want[s.Setting])
			}
		}
	}
}
