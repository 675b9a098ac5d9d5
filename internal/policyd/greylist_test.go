package policyd

import (
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/store/redistest"
	"github.com/postern-mail/postern/policy/checks"
)

func TestGreylistSettings(t *testing.T) {
	for want, args := range map[string][]string{
		"--greylist-store: \"mysql:x\" is no store": {"--greylist-store=mysql:x"},
		"--greylist-store: no path":                 {"--greylist-store=sqlite:"},
		"password file":                             {"--greylist-store=redis://u:secret@host"},
		"is for Redis":                              {"--greylist-store=memory:", "--greylist-password-file=/x"},
		"no mail could pass":                        {"--greylist-retry-window=5m", "--greylist-delay=10m"},
		"--greylist-url":                            {"--greylist-url=javascript:x"},
		"out of bounds":                             {"--greylist-delay=0"},
	} {
		_, err := configure(append([]string{"--config=", "--checks=greylist"}, args...), nil)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
}

// TestGreylistStoreIsShared builds a second state beside the first, as a
// reload does: the file can be opened only once.
func TestGreylistStoreIsShared(t *testing.T) {
	store := "--greylist-store=sqlite:" + filepath.Join(t.TempDir(), "greylist.db")
	c := newCurrent()
	load := func(args ...string) *loaded {
		t.Helper()
		s, err := loadInto(c, quiet(), append([]string{"--config=", "--checks=greylist", store}, args...), nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := load()
	first.apply(c)
	second := load("--greylist-delay=5m")
	if partOf[*greylistPart](t, second.state).store != partOf[*greylistPart](t, first.state).store {
		t.Error("the store was opened again")
	}
	second.apply(c)
	c.Close()
	load().life.Discard() // after the last user
}

// TestStoreTroubleIsNoticed has a wrong password: log, readiness and gauge say so
// before mail comes.
func TestStoreTroubleIsNoticed(t *testing.T) {
	server := redistest.Start(t, "--requirepass", "right")
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("wrong\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 10)
	core, _ := observer.New(zap.ErrorLevel)
	log := zap.New(core, zap.Hooks(func(e zapcore.Entry) error { said <- e.Message; return nil }))
	r := service.NewRuntime(log, metrics.New(metrics.Options{}))
	r.Readiness.Serving()
	c := newCurrent()
	s, err := loadInto(c, r, []string{"--config=", "--checks=greylist", "--greylist-store=redis://" + server.Addr, "--greylist-password-file=" + password}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.apply(c)
	if message := <-said; !strings.Contains(message, "does not answer") {
		t.Errorf("logged %q", message)
	}
	store := partOf[*greylistPart](t, s.state).store
	if ready, report := r.Readiness.Ready(); ready || !strings.Contains(report, "WRONGPASS") || store.breaker.Health() != greylist.Down {
		t.Errorf("ready %t: %s", ready, report)
	}
	server.Kill()
	for t.Context().Err() == nil { // what fails now, and not what failed first
		if _, report := r.Readiness.Ready(); strings.Contains(report, "connection refused") {
			break
		}
		runtime.Gosched()
	}
	c.Close()
	if ready, report := r.Readiness.Ready(); !ready {
		t.Errorf("once the check does not run: %s", report)
	}
}

// TestDefaultListStays names a list of one's own.
func TestDefaultListStays(t *testing.T) {
	own := filepath.Join(t.TempDir(), "own")
	if err := os.WriteFile(own, []byte("partner.test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args       []string
		mine, ours bool
	}{
		{nil, false, true},
		{[]string{own}, true, true},
		{[]string{"default", own}, true, true},
		{[]string{"none"}, false, false},
		{[]string{own, "none"}, true, false},
	} {
		args := []string{"--checks=greylist", "--greylist-store=memory:"}
		for _, a := range test.args {
			args = append(args, "--greylist-allow-clients="+a)
		}
		c, _ := inForceWith(t, args...)
		hook, err := c.Hook("", nil)
		if err != nil {
			t.Fatal(err)
		}
		list := hook.Chain[0].Check.(*checks.Greylist).AllowClients
		for name, want := range map[string]bool{"mx.partner.test": test.mine, "mail-x.outbound.protection.outlook.com": test.ours} {
			if got := list.Has(netip.MustParseAddr("203.0.113.9"), name); got != want {
				t.Errorf("%q: %s is allowed: %t, want %t", test.args, name, got, want)
			}
		}
		hook.Release()
	}
}

// TestOneKeyer asks for a mail as the check has seen it: show has the same key, and
// delete finds what it wrote by the address as it arrived.
func TestOneKeyer(t *testing.T) {
	for _, key := range []string{"spf", "network"} {
		_, s := inForceWith(t, "--checks=greylist", "--greylist-store=memory:", "--greylist-key="+key)
		p := partOf[*greylistPart](t, s)
		for _, sender := range []string{"bounce.q7w8e9r0t1y2@news.test", "no address\x01@", "<>", "bare"} {
			source := greylist.Source{Domain: "news.test"}
			seen := p.keyer().Key(greylist.Mail{Client: netip.MustParseAddr("192.0.2.7"), Sender: mailaddr.ParseInternal(sender), Recipient: mailaddr.ParseInternal("bob@rcpt.test"), Source: source})
			if _, err := p.store.store.Seen(t.Context(), seen, time.Now(), p.limits()); err != nil {
				t.Fatal(err)
			}
			shown, err := p.show(t.Context(), api.GreylistShowArgs{Client: "192.0.2.7", Domain: "news.test", Sender: sender, Recipient: "bob@rcpt.test"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if r := shown.(api.GreylistShowResult); r.Key != seen.Client() || r.Sender != seen.Sender || len(r.Entries) == 0 {
				t.Errorf("%s, %q: shown %+v, seen %+v", key, sender, r, seen)
			}
			gone, err := p.delete(t.Context(), api.GreylistDeleteArgs{GreylistFilter: api.GreylistFilter{Sender: sender, Kind: api.GreylistTriplets}}, func(any) {})
			if n := gone.(api.GreylistDeleteResult).Deleted; err != nil || n == 0 {
				t.Errorf("%s, %q: %d deleted, %v", key, sender, n, err)
			}
		}
	}
}

func TestGlob(t *testing.T) {
	for _, test := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "x", true}, {"x", "x", true}, {"X", "x", true}, {"x", "xy", false}, {"x*", "xy", true}, {"*y", "xy", true},
		{"*@*.example", "a@b.example", true}, {"a*a", "a", false}, {"a*b*c", "a-b-c", true}, {"a*b*c", "a-c-b", false}, {"*", "", true},
	} {
		if got := globs(test.pattern, test.s); got != test.want {
			t.Errorf("%q, %q: %t", test.pattern, test.s, got)
		}
	}
}
