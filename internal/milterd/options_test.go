package milterd

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/milter"
)

// loaded is a state with its life, as a daemon builds it before it applies it.
type loaded struct {
	*state
	life *service.Life
}

func newCurrent() *current { return &current{new(service.Current[*state])} }

// loadInto goes as far as a daemon goes before it binds anything; the state may
// be put in force in c.
func loadInto(c *current, r service.Runtime, args ...string) (*loaded, error) {
	s, err := configure(append([]string{"--config=", "--resolver=127.0.0.1", "--mark-key-file="}, args...), nil)
	if err != nil {
		return nil, err
	}
	if _, err := s.Sockets(); err != nil {
		return nil, err
	}
	l := c.NewLife(nil)
	state, err := s.Build(l, r)
	if err != nil {
		l.Discard()
		return nil, err
	}
	return &loaded{state, l}, nil
}

// load loads into a daemon of its own.
func load(log *zap.Logger, args ...string) (*loaded, error) {
	return loadInto(newCurrent(), service.Runtime{Log: log, Metrics: metrics.New(metrics.Options{Daemon: daemonName})}, args...)
}

func TestDefaults(t *testing.T) {
	s, err := configure([]string{"--config="}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"listen": "[]", "listen-verify": "[inet:127.0.0.1:10046]", "listen-sign": "[inet:127.0.0.1:10047]",
		"originating": "[ORIGINATING]", "internal-networks": "[]", "authserv-id": "", "on-error": "accept",
		"dkim-keys": "/etc/postern/dkim", "dkim-expire": "7d", "dkim-subdomains": "false", "dkim-require-dns": "false",
		"dkim-key-table": "", "dkim-signing-table": "", "drain-timeout": "10m",
		"metrics-listen": "inet:127.0.0.1:9146", "admin": "unix:/run/postern/milterd.sock",
	}
	for name, value := range want {
		if got := s.set.Lookup(name).Value.String(); got != value {
			t.Errorf("--%s: %s, want %s", name, got, value)
		}
	}
}

// A listener that is named replaces the two that no one asked for.
func TestSockets(t *testing.T) {
	tests := []struct {
		args []string
		want []string
	}{
		{nil, []string{"--listen-verify inet:127.0.0.1:10046", "--listen-sign inet:127.0.0.1:10047"}},
		{[]string{"--listen=unix:/run/m"}, []string{"--listen unix:/run/m"}},
		{[]string{"--listen-sign=systemd:sign"}, []string{"--listen-sign systemd:sign"}},
		{
			[]string{"--listen-verify=inet:127.0.0.1:1", "--listen=inet:127.0.0.1:2", "--listen-sign=inet:127.0.0.1:3", "--listen-sign=postern/m"},
			nil,
		},
		{
			[]string{"--listen-verify=inet:127.0.0.1:1", "--listen=inet:127.0.0.1:2", "--listen-sign=inet:127.0.0.1:3", "--listen-sign=unix:postern/m"},
			[]string{"--listen inet:127.0.0.1:2", "--listen-verify inet:127.0.0.1:1", "--listen-sign inet:127.0.0.1:3", "--listen-sign unix:/var/spool/postfix/postern/m"},
		},
	}
	for _, test := range tests {
		s, err := configure(append([]string{"--config="}, test.args...), nil)
		if err != nil {
			t.Fatal(err)
		}
		sockets, err := s.Sockets()
		if (err != nil) != (test.want == nil) {
			t.Errorf("%q: %v", test.args, err)
		}
		var got []string
		for _, socket := range sockets {
			got = append(got, socket.Flag+" "+socket.Endpoint.String())
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%q: %q, want %q", test.args, got, test.want)
		}
	}
	for flag, want := range map[string]milter.Listen{"--listen": milter.BySession, "--listen-sign": milter.SignOnly, "--listen-verify": milter.VerifyOnly} {
		if got := kind(flag); got != want {
			t.Errorf("%s: kind %d, want %d", flag, got, want)
		}
	}
}

func TestRefusedSettings(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "home.example", "s.private")
	if err := os.MkdirAll(filepath.Dir(broken), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(broken, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	table := filepath.Join(dir, "table")
	if err := os.WriteFile(table, []byte("name home.example:s:relative\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"endpoint", []string{"--listen-sign=10047"}, "--listen-sign: "},
		{"words behind an endpoint", []string{"--listen-verify=inet:127.0.0.1:1=verify"}, "--listen-verify: inet:127.0.0.1:1=verify: nothing may follow the address"},
		{"unknown flag", []string{"--listen-signing=x"}, "--listen-signing: unknown flag: did you mean --listen-sign?"},
		{"network", []string{"--internal-networks=10.0.0.0/8", "--internal-networks=home"}, `--internal-networks: "home" is not a network`},
		{"network with host bits", []string{"--internal-networks=10.0.0.1/8"}, "write 10.0.0.0/8"},
		{"authserv-id", []string{"--authserv-id=a b"}, "--authserv-id: "},
		{"on-error", []string{"--on-error=defer"}, "--on-error: "},
		{"relative key folder", []string{"--dkim-keys=keys"}, "--dkim-keys: "},
		{"relative key table", []string{"--dkim-key-table=t", "--dkim-signing-table=/t"}, "--dkim-key-table: "},
		{"relative signing table", []string{"--dkim-key-table=/t", "--dkim-signing-table=refile:t"}, "--dkim-signing-table: "},
		{"key table alone", []string{"--dkim-key-table=/t"}, "set dkim-signing-table too"},
		{"signing table alone", []string{"--dkim-signing-table=/t"}, "set dkim-key-table too"},
		{"header field", []string{"--dkim-headers=From,Received"}, `--dkim-headers: header field "Received" changes on the way`},
		{"header field twice", []string{"--dkim-headers=To,To"}, "--dkim-headers: "},
		{"expiry", []string{"--dkim-expire=2000d"}, "--dkim-expire: "},
		{"key folder that was asked for", []string{"--dkim-keys=" + dir + "/none"}, "--dkim-keys: " + "stat " + dir + "/none"},
		{"key", []string{"--dkim-keys=" + dir}, "--dkim-keys: " + broken + ": holds no private key in PEM"},
		{"table", []string{"--dkim-keys=", "--dkim-key-table=" + table, "--dkim-signing-table=" + table}, "--dkim-key-table: " + table + ":1: "},
		{"resolver", []string{"--resolver=dns.example"}, "--resolver: "},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := load(zap.NewNop(), test.args...)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// The time that sessions are left alone is shorter than the daemon's own, so that
// a message that is under way comes to its end.
func TestDrain(t *testing.T) {
	for _, test := range []struct{ daemon, milter string }{
		{"10m", "9m20s"}, {"1m", "30s"}, {"20s", "10s"}, {"0", "1ns"},
	} {
		s, err := configure([]string{"--config=", "--drain-timeout=" + test.daemon}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.milterDrain().String(); got != test.milter {
			t.Errorf("%s: %s, want %s", test.daemon, got, test.milter)
		}
	}
}

func TestNetworks(t *testing.T) {
	s, err := configure([]string{"--config=", "--internal-networks=192.0.2.7", "--internal-networks=2001:db8::/32", "--internal-networks=::ffff:192.0.2.8"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range s.internal {
		got = append(got, p.String())
	}
	if want := []string{"192.0.2.7/32", "2001:db8::/32", "192.0.2.8/32"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Errors are in the same order each time, so that a run can be compared with the one before.
func TestErrorOrder(t *testing.T) {
	args := []string{
		"--config=", "--dkim-key-table=keys", "--dkim-signing-table=senders",
		"--report-org=a\tb", "--report-contact=c\td",
	}
	_, first := configure(args, nil)
	if first == nil || strings.Count(first.Error(), "is relative") != 2 || strings.Count(first.Error(), "control characters") != 2 {
		t.Fatalf("%v", first)
	}
	for range 20 {
		if _, err := configure(args, nil); err == nil || err.Error() != first.Error() {
			t.Fatalf("%v\nand before:\n%v", err, first)
		}
	}
}
