package milterd

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/milter/sign"
	"github.com/postern-mail/postern/milter/wire/wiretest"
)

// genkey makes keys below dir.
func genkey(t *testing.T, dir, domain string, kind sign.KeyType) []sign.NewKey {
	t.Helper()
	keys, err := sign.Generate(sign.NewKeys{Dir: dir, Domain: domain, Type: kind, Bits: 1024})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// observed is a log that tests can read.
func observed() (*zap.Logger, *observer.ObservedLogs) {
	core, logs := observer.New(zap.DebugLevel)
	return zap.New(core), logs
}

// running is a daemon whose first state is in force.
type running struct {
	*current
	service.Runtime
	traffic service.Traffic
	life    *service.Life // of the state in force
}

func start(t *testing.T, args ...string) (*running, *metrics.Metrics, *observer.ObservedLogs) {
	t.Helper()
	log, logs := observed()
	d := &running{
		current: newCurrent(),
		Runtime: service.NewRuntime(log, metrics.New(metrics.Options{Daemon: daemonName})),
	}
	d.reload(t, args...)
	d.traffic = app{}.Start(d.Runtime, d.Current)
	t.Cleanup(d.Close)
	return d, d.Metrics, logs
}

// reload puts settings in force as a running daemon does.
func (d *running) reload(t *testing.T, args ...string) {
	t.Helper()
	s, err := loadInto(d.current, d.Runtime, args...)
	if err != nil {
		t.Fatal(err)
	}
	d.Apply(s.state, s.life)
	d.life = s.life
}

// now is the state in force. Nothing replaces it while the test looks.
func (d *running) now() *state {
	s, release := d.Acquire()
	release()
	return s
}

// partOf returns the part of type P of a state.
func partOf[P part](t *testing.T, s *state) P {
	t.Helper()
	for _, r := range s.settings.rooms {
		if found, ok := r.part.(P); ok {
			return found
		}
	}
	t.Fatalf("no %T", *new(P))
	panic("unreachable")
}

// sendOver sends one mail to a listener of a flag, as Postfix does.
func sendOver(t *testing.T, d *running, flag, from string) wiretest.EndReply {
	t.Helper()
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.traffic.Handler(t.Context(), &daemon.Conn{Conn: theirs, Socket: daemon.Socket{Flag: flag}})
	}()
	c := wiretest.New(t, ours)
	c.Open(wiretest.Session{Client: netip.MustParseAddrPort("192.0.2.1:1000"), Helo: "client.example"})
	r := c.Send(wiretest.Mail{From: "<a@home.example>", To: []string{"<b@away.example>"}, Message: from + "Subject: x\r\n\r\nbody\r\n"})
	_ = ours.Close()
	<-done
	return r
}

func signatures(r wiretest.EndReply) int {
	n := 0
	for _, c := range r.Changes {
		if c.Kind == 'i' && c.Name == "DKIM-Signature" {
			n++
		}
	}
	return n
}

// decisions is what was counted with a reason.
func decisions(t *testing.T, m *metrics.Metrics, reason record.Reason) float64 {
	t.Helper()
	families, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, family := range families {
		for _, metric := range family.Metric {
			for _, label := range metric.Label {
				if family.GetName() == "postern_decisions_total" && label.GetName() == "reason" && label.GetValue() == string(reason) {
					sum += metric.Counter.GetValue()
				}
			}
		}
	}
	return sum
}

const fromHome = "From: <a@home.example>\r\n"

// A reload takes the keys of now, and a session that is open gets them with its
// next message.
func TestReloadKeys(t *testing.T) {
	dir := t.TempDir()
	a, m, logs := start(t, "--dkim-keys="+dir)
	if logs.FilterMessageSnippet("no DKIM key").Len() != 1 {
		t.Errorf("no warning about missing keys: %v", logs.All())
	}
	if n := signatures(sendOver(t, a, "--listen-sign", fromHome)); n != 0 {
		t.Errorf("%d signatures without a key", n)
	}
	genkey(t, dir, "home.example", sign.Both)
	a.reload(t, "--dkim-keys="+dir)
	if n := signatures(sendOver(t, a, "--listen-sign", fromHome)); n != 2 {
		t.Errorf("%d signatures, want 2", n)
	}
	if n := signatures(sendOver(t, a, "--listen-verify", fromHome)); n != 0 {
		t.Errorf("%d signatures on other people's mail", n)
	}
	if n := signatures(sendOver(t, a, "--listen", fromHome)); n != 0 {
		t.Errorf("%d signatures for a stranger", n)
	}
	a.reload(t, "--dkim-keys="+dir, "--internal-networks=192.0.2.0/24")
	if n := signatures(sendOver(t, a, "--listen", fromHome)); n != 2 {
		t.Errorf("%d signatures for an internal network, want 2", n)
	}
	if none, signed := decisions(t, m, record.SignNoKey), decisions(t, m, record.Signed); none != 1 || signed != 2 {
		t.Errorf("counted %v without a key and %v signed", none, signed)
	}
	err := testutil.GatherAndCompare(m.Gatherer(), strings.NewReader(`
# HELP postern_dkim_keys Private keys, by what is done with them.
# TYPE postern_dkim_keys gauge
postern_dkim_keys{state="left_out"} 0
postern_dkim_keys{state="signing"} 2
`), "postern_dkim_keys")
	if err != nil {
		t.Error(err)
	}
}

// One bad key costs its domain. It is loud, and --check-config refuses it.
func TestOneBadKey(t *testing.T) {
	dir := t.TempDir()
	genkey(t, dir, "home.example", sign.Both)
	bad := genkey(t, dir, "away.example", sign.Ed25519)[0]
	chmod := func(mode os.FileMode) {
		if err := os.Chmod(bad.Path, mode); err != nil {
			t.Fatal(err)
		}
	}
	problems := func(m *metrics.Metrics, want int) {
		t.Helper()
		err := testutil.GatherAndCompare(m.Gatherer(), strings.NewReader(fmt.Sprintf(`
# HELP postern_dkim_key_problems Key files, folders and table lines that cannot be used.
# TYPE postern_dkim_key_problems gauge
postern_dkim_key_problems %d
`, want)), "postern_dkim_key_problems")
		if err != nil {
			t.Error(err)
		}
	}
	chmod(0o644)
	a, m, logs := start(t, "--dkim-keys="+dir)
	if n := signatures(sendOver(t, a, "--listen-sign", fromHome)); n != 2 {
		t.Errorf("%d signatures, want 2", n)
	}
	if n := logs.FilterLevelExact(zap.ErrorLevel).FilterMessageSnippet("DKIM key cannot be used").Len(); n != 1 {
		t.Errorf("%v", logs.All())
	}
	problems(m, 1)
	o, release := inForce[*signPart](a.current)
	list, err := o.list(t.Context(), struct{}{}, nil)
	release()
	if keys := list.([]api.KeyStatus); err != nil || len(keys) != 3 || !strings.Contains(keys[2].Error, "chmod 0600 "+bad.Path) {
		t.Errorf("%+v, %v", keys, err)
	}
	if _, err := load(zap.NewNop(), "--dkim-keys="+dir, "--check-config"); err == nil || !strings.Contains(err.Error(), "chmod 0600 "+bad.Path) {
		t.Errorf("--check-config: %v", err)
	}
	chmod(0o600)
	a.reload(t, "--dkim-keys="+dir)
	problems(m, 0)
	fromAway := strings.ReplaceAll(fromHome, "home.example", "away.example")
	if n := signatures(sendOver(t, a, "--listen-sign", fromAway)); n != 1 {
		t.Errorf("%d signatures once it is fixed, want 1", n)
	}
	// What it held signs on when it goes bad again.
	chmod(0o644)
	a.reload(t, "--dkim-keys="+dir)
	problems(m, 1)
	if n := signatures(sendOver(t, a, "--listen-sign", fromAway)); n != 1 {
		t.Errorf("%d signatures after a reload, want 1", n)
	}
}

// Who comes from OpenDKIM learns what it signed beside.
func TestLocalApplications(t *testing.T) {
	dir := t.TempDir()
	key := genkey(t, dir, "home.example", sign.Ed25519)[0]
	keyTable, signingTable := filepath.Join(dir, "k"), filepath.Join(dir, "s")
	for path, text := range map[string]string{keyTable: "k home.example:postern:" + key.Path + "\n", signingTable: "*@home.example k\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for internal, want := range map[string]int{"": 1, "127.0.0.0/8": 0} {
		log, logs := observed()
		args := []string{"--dkim-keys=", "--dkim-key-table=" + keyTable, "--dkim-signing-table=refile:" + signingTable, "--listen=inet:127.0.0.1:0"}
		if internal != "" {
			args = append(args, "--internal-networks="+internal)
		}
		if _, err := load(log, args...); err != nil {
			t.Fatal(err)
		}
		if n := logs.FilterMessageSnippet("opendkim signs mail from 127.0.0.1").Len(); n != want {
			t.Errorf("%q: %d warnings, want %d", internal, n, want)
		}
	}
}

// A reload that fails changes nothing.
func TestReloadFails(t *testing.T) {
	dir := t.TempDir()
	key := genkey(t, dir, "home.example", sign.Ed25519)[0]
	a, _, _ := start(t, "--dkim-keys="+dir)
	before := a.now()
	if err := os.Chmod(key.Path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := loadInto(a.current, a.Runtime, "--dkim-keys="+dir); err == nil || !strings.Contains(err.Error(), "chmod 0600 "+key.Path) {
		t.Errorf("error %v", err)
	}
	if a.now() != before {
		t.Error("the state was replaced")
	}
	if n := signatures(sendOver(t, a, "--listen-sign", fromHome)); n != 1 {
		t.Errorf("%d signatures, want 1", n)
	}
}

// The resolver outlives a reload that asks the same servers, with its cache.
func TestResolverIsKept(t *testing.T) {
	a, _, _ := start(t, "--dkim-keys=")
	first := a.now().dns
	a.reload(t, "--dkim-keys=", "--log-level=debug")
	if a.now().dns != first {
		t.Error("a resolver of the same servers was replaced")
	}
	a.reload(t, "--dkim-keys=", "--dns-timeout=3s")
	second := a.now().dns
	if second == first {
		t.Error("a resolver with another time-out was kept")
	}
	a.reload(t, "--dkim-keys=", "--dns-timeout=3s", "--resolver=127.0.0.2")
	if a.now().dns == second {
		t.Error("a resolver of other servers was kept")
	}
}

func TestWarnings(t *testing.T) {
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"--resolver=1.1.1.1"}, "public DNS resolver"},
		{[]string{"--listen=unix:/run/x", "--internal-networks=127.0.0.0/8"}, "loopback"},
		{[]string{"--listen-sign=inet:0.0.0.0:10047"}, "every program that reaches"},
	}
	for _, test := range tests {
		log, logs := observed()
		if _, err := load(log, append(test.args, "--dkim-keys="+t.TempDir())...); err != nil {
			t.Fatal(err)
		}
		if logs.FilterMessageSnippet(test.want).Len() != 1 {
			t.Errorf("%q: %v, want one warning of %q", test.args, logs.All(), test.want)
		}
	}
	log, logs := observed()
	dir := t.TempDir()
	genkey(t, dir, "home.example", sign.Ed25519)
	if _, err := load(log, "--dkim-keys="+dir, "--rsa-engine=go"); err != nil || logs.Len() != 0 {
		t.Errorf("%v, %v", err, logs.All())
	}
}

// What is watched covers every file that was read.
func TestFiles(t *testing.T) {
	dir, aside := t.TempDir(), t.TempDir()
	genkey(t, dir, "home.example", sign.Ed25519)
	other := genkey(t, aside, "away.example", sign.Ed25519)[0]
	keyTable, signingTable := filepath.Join(aside, "KeyTable"), filepath.Join(aside, "SigningTable")
	for path, text := range map[string]string{
		keyTable:     "k away.example:postern:" + other.Path + "\n",
		signingTable: "*@away.example k\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := load(zap.NewNop(), "--dkim-keys="+dir, "--dkim-key-table="+keyTable, "--dkim-signing-table=refile:"+signingTable)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{dir, keyTable, signingTable, filepath.Dir(other.Path)}; !slices.Equal(s.life.Files(), want) {
		t.Errorf("watches %q, want %q", s.life.Files(), want)
	}
	file := filepath.Join(aside, "milterd.toml")
	if err := os.WriteFile(file, []byte("dkim-keys = \"\"\nmark-key-file = \"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	configured, err := configure([]string{"--config=" + file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	life := service.NewLife()
	defer life.Discard()
	if _, err := configured.Build(life, service.Runtime{Log: zap.NewNop(), Metrics: metrics.New(metrics.Options{})}); err != nil {
		t.Fatal(err)
	}
	if want := []string{file, "/etc/resolv.conf"}; !slices.Equal(life.Files(), want) {
		t.Errorf("watches %q, want %q", life.Files(), want)
	}
}

func TestResolverMetrics(t *testing.T) {
	srv := resolvertest.New(t, "home.example. IN TXT \"x\"\n")
	a, m, _ := start(t, "--dkim-keys=", "--resolver="+srv.Addr())
	for range 3 {
		if _, err := a.now().dns.LookupTXT(t.Context(), "home.example"); err != nil {
			t.Fatal(err)
		}
	}
	err := testutil.GatherAndCompare(m.Gatherer(), strings.NewReader(`
# HELP postern_dns_lookups_total DNS lookups, by where the answer came from.
# TYPE postern_dns_lookups_total counter
postern_dns_lookups_total{from="cache"} 2
postern_dns_lookups_total{from="dns"} 1
`), "postern_dns_lookups_total")
	if err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(m.Gatherer()); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

func TestDKIMKeysCommand(t *testing.T) {
	dir := t.TempDir()
	key := genkey(t, dir, "home.example", sign.Ed25519)[0]
	a, _, _ := start(t, "--dkim-keys="+dir)
	got, err := commands(a.current)["dkim.keys"](t.Context(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []api.KeyStatus{{Domain: "home.example", Selector: "postern", Algorithm: "ed25519-sha256", Path: key.Path, Signs: true}}
	if !slices.Equal(got.([]api.KeyStatus), want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// A key that no line of the signing table names is neither listed nor counted: it signs
// nothing, and its record may be missing.
func TestIdleKeyOfATable(t *testing.T) {
	dir := t.TempDir()
	genkey(t, dir, "home.example", sign.Ed25519)
	old := genkey(t, t.TempDir(), "home.example", sign.RSA)[0]
	table := filepath.Join(dir, "KeyTable")
	writeAt(t, table, "old home.example:s2025:"+old.Path+"\n", time.Hour)
	signing := filepath.Join(dir, "SigningTable")
	writeAt(t, signing, "", time.Hour)
	a, _, _ := start(t, "--dkim-keys="+dir, "--dkim-key-table="+table, "--dkim-signing-table="+signing)
	got, err := commands(a.current)["dkim.keys"](t.Context(), nil, nil)
	if list := got.([]api.KeyStatus); err != nil || len(list) != 1 || list[0].Selector != "postern" {
		t.Errorf("listed %+v, %v", got, err)
	}
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(signMetrics(a.current)...)
	if err := testutil.GatherAndCompare(r, strings.NewReader(`
# HELP postern_dkim_keys Private keys, by what is done with them.
# TYPE postern_dkim_keys gauge
postern_dkim_keys{state="left_out"} 0
postern_dkim_keys{state="signing"} 1
`), "postern_dkim_keys"); err != nil {
		t.Error(err)
	}
}

// A message under way keeps its state from being closed.
func TestMessagePinsItsState(t *testing.T) {
	dir := t.TempDir()
	genkey(t, dir, "home.example", sign.Ed25519)
	a, _, _ := start(t, "--dkim-keys="+dir)
	closed := false
	a.life.OnEnd(func() error { closed = true; return nil })
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.traffic.Handler(t.Context(), &daemon.Conn{Conn: theirs, Socket: daemon.Socket{Flag: "--listen"}})
	}()
	c := wiretest.New(t, ours)
	c.Open(wiretest.Session{Client: netip.MustParseAddrPort("192.0.2.1:1000"), Helo: "client.example"})
	c.Macros('M', "{auth_authen}", "alice")
	c.Mail("<a@home.example>") // waits for the reply, as nothing does at a socket that only signs
	a.reload(t, "--dkim-keys=")
	if closed {
		t.Error("the state was closed under a message")
	}
	c.Rcpt("<b@away.example>")
	c.Header("From", " a@home.example")
	c.EndOfHeader()
	c.Body("body\r\n")
	if n := signatures(c.EndOfMessage()); n != 1 || !closed {
		t.Errorf("%d signatures by the state of MAIL, want 1; closed after the message: %t", n, closed)
	}
	_ = ours.Close()
	<-done
}

// What is known of DNS lists outlives a reload that changes nothing about them;
// so do the counters, and what was counted in the hold queue.
func TestReloadKeepsWhatIsKnown(t *testing.T) {
	srv := resolvertest.New(t, "")
	args := []string{"--dkim-keys=", "--resolver=" + srv.Addr(), "--dmarc-enforce=evidence", "--dmarc-quarantine=hold"}
	a, _, _ := start(t, args...)
	before := partOf[*dmarcPart](t, a.now())
	a.reload(t, append(args, "--spf-reject=fail")...)
	same := partOf[*dmarcPart](t, a.now())
	if before == same || same.lists != before.lists || same.held != before.held {
		t.Errorf("%+v after %+v", same, before)
	}
	a.reload(t, append(args, "--dnsbl-threshold=2", "--queue-directory=/nonexistent")...)
	other := partOf[*dmarcPart](t, a.now())
	if other.lists == before.lists || other.held == before.held {
		t.Error("other settings changed nothing")
	}
}

// Only the watch of the state in force runs.
func TestOneKeyWatchRuns(t *testing.T) {
	dir := t.TempDir()
	genkey(t, dir, "home.example", sign.Ed25519)
	srv := resolvertest.New(t, "")
	args := []string{"--dkim-keys=" + dir, "--dkim-require-dns", "--resolver=" + srv.Addr()}
	a, _, _ := start(t, args...)
	for range 3 {
		a.reload(t, args...)
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		if n := bytes.Count(stacks, []byte("(*keyWatch).run(")); n > 1 {
			t.Errorf("%d watches run", n)
		}
	}
	if watch := partOf[*signPart](t, a.now()).watch; watch == nil {
		t.Error("no watch")
	}
}
