package milterd

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
)

// Secrets that systemd gives to the service are named without a slash.
func TestCredentials(t *testing.T) {
	args := []string{"--dkim-keys=dkim", "--mark-key-file=marks"}
	refused := func(want string) {
		t.Helper()
		if _, err := load(zap.NewNop(), args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	refused(`--mark-key-file: "marks" is relative`)
	refused("add LoadCredential=dkim:PATH to the unit")

	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	der, err := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed([]byte("an Ed25519 key that is for tests")))
	if err != nil {
		t.Fatal(err)
	}
	put := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("dkim_home.example_s.private", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	refused("--mark-key-file: stat " + dir + "/marks: no such file or directory")
	if _, err := os.Stat(filepath.Join(dir, "marks")); err == nil {
		t.Error("the daemon has made a credential")
	}
	put("marks", []byte(base64.StdEncoding.EncodeToString(make([]byte, 32))))
	args[0] = "--dkim-keys=none"
	refused("--dkim-keys: " + dir + ": no credential is named none_<domain>_<selector>.private")
	args[0] = "--dkim-keys=dkim"
	s, err := load(zap.NewNop(), args...)
	if err != nil {
		t.Fatal(err)
	}
	if keys := partOf[*signPart](t, s.state).keys.All(); len(keys) != 1 || keys[0].Name() != "s._domainkey.home.example" {
		t.Errorf("keys %v", keys)
	}
}
