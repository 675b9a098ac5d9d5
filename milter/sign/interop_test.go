package sign

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// These tests need the Debian packages opendkim, opendkim-tools, python3-dkim
// and python3-nacl, which .ci/setup installs. Without them they are skipped,
// but for continuous integration.

func needs(t *testing.T, paths ...string) {
	t.Helper()
	if testing.Short() {
		t.Skip("compares with another program, and the tests run without (-short)")
	}
	for _, path := range paths {
		if _, err := os.Stat(path); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// opendkimVerdict has opendkim verify a mail with dir/conf. It exits with an error
// for a signature that fails.
func opendkimVerdict(t *testing.T, dir, mail string) string {
	t.Helper()
	out, err := exec.Command("/usr/sbin/opendkim", "-x", filepath.Join(dir, "conf"), "-t", mail).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out)
}

const dkimpyVerify = `
import sys, dkim
zone = dict(line.rstrip("\n").split("\t") for line in open(sys.argv[2]))
def txt(name, timeout=5):
    return zone.get(name.decode().rstrip("."), "").encode()
d = dkim.DKIM(open(sys.argv[1], "rb").read())
print(" ".join(str(d.verify(idx=i, dnsfunc=txt)) for i in range(int(sys.argv[3]))))
`

// writeSigned signs a mail and writes it with the zone beside it.
func writeSigned(t *testing.T, keys *Keys, body string) (mail, zoneFile, opendkimZone string) {
	t.Helper()
	header := fields(plainHeader)
	r := signed(t, sign(t, New(Options{}, keys), header, body), len(keys.All()))
	dir := t.TempDir()
	var lines, records strings.Builder
	for name, text := range zoneOf(t, keys).texts {
		lines.WriteString(name + "\t" + text + "\n")
		records.WriteString(name + " " + text + "\n")
	}
	mail, zoneFile, opendkimZone = filepath.Join(dir, "mail"), filepath.Join(dir, "zone"), filepath.Join(dir, "keys")
	for path, text := range map[string]string{mail: wire(append(r.Fields, header...), body), zoneFile: lines.String(), opendkimZone: records.String()} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return mail, zoneFile, opendkimZone
}

func bodies() []string {
	return []string{"Hello,\r\n\r\n  world \t!  \r\n\r\n\r\n", "", "\r\n\r\n", "no end", strings.Repeat("a  b\t\r\n", 5000)}
}

func TestDkimpyVerifies(t *testing.T) {
	needs(t, "/usr/bin/python3", "/usr/lib/python3/dist-packages/dkim", "/usr/lib/python3/dist-packages/nacl")
	keys := bothKeys(t)
	for i, body := range bodies() {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			mail, zoneFile, _ := writeSigned(t, keys, body)
			if got := run(t, "/usr/bin/python3", "-c", dkimpyVerify, mail, zoneFile, "2"); got != "True True\n" {
				t.Errorf("dkimpy says %q", got)
			}
		})
	}
}

func TestOpenDKIMVerifies(t *testing.T) {
	needs(t, "/usr/sbin/opendkim")
	keys := someKeysOf(t, "example.com/rsa.private") // it does not know Ed25519
	for i, body := range bodies() {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			// Its test mode does not read a last line that has no end.
			if body != "" && !strings.HasSuffix(body, "\r\n") {
				body += "\r\n"
			}
			mail, _, zoneFile := writeSigned(t, keys, body)
			conf := filepath.Join(filepath.Dir(mail), "conf")
			if err := os.WriteFile(conf, []byte("Mode v\nTestDNSData "+zoneFile+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := opendkimVerdict(t, filepath.Dir(mail), mail); !strings.Contains(got, "verification (s=rsa, d=example.com, 2048-bit key) succeeded") {
				t.Errorf("opendkim says %q", got)
			}
		})
	}
}

func TestOpenDKIMGenkeyAgrees(t *testing.T) {
	needs(t, "/usr/sbin/opendkim-genkey")
	dir := t.TempDir()
	run(t, "/usr/sbin/opendkim-genkey", "-D", dir, "-d", "example.com", "-s", "mail", "-b", "2048")
	want, err := os.ReadFile(filepath.Join(dir, "mail.txt"))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := readKeyFile(filepath.Join(dir, "mail.private"), -1)
	if err != nil {
		t.Fatal(err)
	}
	key, err := newKey("example.com", "mail", "p", signer)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := key.ZoneEntry(); err != nil || got != string(want) {
		t.Errorf("got %q, %v\nwant %q", got, err, want)
	}
}
