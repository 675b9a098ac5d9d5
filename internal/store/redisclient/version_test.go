package redisclient_test

import (
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/store/redisclient"
	"github.com/postern-mail/postern/internal/store/redistest"
)

// TestLook looks at a server that evicts keys, and at the same one with a user that has
// exactly the rights that the manual names for stores.
func TestLook(t *testing.T) {
	server := redistest.Start(t, "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru")
	server.Command(append([]string{"acl", "setuser", "postern", "on", ">secret"}, strings.Fields("~{postern}:* "+redisclient.Rights)...)...)
	for _, tt := range []struct{ url, version, evicts string }{
		{"redis://" + server.Addr, "redis ", "allkeys-lru"},
		{"redis://postern@" + server.Addr, "a server whose version", ""},
	} {
		o := redisclient.Options{URL: tt.url}
		if strings.Contains(tt.url, "@") {
			o.Password = "secret"
		}
		s, err := redisclient.Look(t.Context(), o)
		if err != nil || !strings.HasPrefix(s.Version, tt.version) || s.Evicts != tt.evicts || s.Latency <= 0 {
			t.Errorf("%s: %+v, %v", tt.url, s, err)
		}
	}
	server.Command("config", "set", "maxmemory-policy", "noeviction")
	for _, full := range []bool{false, true} {
		if s, err := redisclient.Look(t.Context(), redisclient.Options{URL: "redis://" + server.Addr}); err != nil || s.Evicts != "" || s.Full != full {
			t.Errorf("%+v, %v", s, err)
		}
		server.Command("config", "set", "maxmemory", "1")
	}
}
