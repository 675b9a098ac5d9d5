package dns

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-mail/postern/internal/breaker"
	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
	"github.com/postern-mail/postern/internal/service"
)

// load opens the resolver of a state that comes into force.
func load(t *testing.T, c *service.Current[*Resolver], s Settings, log *zap.Logger) (*Resolver, *service.Life) {
	t.Helper()
	l := c.NewLife(nil)
	r, err := s.Open(l, log)
	if err != nil {
		t.Fatal(err)
	}
	c.Apply(r, l)
	return r, l
}

func TestOpenKeepsTheResolverInForce(t *testing.T) {
	settings := Settings{Servers: []string{"127.0.0.2"}, Timeout: time.Second}
	tests := []struct {
		name string
		next Settings
		kept bool
	}{
		{"the same", settings, true},
		{"the same servers, spelled in another way", Settings{Servers: []string{"127.0.0.2:53"}, Timeout: time.Second}, true},
		{"another time-out", Settings{Servers: settings.Servers, Timeout: 2 * time.Second}, false},
		{"another server", Settings{Servers: []string{"127.0.0.3"}, Timeout: time.Second}, false},
		{"one more", Settings{Servers: []string{"127.0.0.2", "127.0.0.3"}, Timeout: time.Second}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var c service.Current[*Resolver]
			defer c.Close()
			inForce, _ := load(t, &c, settings, zap.NewNop())
			if got, _ := load(t, &c, tt.next, zap.NewNop()); (got == inForce) != tt.kept {
				t.Errorf("kept: %t, want %t", got == inForce, tt.kept)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	r, err := Settings{Servers: []string{"dns.example"}, Timeout: time.Second}.Open(service.NewLife(), zap.NewNop())
	if r != nil || err == nil || !strings.Contains(err.Error(), "dns.example") {
		t.Errorf("%v, %v", r, err)
	}
}

// The warning is for new resolvers: a reload that keeps one says nothing.
func TestPublicResolverWarning(t *testing.T) {
	core, logs := observer.New(zapcore.WarnLevel)
	settings := Settings{Servers: []string{"127.0.0.1", "9.9.9.9", "1.1.1.1"}, Timeout: time.Second}
	var c service.Current[*Resolver]
	defer c.Close()
	load(t, &c, settings, zap.New(core))
	load(t, &c, settings, zap.New(core))
	var told []string
	for _, e := range logs.FilterMessageSnippet("public DNS resolver").All() {
		told = append(told, e.ContextMap()["server"].(string)+" "+e.ContextMap()["operator"].(string))
	}
	if want := []string{"9.9.9.9:53 Quad9", "1.1.1.1:53 Cloudflare"}; !slices.Equal(told, want) || logs.Len() != len(want) {
		t.Errorf("warned of %q, want %q", told, want)
	}
}

// An outage is logged when it begins, with what to do, and when it ends.
func TestOutageIsLogged(t *testing.T) {
	srv := resolvertest.New(t, "home.example. IN TXT \"x\"\n")
	srv.Fail("*", resolvertest.Silence)
	core, logs := observer.New(zapcore.InfoLevel)
	var c service.Current[*Resolver]
	defer c.Close()
	r, _ := load(t, &c, Settings{Servers: []string{srv.Addr()}, Timeout: 20 * time.Millisecond}, zap.New(core))
	ask := func(until bool) {
		for n := 0; r.Stats().Up != until; n++ {
			_, _ = r.LookupTXT(t.Context(), fmt.Sprintf("n%d.example", n))
		}
	}
	ask(false)
	srv.Fail("*", resolvertest.Healthy)
	ask(true)
	c.Close() // waits for whoever reports
	var told []string
	for _, e := range logs.All() {
		told = append(told, fmt.Sprint(e.Level, " ", e.ContextMap()["state"], " ", e.ContextMap()["fix"] != nil))
	}
	if want := []string{"error no server answers true", "info answers false"}; !slices.Equal(told, want) {
		t.Errorf("logged %q, want %q", told, want)
	}
}

// A server that answers over UDP only is logged when that begins and when it ends.
func TestSilentTCPIsLogged(t *testing.T) {
	core, logs := observer.New(zapcore.InfoLevel)
	report := reportTCP(zap.New(core))
	down := breaker.Change{Err: resolver.ErrTimeout}
	for _, c := range []resolver.TCPChange{{Server: "a:53", Change: down}, {Server: "b:53", Change: down}, {Server: "a:53", Change: breaker.Change{Up: true}}} {
		report(c)
	}
	var told []string
	for _, e := range logs.All() {
		told = append(told, fmt.Sprint(e.Level, " ", e.ContextMap()["subject"], " ", e.ContextMap()["state"], " ", e.ContextMap()["fix"] != nil))
	}
	want := []string{
		"error DNS server a:53 over TCP does not answer true", "error DNS server b:53 over TCP does not answer true",
		"info DNS server a:53 over TCP answers false",
	}
	if !slices.Equal(told, want) {
		t.Errorf("logged %q, want %q", told, want)
	}
}

func TestFiles(t *testing.T) {
	var c service.Current[*Resolver]
	defer c.Close()
	if _, l := load(t, &c, Settings{Timeout: time.Second}, zap.NewNop()); !slices.Equal(l.Files(), []string{resolver.DefaultResolvConf}) {
		t.Errorf("%q", l.Files())
	}
	if _, l := load(t, &c, Settings{Servers: []string{"127.0.0.1"}, Timeout: time.Second}, zap.NewNop()); l.Files() != nil {
		t.Errorf("%q", l.Files())
	}
}

func TestCollector(t *testing.T) {
	srv := resolvertest.New(t, "home.example. IN TXT \"x\"\n")
	var current service.Current[*Resolver]
	defer current.Close()
	r, _ := load(t, &current, Settings{Servers: []string{srv.Addr()}, Timeout: time.Second}, zap.NewNop())
	for range 3 {
		if _, err := r.LookupTXT(t.Context(), "home.example"); err != nil {
			t.Fatal(err)
		}
	}
	inForce := false
	c := NewCollector(func() (resolver.Stats, bool) { return r.Stats(), inForce })
	if n := testutil.CollectAndCount(c); n != 0 {
		t.Errorf("%d numbers of no resolver", n)
	}
	inForce = true
	err := testutil.CollectAndCompare(c, strings.NewReader(`
# HELP postern_dns_lookups_total DNS lookups, by where the answer came from.
# TYPE postern_dns_lookups_total counter
postern_dns_lookups_total{from="cache"} 2
postern_dns_lookups_total{from="dns"} 1
# HELP postern_dns_failures_total DNS questions that no server answered.
# TYPE postern_dns_failures_total counter
postern_dns_failures_total 0
# HELP postern_dns_cache_entries Answers in the cache.
# TYPE postern_dns_cache_entries gauge
postern_dns_cache_entries 1
# HELP postern_dns_server_up 0 while a server is left out because it failed.
# TYPE postern_dns_server_up gauge
postern_dns_server_up{server="`+srv.Addr()+`"} 1
# HELP postern_dns_server_tcp_up 0 while a server does not answer over TCP, so that large answers fail.
# TYPE postern_dns_server_tcp_up gauge
postern_dns_server_tcp_up{server="`+srv.Addr()+`"} 1
# HELP postern_dns_server_queries_total Packets sent to the DNS server.
# TYPE postern_dns_server_queries_total counter
postern_dns_server_queries_total{server="`+srv.Addr()+`"} 1
`), "postern_dns_lookups_total", "postern_dns_failures_total", "postern_dns_cache_entries", "postern_dns_server_up", "postern_dns_server_tcp_up", "postern_dns_server_queries_total")
	if err != nil {
		t.Error(err)
	}
	if problems, err := testutil.CollectAndLint(c); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// What fails is counted by its cause, and a server that fails is left out.
func TestEmit(t *testing.T) {
	stats := resolver.Stats{
		Timeouts: 1, Unreachable: 2, LocalErrors: 3, ServFail: 4, Refused: 5, OtherCodes: 6, Malformed: 7,
		Servers: []resolver.ServerStats{{Address: "a:53", Up: true, Queries: 8}, {Address: "b:53", Queries: 9}},
	}
	c := NewCollector(func() (resolver.Stats, bool) { return stats, true })
	err := testutil.CollectAndCompare(c, strings.NewReader(`
# HELP postern_dns_tries_failed_total Questions to a server that failed, by cause.
# TYPE postern_dns_tries_failed_total counter
postern_dns_tries_failed_total{cause="timeout"} 1
postern_dns_tries_failed_total{cause="unreachable"} 2
postern_dns_tries_failed_total{cause="local"} 3
postern_dns_tries_failed_total{cause="servfail"} 4
postern_dns_tries_failed_total{cause="refused"} 5
postern_dns_tries_failed_total{cause="other_code"} 6
postern_dns_tries_failed_total{cause="malformed"} 7
# HELP postern_dns_server_up 0 while a server is left out because it failed.
# TYPE postern_dns_server_up gauge
postern_dns_server_up{server="a:53"} 1
postern_dns_server_up{server="b:53"} 0
# HELP postern_dns_server_queries_total Packets sent to the DNS server.
# TYPE postern_dns_server_queries_total counter
postern_dns_server_queries_total{server="a:53"} 8
postern_dns_server_queries_total{server="b:53"} 9
`), "postern_dns_tries_failed_total", "postern_dns_server_up", "postern_dns_server_queries_total")
	if err != nil {
		t.Error(err)
	}
}
