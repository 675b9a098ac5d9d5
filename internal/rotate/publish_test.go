package rotate

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/postern-mail/postern/internal/resolver/authority"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

const keyText = `# a comment
key "Example-Key" { // another
	algorithm HMAC-SHA256; /* and
	one more */
	secret "c2VjcmV0";
};
`

func TestParseTSIGKey(t *testing.T) {
	key, err := parseTSIGKey(keyText)
	if err != nil || key.Name != "example-key." || key.Algorithm != "hmac-sha256." || key.Secret.Reveal() != "c2VjcmV0" {
		t.Fatalf("%+v, %v", key, err)
	}
	for text, want := range map[string]string{
		"":                                    "not a key as tsig-keygen prints it",
		"key a {":                             "not a key as tsig-keygen prints it",
		"key a { secret \"x\"; };":            "not base64",
		"key a { algorithm hmac-md5; };":      "algorithm is not one of",
		"key a { algorithm hmac-sha256; };":   "needs an algorithm and a secret",
		"key a { secret \"c2VjcmV0\"; }":      "must end with };",
		keyText + keyText:                     "the only one in its file",
		"key a { secret \"c2VjcmV0\" x y; };": "no ; at its end",
		"key \"a":                             "string has no end",
		"/*":                                  "comment has no end",
		"key a { server \"c2VjcmV0\"; };":     "nothing else",
	} {
		_, err := parseTSIGKey(text)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "c2VjcmV0") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestParseUpdate(t *testing.T) {
	file, server, err := ParseUpdate("tsig:/etc/a@b/key@[2001:db8::1]:5353")
	if err != nil || file != "/etc/a@b/key" || server != netip.MustParseAddrPort("[2001:db8::1]:5353") {
		t.Errorf("%q %s %v", file, server, err)
	}
	for _, text := range []string{"", "tsig:", "tsig:@1.2.3.4", "/etc/key@1.2.3.4", "tsig:/k@ns.example.org", "tsig:/k@1.2.3.4:0"} {
		if _, _, err := ParseUpdate(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

// A server may answer an update without the sections of the request (RFC 2136 section 3.8).
func TestUpdateAnswerWithoutZone(t *testing.T) {
	key, err := parseTSIGKey(keyText)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var updates []string
	server := &dns.Server{
		Listener: l, TsigSecret: map[string]string{key.Name: key.Secret.Reveal()},
		MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept },
		Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg).SetReply(q)
			m.Authoritative = true
			if q.Opcode == dns.OpcodeUpdate {
				for _, rr := range q.Ns {
					updates = append(updates, rr.String())
				}
				m.Question = nil
				m.SetTsig(key.Name, key.Algorithm, tsigFudge, time.Now().Unix())
			} else {
				m.Answer = []dns.RR{&dns.SOA{Hdr: dns.RR_Header{Name: example + ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET}, Ns: ".", Mbox: "."}}
			}
			if err := w.WriteMsg(m); err != nil {
				t.Error(err)
			}
		}),
	}
	ended := make(chan error, 1)
	ready := make(chan struct{})
	server.NotifyStartedFunc = func() { close(ready) }
	go func() { ended <- server.ActivateAndServe() }()
	<-ready
	u := &Update{Server: netip.MustParseAddrPort(l.Addr().String()), Key: key}
	changed := u.Change(t.Context(), Change{Action: DoPublish, Domain: example, Name: "a._domainkey." + example, Value: "v=DKIM1; p=", TTL: time.Hour})
	if err := errors.Join(server.Shutdown(), <-ended); err != nil {
		t.Error(err)
	}
	if changed != nil || len(updates) != 2 {
		t.Errorf("updates %q, error %v", updates, changed)
	}
}

func TestTSIGKeyOfOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(keyText), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readTSIGKey(path, -1); err == nil || !strings.Contains(err.Error(), "lets everybody access the TSIG key") {
		t.Errorf("error %v", err)
	}
}

func FuzzParseTSIGKey(f *testing.F) {
	f.Add(keyText)
	f.Add("key a { algorithm hmac-sha1; secret \"\"; };")
	f.Fuzz(func(t *testing.T, text string) {
		key, err := parseTSIGKey(text)
		if err == nil && (key.Algorithm == "" || key.Secret.Empty() || !strings.HasSuffix(key.Name, ".")) {
			t.Errorf("%q: %+v", text, key)
		}
	})
}

// FuzzParseState: a state that was changed by hand never makes a path.
func FuzzParseState(f *testing.F) {
	f.Add(`{"version":1,"domain":"example.org","phase":"keep","outgoing":[{"selector":"../x"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseState([]byte(text), example)
		if err != nil {
			return
		}
		for _, key := range append(s.Incoming, s.Outgoing...) {
			if strings.ContainsAny(key.Selector, "/\x00") || key.Selector == ".." {
				t.Errorf("selector %q", key.Selector)
			}
		}
	})
}

// A state without keys would take every key for published, and the old ones away.
func TestStateWithoutKeys(t *testing.T) {
	for _, phase := range []Phase{Publish, Withdraw} {
		for _, keys := range []string{`"incoming":[{"selector":"a"}]`, `"outgoing":[{"selector":"a"}]`} {
			text := `{"version":1,"domain":"` + example + `","phase":"` + string(phase) + `",` + keys + `}`
			if _, err := parseState([]byte(text), example); err == nil || !strings.Contains(err.Error(), "no new keys or no old ones") {
				t.Errorf("%s: %v", text, err)
			}
		}
	}
}

// Only a lock that another process has is ErrBusy, which the daemon does not report.
func TestLockThatFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	open := func() *os.File {
		t.Helper()
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	one, other := open(), open()
	if err := take(one); err != nil {
		t.Fatal(err)
	}
	if err := take(other); !errors.Is(err, ErrBusy) {
		t.Errorf("error %v", err)
	}
	if err := errors.Join(one.Close(), other.Close()); err != nil {
		t.Fatal(err)
	}
	if err := take(other); err == nil || errors.Is(err, ErrBusy) {
		t.Errorf("error %v", err)
	}
}

// program writes a shell script.
func program(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "publish")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCommand(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	c := &Command{program(t, "cat >> "+out+"\n")}
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	change := Change{Action: DoPublish, Domain: example, Name: "a._domainkey." + example, Value: strings.Repeat("x", 300), TTL: time.Hour}
	if err := c.Change(t.Context(), change); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var got commandInput
	if err := json.Unmarshal(data, &got); err != nil || strings.Count(string(data), "\n") != 1 {
		t.Fatalf("%q, %v", data, err)
	}
	if got.Version != 1 || got.Action != DoPublish || got.Name != change.Name || got.Type != "TXT" || got.TTL != 3600 || got.Value != change.Value || len(got.Strings) != 2 {
		t.Errorf("input %+v", got)
	}
}

func TestCommandFails(t *testing.T) {
	c := &Command{program(t, "echo no such zone >&2; yes | head -c 100000 >&2; exit 3\n")}
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	err := c.Change(t.Context(), Change{})
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no such zone") || len(err.Error()) > 2000 {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Change(ctx, Change{}); err == nil {
		t.Error("a command that was ended is taken for a success")
	}
	if err := (&Command{t.TempDir()}).Check(); err == nil || !strings.Contains(err.Error(), "not a program") {
		t.Errorf("error %v", err)
	}
}

func TestLookFollowsAliases(t *testing.T) {
	s := resolvertest.New(t, `
example.org.              IN SOA ns.example.org. h.example.org. 1 2 3 4 600
a._domainkey.example.org. 7200 IN CNAME a.keys.example.org.
a.keys.example.org. 1200  IN TXT "v=DKIM1; p=x"
`)
	s.SetAuthoritative()
	d := &Authorities{authority.Asker{Servers: []netip.AddrPort{netip.MustParseAddrPort(s.Addr())}}}
	view, err := d.Look(t.Context(), "a._domainkey."+example)
	if err != nil || len(view.Servers) != 1 || len(view.Servers[0].TXT) != 1 || view.Cached != 2*time.Hour {
		t.Errorf("view %+v, %v", view, err)
	}
}

// A server that does not answer is an error, which does not differ from time to time.
func TestSilentServer(t *testing.T) {
	d := &Authorities{authority.Asker{Servers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}}}
	_, first := d.Look(t.Context(), example)
	_, second := d.Look(t.Context(), example)
	if first == nil || second == nil || first.Error() != second.Error() {
		t.Errorf("%v, then %v", first, second)
	}
}

func TestParseLifetime(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"5d": 5 * 24 * time.Hour, "1w": 7 * 24 * time.Hour, "30": 30 * 24 * time.Hour, "90m": 90 * time.Minute, "0": 0, "99999999w": maxLifetime,
	} {
		if got, err := parseLifetime(text); err != nil || got != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "d", "-1d", "$x", "5 d"} {
		if _, err := parseLifetime(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}
