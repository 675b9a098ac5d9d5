package policyd

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-mail/postern/dnsbl"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/service/dns"
)

const testKey = "abcdefghijklmnopqrstuvwxy9"

// listArgs run the dnsbl check alone, on a resolver.
func listArgs(resolver string, more ...string) []string {
	return append([]string{"--config=", "--checks=dnsbl", "--resolver=" + resolver}, more...)
}

func TestDNSBLSettingsRefused(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	badKey, badClients, badRecipients := file("key", "UNFIT "+testKey), file("clients", "a.example\n192.168\n"), file("recipients", "@\n")
	for want, args := range map[string][]string{
		`--dnsbl: zen.spamhaus.org: weight "x"`:                       {"--dnsbl=a.example", "--dnsbl=zen.spamhaus.org*x"},
		"--dbl: dbl.spamhaus.org=127.0.0.[2..11] can never match":     {"--dbl=dbl.spamhaus.org=127.0.0.[2..11]"},
		"--dnsbl: dbl.spamhaus.org lists domains: put it under --dbl": {"--dnsbl=dbl.spamhaus.org"},
		"--dbl: zrd.dq.spamhaus.net needs a key":                      {"--dbl=zrd.dq.spamhaus.net"},
		"--dnsbl: a DQS zone with its key inside":                     {"--dnsbl=" + testKey + ".zen.dq.spamhaus.net"},
		"--dnsbl-threshold: 0 is out of bounds":                       {"--dnsbl-threshold=0"},
		"--dnsbl-selftest: odd.example is none of the lists":          {"--dnsbl=even.example", "--dnsbl-selftest=odd.example=off"},
		`--dnsbl-selftest: "zen.spamhaus.org": write ZONE=off`:        {"--dnsbl-selftest=zen.spamhaus.org"},
		`--dbl-names: "from" is not one of`:                           {"--dbl-names=from"},
		"--dnsbl-on-error: ":                                          {"--dnsbl-on-error=reject"},
		`--dnsbl-reply: "{who}" holds a brace`:                        {"--dnsbl-reply={who}"},
		"--dqs-key-file: " + badKey + ": this is not a DQS key":       {"--dqs-key-file=" + badKey},
		"--dqs-key-file: ":                                            {"--dqs-key-file=/nonexistent/key"},
		"--dnsbl-allow-clients: " + badClients + ":2: ":               {"--dnsbl-allow-clients=" + badClients},
		"--dnsbl-allow-recipients: " + badRecipients + ":1: ":         {"--dnsbl-allow-recipients=" + badRecipients},
	} {
		_, err := loadAll(listArgs("127.0.0.1:53", args...), nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", args, err)
			continue
		}
		if strings.Contains(strings.ToLower(err.Error()), testKey) {
			t.Errorf("the key is in %q", err)
		}
	}
	file("empty.toml", "dnsbl = []\ndbl = []\nchecks = [\"dnsbl\"]\n")
	if _, err := loadAll([]string{"--config=" + filepath.Join(dir, "empty.toml")}, nil); err == nil || !strings.Contains(err.Error(), "empty.toml:1: ") || !strings.Contains(err.Error(), "has no list") {
		t.Errorf("no list: %v", err)
	}
}

func TestDNSBLDefaults(t *testing.T) {
	s, err := loadAll(listArgs("127.0.0.1:53"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.life.Discard()
	var got []string
	for _, z := range partOf[*dnsblPart](t, s.state).lists.Status() {
		got = append(got, fmt.Sprint(z.Kind, " ", z.Sites))
	}
	if want := []string{"address [zen.spamhaus.org=127.0.0.[2..11;30]*1]", "name [dbl.spamhaus.org=127.0.1.[2..99]*1]"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// A reload that changes nothing about DNS and the lists keeps them, and what
// they know; any other makes new ones and closes the old with their last user.
func TestReloadKeepsResolverAndLists(t *testing.T) {
	c := newCurrent()
	load := func(args ...string) *loaded {
		t.Helper()
		s, err := loadInto(c, quiet(), args, nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	lists := func(l *loaded) *dnsbl.Lists { return partOf[*dnsblPart](t, l.state).lists }
	dns := resolvertest.New(t, "")
	first := load(listArgs(dns.Addr())...)
	first.apply(c)
	same := load(listArgs(dns.Addr(), "--dnsbl-on-error=defer")...)
	if same.dns != first.dns || lists(same) != lists(first) {
		t.Error("a reload made new ones")
	}
	same.apply(c)
	load(listArgs(dns.Addr())...).life.Discard()
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(testKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	keyed := load(listArgs(dns.Addr(), "--dqs-key-file="+key)...)
	if keyed.dns != same.dns || lists(keyed) == lists(same) || !slices.Contains(keyed.life.Files(), key) {
		t.Errorf("with a key: %v", keyed.life.Files())
	}
	keyed.apply(c)
	other := load(listArgs(dns.Addr(), "--dns-timeout=1s")...)
	if other.dns == keyed.dns || lists(other) == lists(keyed) {
		t.Error("another time-out changed nothing")
	}
	if _, err := first.dns.Query(t.Context(), "a.example", resolver.TypeA); err != nil {
		t.Errorf("the resolver in force: %v", err)
	}
	other.apply(c)
	if _, err := first.dns.Query(t.Context(), "b.example", resolver.TypeA); err == nil {
		t.Error("the old resolver is open")
	}
	c.Close()
}

func TestPublicResolverIsWarnedAbout(t *testing.T) {
	for server, want := range map[string]int{"8.8.8.8": 1, "127.0.0.1:5353": 0} {
		core, logs := observer.New(zapcore.WarnLevel)
		s, err := loadInto(newCurrent(), service.NewRuntime(zap.New(core), metrics.New(metrics.Options{})), listArgs(server), nil)
		if err != nil {
			t.Fatal(err)
		}
		s.life.Discard()
		if n := logs.FilterMessageSnippet("public DNS resolver").Len(); n != want {
			t.Errorf("%s: %d warnings", server, n)
		}
	}
}

func TestDNSBLMetricsAndCommands(t *testing.T) {
	dns := resolvertest.New(t, "2.0.0.127.zen.spamhaus.org. IN A 127.0.0.2\n7.2.0.192.zen.spamhaus.org. IN A 127.0.0.4\n")
	c := newCurrent()
	s, err := loadInto(c, quiet(), listArgs(dns.Addr()), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.life.Discard()
	c.Apply(s.state, service.NewLife()) // no self-tests but those that are asked for
	defer c.Close()
	ask := func(command, args string) string {
		t.Helper()
		result, err := commands(c)[command](t.Context(), json.RawMessage(args), nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(result)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if out := ask("dnsbl.selftest", "{}"); !strings.Contains(out, `"healthy":false`) || !strings.Contains(out, `"zone":"dbl.spamhaus.org","kind":"name","state":"lists_nothing"`) || !strings.Contains(out, `"since":"`) {
		t.Error(out)
	}
	if out := ask("dnsbl.check", `{"subject":"192.0.2.7"}`); !strings.Contains(out, `"meaning":"XBL","class":"listed"`) || !strings.Contains(out, `"refused":true`) {
		t.Error(out)
	}
	if out := ask("dnsbl.check", `{"subject":"10.0.0.1"}`); !strings.Contains(out, `"asked":false`) || !strings.Contains(out, `"zones":[]`) {
		t.Error(out)
	}
	registry := registryOf(c)
	want := `# HELP postern_dnsbl_zone_up 1 while the DNS list is in service, 0 while its breaker is open.
# TYPE postern_dnsbl_zone_up gauge
postern_dnsbl_zone_up{kind="address",zone="zen.spamhaus.org"} 1
postern_dnsbl_zone_up{kind="name",zone="dbl.spamhaus.org"} 0
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "postern_dnsbl_zone_up"); err != nil {
		t.Error(err)
	}
	if n, err := testutil.GatherAndCount(registry, "postern_dns_lookups_total", "postern_dns_failures_total", "postern_dns_in_flight", "postern_dns_server_up", "postern_dns_server_queries_total"); err != nil || n != 6 {
		t.Errorf("%d series of the resolver, %v", n, err)
	}
}

func TestDNSBLCommandsWithoutTheCheck(t *testing.T) {
	c, _ := inForceWith(t, "--checks=ownership", "--owners", "static:x")
	for command, args := range map[string]string{"dnsbl.check": `{"subject":"192.0.2.7"}`, "dnsbl.selftest": "{}"} {
		if _, err := commands(c)[command](t.Context(), json.RawMessage(args), nil); err == nil || !strings.Contains(err.Error(), "add dnsbl to checks") {
			t.Errorf("%s: %v", command, err)
		}
	}
	if n, err := testutil.GatherAndCount(registryOf(c), "postern_dnsbl_zone_up", "postern_dns_in_flight"); err != nil || n != 0 {
		t.Errorf("%d series, %v", n, err)
	}
}

func registryOf(c *current) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(dns.NewCollector(c.resolverStats))
	r.MustRegister(dnsblMetrics(c)...)
	return r
}

// The command says what the daemon does with a mail: what the settings say beside
// the lists, and what a list out of service counts, included.
func TestDNSBLCheckSaysWhatHappens(t *testing.T) {
	const works = "2.0.0.127.zen.spamhaus.org. IN A 127.0.0.2\n"
	const listed = "7.2.0.192.zen.spamhaus.org. IN A 127.0.0.4\n"
	clients := filepath.Join(t.TempDir(), "clients")
	if err := os.WriteFile(clients, []byte("192.0.2.0/24\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		zone, subject string
		args          []string
		verdict, why  string
		score         int
	}{
		"listed":                {works + listed, "192.0.2.7", nil, api.DNSBLRefused, "", 1},
		"not listed":            {works + listed, "192.0.2.8", nil, api.DNSBLNotRefused, "", 0},
		"private":               {works, "10.0.0.1", nil, api.DNSBLNotAsked, "", 0},
		"out of service":        {listed, "192.0.2.7", nil, api.DNSBLNotRefused, "dnsbl-on-error pass, and the lists do not answer: zen.spamhaus.org: out of service: lists_nothing", 0},
		"out of service, defer": {listed, "192.0.2.7", []string{"--dnsbl-on-error=defer"}, api.DNSBLDeferred, "dnsbl-on-error defer", 0},
		"allowed":               {works + listed, "192.0.2.7", []string{"--dnsbl-allow-clients=" + clients}, api.DNSBLNotRefused, "dnsbl-allow-clients", 1},
		"relay":                 {works + listed, "192.0.2.7", []string{"--trusted-relays=192.0.2.0/24"}, api.DNSBLNotRefused, "trusted-relays", 1},
		"shadow":                {works + listed, "192.0.2.7", []string{"--shadow=dnsbl"}, api.DNSBLNotRefused, "shadow; it records: refused", 1},
		"not tested":            {listed, "192.0.2.7", []string{"--dnsbl-selftest=zen.spamhaus.org=off"}, api.DNSBLRefused, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			dns := resolvertest.New(t, c.zone+"test.dbl.spamhaus.org. IN A 127.0.1.2\n")
			got, err := CheckDNSBL(t.Context(), listArgs(dns.Addr(), c.args...), nil, c.subject)
			if err != nil || got.Verdict != c.verdict || !strings.Contains(got.Why, c.why) || (got.Why != "") != (c.why != "") || got.Score != c.score {
				t.Errorf("%+v, %v", got, err)
			}
			if got.Refused != (c.verdict == api.DNSBLRefused) {
				t.Errorf("refused %t", got.Refused)
			}
		})
	}
}

func TestDNSBLAloneWithoutTheCheck(t *testing.T) {
	args := []string{"--config=", "--checks=ownership", "--owners=static:x"}
	if _, err := CheckDNSBL(t.Context(), args, nil, "192.0.2.7"); err == nil || !strings.Contains(err.Error(), "add dnsbl to checks") {
		t.Error(err)
	}
	if _, err := TestDNSBL(t.Context(), []string{"--config=", "--checks=dnsbl", "--dnsbl=a.example*x"}, nil); err == nil || !strings.Contains(err.Error(), "--dnsbl: a.example") {
		t.Error(err)
	}
}
