package rotate

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/resolver/authority"
	"github.com/postern-mail/postern/internal/resolver/bindtest"
	"github.com/postern-mail/postern/milter/sign"
)

// startBIND runs a real name server. It skips the test in short mode (go test -short),
// and where no server is installed; with CI set, a missing server is a failure.
func startBIND(t *testing.T, records string) *bindtest.Server {
	t.Helper()
	if testing.Short() {
		t.Skip("needs BIND, and the tests run without servers (-short)")
	}
	if _, err := os.Stat(bindtest.Program); err != nil && os.Getenv("CI") == "" {
		t.Skip("bind9 is not installed; see .ci/setup")
	}
	s, err := bindtest.Start(t.Context(), t.TempDir(), example, records)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// A rotation of both kinds of keys from first to last with a real name server; only
// the clock is moved.
func TestRotationWithBIND(t *testing.T) {
	dir := t.TempDir()
	old, err := sign.Generate(sign.NewKeys{Dir: dir, Domain: example, Selector: "old"})
	if err != nil {
		t.Fatal(err)
	}
	server := startBIND(t, old[0].ZoneEntry+old[1].ZoneEntry)
	update, err := OpenUpdate(server.Key, server.Addr, -1)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	dns := &Authorities{authority.Asker{Servers: []netip.AddrPort{server.Addr}}}
	r := New(Settings{
		Dir: dir, Publisher: update, DNS: dns, Now: func() time.Time { return now },
		QueueLifetime: func(context.Context) time.Duration { return lifetime },
	})
	if err := r.Start(example); err != nil {
		t.Fatal(err)
	}
	s, err := r.State(example)
	if err != nil || len(s.Incoming) != 2 || len(s.Outgoing) != 2 {
		t.Fatalf("state %+v, %v", s, err)
	}
	first := s.Incoming[0].Selector + "._domainkey." + example
	for range 20 {
		if _, err := r.Advance(t.Context(), example); err != nil {
			t.Fatal(err)
		}
		if s, err = r.State(example); err != nil {
			t.Fatal(err)
		}
		if s.Phase == Publish {
			view, err := dns.Look(t.Context(), first)
			if err != nil || view.Cached != time.Hour || len(view.Servers) != 1 || view.Servers[0].TXT[0] != s.Incoming[0].Record {
				t.Fatalf("view %+v, %v", view, err)
			}
		}
		if s.Phase == Revoked {
			view, err := dns.Look(t.Context(), "old._domainkey."+example)
			if err != nil || view.Servers[0].TXT[0] != "v=DKIM1; h=sha256; k=rsa; p=" {
				t.Fatalf("revoked %+v, %v", view, err)
			}
		}
		if s.Phase == Done {
			break
		}
		now = now.Add(MinKeep)
	}
	var steps []string
	for _, e := range s.History {
		steps = append(steps, string(e.Step))
	}
	if got := strings.Join(steps, " "); got != "started handed seen signs retired handed revoked handed finished" {
		t.Errorf("steps %q", got)
	}
	view, err := dns.Look(t.Context(), "old._domainkey."+example)
	if err != nil || len(view.Servers[0].TXT) != 0 || view.Cached != 30*time.Minute {
		t.Errorf("removed %+v, %v", view, err)
	}
}

func TestUpdateIsRefused(t *testing.T) {
	server := startBIND(t, "")
	wrong := filepath.Join(t.TempDir(), "wrong.key")
	text, err := os.ReadFile(server.Key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(wrong, []byte(strings.Replace(string(text), "c3Vm", "AAAA", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	change := Change{Action: DoPublish, Domain: example, Name: "a._domainkey." + example, Value: "v=DKIM1; p=", TTL: time.Hour}
	elsewhere := change
	elsewhere.Name = "a._domainkey.example.net"
	for name, tt := range map[string]struct {
		key    string
		change Change
		want   string
	}{
		"key that may not": {server.OtherKey, change, "REFUSED; let the key other. update it"},
		"wrong secret":     {wrong, change, "NOTAUTH, BADSIG; give the server and this host the same key postern."},
		"no such zone":     {server.Key, elsewhere, "has no zone for a._domainkey.example.net (REFUSED); name the primary"},
	} {
		u, err := OpenUpdate(tt.key, server.Addr, -1)
		if err != nil {
			t.Fatal(err)
		}
		err = u.Change(t.Context(), tt.change)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "c3Vm") {
			t.Errorf("%s: the error holds the secret", name)
		}
	}
}

// The zone has a wildcard that revokes every other selector, which caches may hold for a day,
// and a key of another host with today's selector. Its record stays, the new key waits for a
// day, and the wildcard is not taken for a record that is still to be removed.
func TestRotationBesideWildcardAndOtherKey(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	now := time.Now()
	today := "postern-" + now.UTC().Format("20060102")
	old, err := sign.Generate(sign.NewKeys{Dir: dir, Domain: example, Selector: "old", Type: sign.Ed25519})
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := sign.Generate(sign.NewKeys{Dir: other, Domain: example, Selector: today + "-ed25519", Type: sign.Ed25519})
	if err != nil {
		t.Fatal(err)
	}
	server := startBIND(t, old[0].ZoneEntry+theirs[0].ZoneEntry+"*._domainkey 86400 IN TXT \"v=DKIM1; p=\"\n")
	update, err := OpenUpdate(server.Key, server.Addr, -1)
	if err != nil {
		t.Fatal(err)
	}
	dns := &Authorities{authority.Asker{Servers: []netip.AddrPort{server.Addr}}}
	var steps []string
	r := New(Settings{
		Dir: dir, Publisher: update, DNS: dns, Now: func() time.Time { return now }, Report: func(e Event) { steps = append(steps, string(e.Step)) },
		QueueLifetime: func(context.Context) time.Duration { return lifetime },
	})
	if err := r.Start(example); err != nil {
		t.Fatal(err)
	}
	began := now
	for range 120 {
		if _, err := r.Advance(t.Context(), example); err != nil {
			t.Fatal(err)
		}
		s, err := r.State(example)
		if err != nil {
			t.Fatal(err)
		}
		if s.Phase == Done {
			break
		}
		if s.Phase == Retire && now.Sub(began) < 24*time.Hour {
			t.Fatalf("signs after %s, while caches hold the wildcard", now.Sub(began))
		}
		now = now.Add(12 * time.Hour)
	}
	if got := strings.Join(steps, " "); got != "started started handed seen signs retired handed revoked handed finished" {
		t.Errorf("steps %q", got)
	}
	view, err := dns.Look(t.Context(), today+"-ed25519._domainkey."+example)
	record, recordErr := theirs[0].Record()
	if err != nil || recordErr != nil || len(view.Servers[0].TXT) != 1 || view.Servers[0].TXT[0] != record {
		t.Errorf("the key of the other host: %+v, %v, %v", view, err, recordErr)
	}
}

// A server ignores a TXT record for a name with a CNAME record, and reports success.
func TestUpdateOfAlias(t *testing.T) {
	server := startBIND(t, `
in._domainkey  IN CNAME a.keys
out._domainkey IN CNAME a.keys.example.net.
*._domainkey   IN CNAME any.example.net.
`)
	update, err := OpenUpdate(server.Key, server.Addr, -1)
	if err != nil {
		t.Fatal(err)
	}
	for selector, want := range map[string]string{
		"in":  "in._domainkey.example.org has a CNAME record to a.keys.example.org, so that",
		"out": "out._domainkey.example.org has a CNAME record to a.keys.example.net, so that",
		"new": "", // the wildcard ends where there is a record
	} {
		err := update.Change(t.Context(), Change{Action: DoPublish, Domain: example, Name: selector + "._domainkey." + example, Value: "v=DKIM1; p=", TTL: time.Hour})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", selector, err, want)
		}
	}
}

// A wildcard CNAME record that leads to servers that do not answer stops no rotation, and
// caches may hold it.
func TestRotationBesideWildcardAlias(t *testing.T) {
	dir := t.TempDir()
	old, err := sign.Generate(sign.NewKeys{Dir: dir, Domain: example, Selector: "old", Type: sign.Ed25519})
	if err != nil {
		t.Fatal(err)
	}
	server := startBIND(t, old[0].ZoneEntry+"*._domainkey 7200 IN CNAME any.example.net.\n")
	update, err := OpenUpdate(server.Key, server.Addr, -1)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	r := New(Settings{
		Dir: dir, Publisher: update, Now: func() time.Time { return now },
		DNS:           &Authorities{authority.Asker{Servers: []netip.AddrPort{server.Addr}}},
		QueueLifetime: func(context.Context) time.Duration { return lifetime },
	})
	if err := r.Start(example); err != nil {
		t.Fatal(err)
	}
	var phases []string
	for i := range 6 {
		if _, err := r.Advance(t.Context(), example); err != nil {
			t.Fatal(err)
		}
		s, err := r.State(example)
		if err != nil {
			t.Fatal(err)
		}
		phases = append(phases, string(s.Phase))
		if now = now.Add(Overlap); i >= 3 {
			now = now.Add(MinKeep)
		}
	}
	if got := strings.Join(phases, " "); got != "publish publish retire keep revoked done" {
		t.Errorf("phases %s", got)
	}
}
