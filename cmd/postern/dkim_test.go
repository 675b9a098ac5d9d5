package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
)

// postern runs the command and gives what it printed.
func postern(t *testing.T, args ...string) (code int, out, err string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(t.Context(), args, streams{&stdout, &stderr})
	return code, stdout.String(), stderr.String()
}

func TestDKIMGenkey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dkim")
	code, out, stderr := postern(t, "dkim", "genkey", "Home.Example", "--dir", dir, "--bits", "1024")
	if code != exitYes {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	var files, records []string
	for _, name := range []string{"postern.private", "postern.txt", "postern-ed25519.private", "postern-ed25519.txt"} {
		path := filepath.Join(dir, "home.example", name)
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Ext(name) == ".private" && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		if filepath.Ext(name) == ".txt" {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			records = append(records, string(text))
		}
		files = append(files, path)
		if !strings.Contains(stderr, path) {
			t.Errorf("%q does not name %s", stderr, path)
		}
	}
	if want := "$ORIGIN home.example.\n" + strings.Join(records, ""); out != want {
		t.Errorf("printed %q, want %q", out, want)
	}
	if strings.Contains(out+stderr, "PRIVATE KEY") {
		t.Error("the private key was printed")
	}

	before, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := postern(t, "dkim", "genkey", "home.example", "--dir", dir, "--bits", "1024"); code != exitFailed || !strings.Contains(stderr, "exists") {
		t.Errorf("a second time: exit %d, %s", code, stderr)
	}
	after, err := os.ReadFile(files[0])
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the key was replaced: %v", err)
	}
}

func TestDKIMGenkeyRefuses(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"no domain", nil, "usage: postern dkim genkey"},
		{"two domains", []string{"a.example", "b.example"}, "usage: postern dkim genkey"},
		{"no domain name", []string{"a b"}, `domain "a b"`},
		{"selector", []string{"a.example", "--selector", "a/b"}, `selector "a/b"`},
		{"type", []string{"a.example", "--type", "dsa"}, `type "dsa" is not rsa, ed25519 or both`},
		{"short key", []string{"a.example", "--bits", "512"}, "512 bit"},
		{"long key", []string{"a.example", "--bits", "16384"}, "16384 bit"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "dkim")
			code, out, stderr := postern(t, slices.Concat([]string{"dkim", "genkey", "--dir", dir}, test.args)...)
			if code != exitFailed || out != "" || !strings.Contains(stderr, test.want) {
				t.Errorf("exit %d, %q, %q, want %q", code, out, stderr, test.want)
			}
			if _, err := os.Stat(dir); err == nil {
				t.Error("something was written")
			}
		})
	}
}

func TestDKIMDNS(t *testing.T) {
	dir := t.TempDir()
	if code, out, stderr := postern(t, "dkim", "dns", "--dir", dir); code != exitNo || out != "" || !strings.Contains(stderr, "genkey") {
		t.Errorf("without keys: exit %d, %q, %q", code, out, stderr)
	}
	var printed []string
	for _, domain := range []string{"away.example", "home.example"} {
		_, out, _ := postern(t, "dkim", "genkey", domain, "--dir", dir, "--bits", "1024")
		printed = append(printed, out)
	}
	code, out, stderr := postern(t, "dkim", "dns", "--dir", dir)
	if want := strings.Join(printed, ""); code != exitYes || !sameLines(out, want) {
		t.Errorf("exit %d, %s: printed %q, want %q", code, stderr, out, want)
	}
	if _, out, _ := postern(t, "dkim", "dns", "--dir", dir, "home.example"); !sameLines(out, printed[1]) {
		t.Errorf("for one domain %q, want %q", out, printed[1])
	}
	code, out, stderr = postern(t, "dkim", "dns", "--dir", dir, "nokey.example", "Home.Example.")
	if code != exitNo || !sameLines(out, printed[1]) || stderr != "nokey.example has no key; make one with `postern dkim genkey nokey.example`\n" {
		t.Errorf("for a domain without a key, and one in capitals: exit %d, %q, %q", code, out, stderr)
	}
	if code, _, stderr := postern(t, "dkim", "dns", "--dir", dir, "a b"); code != exitFailed || !strings.Contains(stderr, `domain "a b"`) {
		t.Errorf("for no domain: exit %d, %q", code, stderr)
	}
	// What the daemon's group may read is printed too.
	if err := os.Chmod(filepath.Join(dir, "home.example", "postern.private"), 0o640); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := postern(t, "dkim", "dns", "--dir", dir); code != exitYes {
		t.Errorf("with a key for the group: exit %d, %s", code, stderr)
	}
	// One that cannot be used does not hide the others.
	if err := os.Chmod(filepath.Join(dir, "home.example", "postern.private"), 0o644); err != nil {
		t.Fatal(err)
	}
	if code, out, stderr := postern(t, "dkim", "dns", "--dir", dir); code != exitNo || !strings.Contains(out, "away.example") || !strings.Contains(stderr, "chmod 0600") {
		t.Errorf("with a bad key: exit %d, %q, %q", code, out, stderr)
	}
	if code, _, stderr := postern(t, "dkim", "dns", "--dir", dir+"/none"); code != exitFailed || !strings.Contains(stderr, dir+"/none") {
		t.Errorf("no folder: exit %d, %s", code, stderr)
	}
}

// Without a flag that names keys, the records are those of what the daemon signs with.
func TestDKIMDNSOfSettings(t *testing.T) {
	dir := t.TempDir()
	_, want, _ := postern(t, "dkim", "genkey", "home.example", "--dir", dir, "--bits", "1024", "--type", "rsa", "--selector", "mail")
	files := map[string]string{
		"key": "k home.example:mail:" + filepath.Join(dir, "home.example/mail.private") + "\n", "signing": "*@home.example k\n",
		"tables.toml":  "dkim-keys = \"\"\ndkim-key-table = \"" + dir + "/key\"\ndkim-signing-table = \"refile:" + dir + "/signing\"\n",
		"folder.toml":  "dkim-keys = \"" + dir + "\"\n",
		"postfix.toml": "dkim-key-table = \"texthash:" + dir + "/key\"\n",
		"wrong.toml":   "dkim-keys\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"tables.toml", "folder.toml"} {
		if code, out, stderr := postern(t, "dkim", "dns", "--config", filepath.Join(dir, name), "home.example"); code != exitYes || !sameLines(out, want) {
			t.Errorf("%s: exit %d, %s%q, want %q", name, code, stderr, out, want)
		}
	}
	for name, want := range map[string]string{"postfix.toml": "postern dkim check DOMAIN", "wrong.toml": "wrong.toml:1"} {
		if code, _, stderr := postern(t, "dkim", "dns", "--config", filepath.Join(dir, name)); code != exitFailed || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit %d, %s", name, code, stderr)
		}
	}
}

// sameLines compares but for the order in which the keys of a domain are.
func sameLines(a, b string) bool {
	lines := func(s string) []string { return slices.Sorted(strings.Lines(s)) }
	return slices.Equal(lines(a), lines(b))
}

func TestDKIMKeys(t *testing.T) {
	tests := []struct {
		keys []api.KeyStatus
		code int
		want []string
	}{
		{[]api.KeyStatus{}, exitNo, []string{"no key: no mail is signed"}},
		{
			[]api.KeyStatus{{Domain: "home.example", Selector: "a", Algorithm: "rsa-sha256", Bits: 2048, Signs: true}},
			exitYes, []string{"home.example  a         rsa-sha256 2048  yes    not watched"},
		},
		{
			[]api.KeyStatus{{Domain: "home.example", Selector: "a", Algorithm: "ed25519-sha256", DNS: "published with another key, or revoked"}},
			exitNo, []string{"home.example  a         ed25519-sha256  no     published with another key"},
		},
		{
			[]api.KeyStatus{{Domain: "home.example", Selector: "a", Algorithm: "rsa-sha256", Bits: 2048, Signs: true}, {Error: "/etc/k: mode 0644"}},
			exitNo, []string{"home.example  a ", "not used: /etc/k: mode 0644"},
		},
	}
	for _, test := range tests {
		path := serveAdmin(t, func(context.Context, struct{}, func(any)) (any, error) { return test.keys, nil })
		code, out, stderr := postern(t, "dkim", "keys", "--admin", path)
		if code != test.code {
			t.Errorf("exit %d, want %d: %s", code, test.code, stderr)
		}
		for _, want := range test.want {
			if !strings.Contains(out, want) {
				t.Errorf("%q has no %q", out, want)
			}
		}
		if code, out, _ := postern(t, "dkim", "keys", "--json", "--admin", path); code != test.code || !strings.HasPrefix(out, "[") {
			t.Errorf("JSON: exit %d, %s", code, out)
		}
	}
	if code, _, stderr := postern(t, "dkim", "keys", "--admin", t.TempDir()+"/none"); code != exitFailed || stderr == "" {
		t.Errorf("no daemon: exit %d, %q", code, stderr)
	}
}

// serveAdmin answers dkim.keys as the daemon does.
func serveAdmin(t *testing.T, answer func(context.Context, struct{}, func(any)) (any, error)) string {
	t.Helper()
	return serveCommands(t, api.Milterd, map[string]admin.Handler{"dkim.keys": admin.Typed(answer)})
}
