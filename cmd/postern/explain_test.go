package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

const explainZone = `_dmarc.bank.example. TXT "v=DMARC1; p=reject"
example.com. TXT "v=spf1 include:pool.example -all exp=why.example.com"
pool.example. TXT "v=spf1 mx -all"
pool.example. MX 10 mx.pool.example.
mx.pool.example. A 192.0.2.10
10.2.0.192.in-addr.arpa. PTR mx.pool.example.
why.example.com. TXT "not %{i}"
`

const explainMail = "From MAILER Sat Nov 21 02:00:00 2026\n" +
	"Authentication-Results: id.example; dkim=pass\n" +
	"DKIM-Signature: v=1; a=rsa-sha256; d=example.com; s=\u202ex; h=from; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=QUJD\n" +
	"DKIM-Signature: v=1; a=rsa-sha256; d=example.com; s=s1; h=from:to; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=QUJD\n" +
	"From: a@example.com\n\nHello\n"

// explain runs the command on a mail and gives what it prints.
func explain(t *testing.T, mail string, args ...string) (code int, out, errs string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "mail")
	if err := os.WriteFile(file, []byte(mail), 0o600); err != nil {
		t.Fatal(err)
	}
	server := resolvertest.New(t, explainZone)
	var o, e bytes.Buffer
	all := append([]string{"explain", "message", "--config=", "--resolver", server.Addr(), "--authserv-id", "id.example", "--helo", "mx.pool.example"}, args...)
	code = run(t.Context(), append(all, file), streams{&o, &e})
	return code, o.String(), e.String()
}

func TestExplainMessage(t *testing.T) {
	code, out, errs := explain(t, explainMail, "--ip", "192.0.2.10", "--from", "a@example.com")
	if code != exitYes || errs != "" {
		t.Fatalf("code %d, %s", code, errs)
	}
	for _, want := range []string{
		"TXT   example.com", "MX    pool.example", "10 mx.pool.example.", "PTR   192.0.2.10", "no such name (NXDOMAIN)",
		"SPF mailfrom example.com: pass", "example.com: v=spf1 include:pool.example -all", "  mx: match",
		"matched  mx", "network  192.0.2.10/32", "path     example.com > pool.example", "2 of 10 terms asked DNS, 0 of 2 found nothing",
		"SPF helo mx.pool.example: none",
		"DKIM signature 1: permerror (s= is not a selector)", `s=\u202ex`,
		"DKIM signature 2: permerror (no key)", "signs from to",
		"From: example.com", "iprev: pass mx.pool.example", "removed, because it claims to be ours: Authentication-Results[1]",
		"added (verified):\nAuthentication-Results: id.example;\n\tspf=pass (mx of pool.example) smtp.mailfrom=example.com;",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q", want)
		}
	}
	if strings.Contains(out, "\u202e") {
		t.Error("a character that turns text around reaches the terminal")
	}
	if t.Failed() {
		t.Log(out)
	}
}

func TestExplainRefused(t *testing.T) {
	code, out, _ := explain(t, explainMail, "--ip", "192.0.2.99", "--from", "<a@example.com>", "--to", "bob@home.example", "--spf-reject", "--received-spf")
	if want := "refused for bob@home.example: 550 5.7.23 SPF: 192.0.2.99 may not send mail of example.com (-all); example.com explains: not 192.0.2.99\n"; code != exitNo || !strings.Contains(out, want) {
		t.Errorf("code %d, no %q in\n%s", code, want, out)
	}
	if !strings.Contains(out, "\nReceived-SPF: fail (id.example:") {
		t.Errorf("no Received-SPF in\n%s", out)
	}
}

func TestExplainJSON(t *testing.T) {
	code, out, errs := explain(t, explainMail, "--ip", "192.0.2.10", "--from", "", "--json")
	var x api.Explanation
	if err := json.Unmarshal([]byte(out), &x); err != nil || code != exitYes {
		t.Fatalf("code %d, %v, %s", code, err, errs)
	}
	if len(x.SPF) != 1 || x.SPF[0].Identity != "mailfrom" || x.SPF[0].Domain != "mx.pool.example" || x.SPF[0].Result != "none" {
		t.Errorf("spf %+v", x.SPF)
	}
	if len(x.Signatures) != 2 || x.Reason != "verified" || len(x.Questions) != 6 || len(x.Added) != 1 || len(x.Removed) != 1 {
		t.Errorf("explanation %+v", x)
	}
}

// forgedMail fails under p=reject, and comes from nowhere.
const forgedMail = "From: <boss@bank.example>\nSubject: pay\nX-Postern-Quarantine: dmarc\n\npay\n"

// What follows from DMARC is shown with all that it rests on, by the flags of the
// daemon or its file.
func TestExplainDMARC(t *testing.T) {
	file := filepath.Join(t.TempDir(), "milterd.toml")
	if err := os.WriteFile(file, []byte("dmarc-enforce = \"evidence\"\ndnsbl = []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	envelope := []string{"--ip", "192.0.2.77", "--from", "a@pool.example"}
	common := []string{
		"DMARC: fail (not_aligned)", "bank.example: fail", "policy reject, published by bank.example", "signal   reverse_name: the client has no reverse name",
		"signal   helo: HELO mx.pool.example does not lead to the client", "X-Postern-Quarantine[1]",
	}
	tests := []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"default", nil, exitYes, []string{"rule     reject_evidence: quarantine (mark)", "\nX-Postern-Quarantine: dmarc"}},
		{"off", []string{"--dmarc-enforce=off"}, exitYes, []string{"rule     reject_evidence: none"}},
		{"evidence, from the file", []string{"--config=" + file}, exitNo, []string{"refused: 550 5.7.1 Email rejected per DMARC policy for bank.example"}},
		{"hold", []string{"--dmarc-quarantine=hold"}, exitYes, []string{"put on hold: DMARC policy of bank.example"}},
		{"shadow", []string{"--dmarc-enforce=strict", "--shadow=dmarc"}, exitYes, []string{"reject, not done: shadow"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			code, out, errs := explain(t, forgedMail, append(slices.Clone(envelope), test.args...)...)
			if code != test.code || errs != "" {
				t.Errorf("code %d, %s", code, errs)
			}
			for _, want := range append(test.want, common...) {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
		})
	}
	code, out, _ := explain(t, forgedMail, append(envelope, "--json")...)
	var x api.Explanation
	if err := json.Unmarshal([]byte(out), &x); err != nil || code != exitYes || x.DMARC == nil || x.DMARC.Rule != "reject_evidence" || len(x.DMARC.Domains) != 1 || len(x.DMARC.Signals) != 2 {
		t.Errorf("%v: %s", err, out)
	}
}

// Signatures are judged when the message arrived, and not when someone asks.
func TestExplainTime(t *testing.T) {
	received := "Received: from a by b;\n\tSat, 21 Nov 2026 03:00:00 +0100 (CET)\n"
	signature := "DKIM-Signature: v=1; a=rsa-sha256; d=example.com; s=s1; t=1795200000; x=1795230000; h=from;\n\tbh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=QUJD\n"
	rest := "From: a@example.com\n\nHello\n"
	tests := []struct {
		name, mail string
		args       []string
		want       []string
		expired    bool
	}{
		{"the Received field", received + signature + rest, nil, []string{"judged as of 2026-11-21T02:00:00Z (its Received field)"}, false},
		{"asked for", received + signature + rest, []string{"--at", "2026-11-23T00:00:00Z"}, []string{"judged as of 2026-11-23T00:00:00Z (--at)"}, true},
		{"as a Received field spells it", signature + rest, []string{"--at", "Sat, 21 Nov 2026 02:30:00 +0000"}, []string{"judged as of 2026-11-21T02:30:00Z (--at)"}, false},
		{"neither", rest, nil, []string{"(now: it has no Received field)"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, out, errs := explain(t, tt.mail, append([]string{"--ip", "192.0.2.10", "--from", "a@example.com"}, tt.args...)...)
			if code != exitYes || errs != "" {
				t.Errorf("code %d, %s", code, errs)
			}
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
			if strings.Contains(out, "expired") != tt.expired {
				t.Errorf("expired, want %t:\n%s", tt.expired, out)
			}
		})
	}
	if code, _, errs := explain(t, rest, "--ip", "192.0.2.10", "--from", "", "--at", "tomorrow"); code != exitFailed || !strings.Contains(errs, "the date of a Received field") {
		t.Errorf("no time: code %d, %s", code, errs)
	}
}

// The daemon's file is read when it exists; a file that is named must.
func TestExplainWithoutASettingsFile(t *testing.T) {
	if _, err := os.Stat(api.MilterdConfig); err == nil && os.Getenv("CI") == "" {
		t.Skipf("%s is on this machine", api.MilterdConfig)
	}
	file := filepath.Join(t.TempDir(), "mail")
	if err := os.WriteFile(file, []byte(explainMail), 0o600); err != nil {
		t.Fatal(err)
	}
	server := resolvertest.New(t, explainZone)
	args := []string{"explain", "message", "--resolver", server.Addr(), "--ip", "192.0.2.10", "--from", "a@example.com", file}
	if code, out, errs := postern(t, args...); code != exitYes || errs != "" || !strings.Contains(out, "SPF mailfrom example.com: pass") {
		t.Errorf("exit %d, %s, %s", code, out, errs)
	}
	if code, _, errs := postern(t, append(args, "--config=/nonexistent/milterd.toml")...); code != exitFailed || !strings.Contains(errs, "/nonexistent/milterd.toml") {
		t.Errorf("a file that is not there: exit %d, %s", code, errs)
	}
}

func TestExplainMistakes(t *testing.T) {
	tests := []struct {
		name, mail string
		args       []string
		want       string
	}{
		{"no address", explainMail, []string{"--from", "a@example.com"}, "--ip and --from are needed"},
		{"no sender", explainMail, []string{"--ip", "192.0.2.10"}, "--ip and --from are needed"},
		{"bad address", explainMail, []string{"--ip", "x", "--from", ""}, "client address"},
		{"no header", "hello\n", []string{"--ip", "192.0.2.10", "--from", ""}, "header line 1 has no colon"},
		{"bad resolver", explainMail, []string{"--ip", "192.0.2.10", "--from", "", "--resolver", "nonsense"}, "nonsense"},
		{"bad enforcement", explainMail, []string{"--ip", "192.0.2.10", "--from", "", "--dmarc-enforce=no"}, "dmarc-enforce"},
		{"no such list", explainMail, []string{"--ip", "192.0.2.10", "--from", "", "--trusted-forwarders=/nonexistent"}, "--trusted-forwarders"},
		{"two files", explainMail, []string{"--ip", "192.0.2.10", "--from", "", "/dev/null"}, "usage: postern explain message"},
		{"only a mailbox line", "From x", []string{"--ip", "192.0.2.10", "--from", ""}, "read the message"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if code, _, errs := explain(t, test.mail, test.args...); code != exitFailed || !strings.Contains(errs, test.want) {
				t.Errorf("code %d, %q", code, errs)
			}
		})
	}
	var e bytes.Buffer
	if code := run(t.Context(), []string{"explain", "message", "--ip=::1", "--from=", "/nonexistent/mail"}, streams{&e, &e}); code != exitFailed {
		t.Errorf("a file that is not there: code %d", code)
	}
}
