package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/doctor"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
	"github.com/postern-mail/postern/milter/sign"
)

// The command reads the daemon's settings and answers with its exit status. Where no
// server of the zone can be found, that is a warning.
func TestDKIMCheck(t *testing.T) {
	dir := t.TempDir()
	keys, err := sign.Generate(sign.NewKeys{Dir: filepath.Join(dir, "dkim"), Domain: "home.example", Type: sign.RSA})
	if err != nil {
		t.Fatal(err)
	}
	dns := resolvertest.New(t, `
home.example.         IN TXT "v=spf1 ip4:203.0.113.7 -all"
_dmarc.home.example.  IN TXT "v=DMARC1; p=none"
`)
	if err := dns.Add("$ORIGIN home.example.\n" + keys[0].ZoneEntry); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "milterd.toml")
	text := fmt.Sprintf("dkim-keys = %q\nresolver = [%q]\n", filepath.Join(dir, "dkim"), dns.Addr())
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"dkim", "check", "--milterd-config", config, "--milterd-admin", "unix:" + filepath.Join(dir, "none.sock"), "--config-directory", dir}

	code, out, stderr := postern(t, args...)
	if code != exitNo || !strings.HasPrefix(out, "home.example\n") || !strings.Contains(out, "its authoritative servers cannot be found") {
		t.Errorf("exit %d:\n%s%s", code, out, stderr)
	}
	code, out, stderr = postern(t, append(args, "--json", "Home.Example")...)
	var report doctor.DKIMReport
	if err := json.Unmarshal([]byte(out), &report); err != nil || code != exitNo || report.Level != doctor.Warn || len(report.Domains) != 1 || report.Domains[0].Keys[0].Bits != 2048 {
		t.Errorf("exit %d, %v:\n%s%s", code, err, out, stderr)
	}
	dns.Remove(keys[0].Name())
	if code, out, _ = postern(t, args...); code != exitFailed || !strings.Contains(out, "has no record: receivers cannot verify") || !strings.Contains(out, "; fix: publish what postern dkim dns home.example prints") {
		t.Errorf("without a record: exit %d:\n%s", code, out)
	}
	if code, _, stderr = postern(t, append(args, "no domain")...); code != exitFailed || !strings.Contains(stderr, `domain "no domain"`) {
		t.Errorf("no domain: exit %d: %s", code, stderr)
	}
}
