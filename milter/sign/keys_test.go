package sign

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/postern-mail/postern/internal/author"
)

// testRSA is made once: it is the slow part of these tests.
var testRSA = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func testEd25519() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed([]byte("an Ed25519 key that is for tests"))
}

func pemOf(t testing.TB, kind string, der []byte, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func pkcs8(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pemOf(t, "PRIVATE KEY", der, err)
}

func pkcs1(t testing.TB, key *rsa.PrivateKey) []byte {
	t.Helper()
	return pemOf(t, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key), nil)
}

// modulusOnly is a PKCS#1 key of a size that takes minutes to make.
func modulusOnly(t *testing.T, bits uint) []byte {
	t.Helper()
	n := new(big.Int).Lsh(big.NewInt(1), bits-1)
	n.SetBit(n, 0, 1)
	one := big.NewInt(1)
	der, err := asn1.Marshal(struct {
		Version                   int
		N, E, D, P, Q, Dp, Dq, Qi *big.Int
	}{0, n, big.NewInt(65537), one, one, one, one, one, one})
	return pemOf(t, "RSA PRIVATE KEY", der, err)
}

func TestParseKey(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, publicErr := x509.MarshalPKIXPublicKey(testRSA().Public())
	rsa1, rsa8, ed8 := pkcs1(t, testRSA()), pkcs8(t, testRSA()), pkcs8(t, testEd25519())
	crlf := func(b []byte) []byte { return []byte(strings.ReplaceAll(string(b), "\n", "\r\n")) }
	tests := []struct {
		name string
		data []byte
		want crypto.Signer
		err  string
	}{
		{"PKCS#1", rsa1, testRSA(), ""},
		{"PKCS#8 RSA", rsa8, testRSA(), ""},
		{"PKCS#8 Ed25519", ed8, testEd25519(), ""},
		{"Windows line ends", crlf(rsa1), testRSA(), ""},
		{"old Mac line ends", []byte(strings.ReplaceAll(string(ed8), "\n", "\r")), testEd25519(), ""},
		{"byte order mark", append([]byte("\xef\xbb\xbf"), rsa8...), testRSA(), ""},
		{"text around", append([]byte("my key\n"), append(ed8, "end\n"...)...), testEd25519(), ""},
		{"two keys", append(slices.Clone(rsa8), ed8...), nil, "more than one"},
		{"empty", nil, nil, "no private key"},
		{"no PEM", []byte("hello"), nil, "no private key"},
		{"public key", pemOf(t, "PUBLIC KEY", public, publicErr), nil, "public key"},
		{"certificate", pemOf(t, "CERTIFICATE", []byte{1}, nil), nil, "unknown type"},
		{"encrypted PKCS#8", pemOf(t, "ENCRYPTED PRIVATE KEY", []byte{1}, nil), nil, "openssl pkey"},
		{"encrypted PKCS#1", pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: []byte{1},
			Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,00"}}), nil, "openssl pkey"},
		{"elliptic curve", pkcs8(t, ec), nil, "needs RSA or Ed25519"},
		{"broken PKCS#1", pemOf(t, "RSA PRIVATE KEY", []byte{0x30, 1, 0}, nil), nil, "not an RSA key"},
		{"broken PKCS#8", pemOf(t, "PRIVATE KEY", []byte{0x30, 1, 0}, nil), nil, "not a PKCS#8 key"},
		{"512 bit", modulusOnly(t, 512), nil, "512 bit"},
		{"16,384 bit", modulusOnly(t, 16384), nil, "16384 bit"},
		{"invalid RSA numbers", modulusOnly(t, 2048), nil, "not a PKCS#1 RSA key"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseKey(tt.data)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got error %v, want one with %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !got.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(tt.want.Public()) {
				t.Error("another key")
			}
		})
	}
}

// The buffers of a key file hold no decoded key afterwards.
func TestParseKeyClears(t *testing.T) {
	for kind, data := range map[string][]byte{"RSA PRIVATE KEY": pkcs1(t, testRSA()), "PRIVATE KEY": pkcs8(t, testRSA()), "ENCRYPTED PRIVATE KEY": pkcs8(t, testEd25519())} {
		block, _ := pem.Decode(data)
		block.Type = kind
		key, err := parseBlock(block)
		if (err != nil) != (kind == "ENCRYPTED PRIVATE KEY") {
			t.Fatalf("%s: %v", kind, err)
		}
		if len(block.Bytes) < 40 || bytes.ContainsFunc(block.Bytes, func(r rune) bool { return r != 0 }) {
			t.Errorf("%s: the block is not cleared", kind)
		}
		if key, ok := key.(*rsa.PrivateKey); ok && key.Validate() != nil {
			t.Errorf("%s: the key was cleared too", kind)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add([]byte("-----BEGIN RSA PRIVATE KEY-----\r\nMAA=\r\n-----END RSA PRIVATE KEY-----\r\n"))
	f.Add(pkcs8(f, testEd25519()))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMAA=\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if key, err := parseKey(slices.Clone(data)); err == nil {
			if _, err := newKey("example.com", "s", "p", key); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// tree writes files, given as path and content in pairs, and returns the folder.
func tree(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func names(keys []*Key) string {
	var list []string
	for _, k := range keys {
		list = append(list, k.Selector+"/"+k.Domain)
	}
	return strings.Join(list, " ")
}

func load(t testing.TB, src KeySource) *Keys {
	t.Helper()
	keys, err := LoadKeys(src)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestLoadDir(t *testing.T) {
	rsa, ed := pkcs8(t, testRSA()), pkcs8(t, testEd25519())
	dir := tree(t, map[string][]byte{
		"Example.COM/MAIL.private":        rsa,
		"Example.COM/ed.private":          ed,
		"Example.COM/ed.txt":              []byte("record"),
		"Example.COM/.hidden.private":     []byte("no key"),
		"b\u00fccher.example/x.y.private": ed,
		"README":                          []byte("text"),
		"empty folder/notes":              nil,
		".git/x.private":                  []byte("no key"),
	})
	keys := load(t, KeySource{Dir: dir, Group: -1})
	if got, want := names(keys.All()), "ed/example.com mail/example.com x.y/xn--bcher-kva.example"; got != want {
		t.Errorf("keys %s, want %s", got, want)
	}
	if got, want := strings.Join(keys.Domains(), " "), "example.com xn--bcher-kva.example"; got != want {
		t.Errorf("domains %s, want %s", got, want)
	}
	if !slices.Contains(keys.Dirs(), dir) || !slices.Contains(keys.Dirs(), filepath.Join(dir, "Example.COM")) {
		t.Errorf("dirs %q", keys.Dirs())
	}
	if k := keys.All()[1]; k.Algorithm != "rsa-sha256" || k.Bits != 2048 || k.Name() != "mail._domainkey.example.com" {
		t.Errorf("key %+v", k)
	}
}

// systemd makes of a folder of keys files of these names.
func TestLoadCredentials(t *testing.T) {
	ed := pkcs8(t, testEd25519())
	files := map[string][]byte{
		"dkim_example.com_mail.private":        ed,
		"dkim_b\u00fccher.example_a_b.private": ed,
		"dkim_example.com_mail.txt":            []byte("record"),
		"dkimmarks":                            []byte("no key"),
		"other_example.com_x.private":          []byte("no key"),
	}
	dir := tree(t, files)
	if got := names(load(t, KeySource{Dir: dir, Credential: "dkim", Group: -1}).All()); got != "mail/example.com a_b/xn--bcher-kva.example" {
		t.Errorf("keys %s", got)
	}
	for name, want := range map[string]string{
		"none":  "no credential is named none_<domain>_<selector>.private; in the unit, write LoadCredential=none:FOLDER",
		"other": "holds no private key in PEM",
	} {
		if _, err := LoadKeys(KeySource{Dir: dir, Credential: name, Group: -1}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	write(t, dir, "dkim_mail.private", string(ed)) // a key at the top of the folder
	if _, err := LoadKeys(KeySource{Dir: dir, Credential: "dkim", Group: -1}); err == nil || !strings.Contains(err.Error(), "the credential is not named dkim_<domain>_<selector>.private") {
		t.Error(err)
	}
}

func TestChoose(t *testing.T) {
	ed := pkcs8(t, testEd25519())
	keys := load(t, KeySource{Group: -1, Dir: tree(t, map[string][]byte{
		"example.com/a.private":     ed,
		"example.com/b.private":     ed,
		"sub.example.com/c.private": ed,
	})})
	tests := []struct {
		domain     string
		subdomains bool
		want       string
	}{
		{"example.com", false, "a/example.com b/example.com"},
		{"sub.example.com", true, "c/sub.example.com"},
		{"other.example.com", false, ""},
		{"other.example.com", true, "a/example.com b/example.com"},
		{"x.sub.example.com", true, "c/sub.example.com"},
		{"notexample.com", true, ""},
		{"com", true, ""},
	}
	for _, tt := range tests {
		if got := names(keys.choose(author.Mailbox{Local: "u", Domain: tt.domain}, tt.subdomains)); got != tt.want {
			t.Errorf("%s, subdomains %v: got %q, want %q", tt.domain, tt.subdomains, got, tt.want)
		}
	}
}

func TestLoadDirErrors(t *testing.T) {
	ed := pkcs8(t, testEd25519())
	const key = "example.com/a.private"
	tests := []struct {
		name   string
		change func(t *testing.T, dir string) error
		want   []string
	}{
		{"readable by all", func(_ *testing.T, dir string) error {
			return os.Chmod(filepath.Join(dir, key), 0o644)
		}, []string{key, "0644", "everybody", "chmod 0600"}},
		{"readable by the group", func(_ *testing.T, dir string) error {
			return os.Chmod(filepath.Join(dir, key), 0o640)
		}, []string{key, "0640", "the group", "chmod 0600"}},
		{"folder writable by all", func(_ *testing.T, dir string) error {
			return os.Chmod(filepath.Join(dir, "example.com"), 0o777)
		}, []string{"example.com", "0777", "chmod o-w"}},
		{"symlink loop as key", func(_ *testing.T, dir string) error {
			return os.Symlink("b.private", filepath.Join(dir, "example.com/b.private"))
		}, []string{"example.com/b.private", "leads back to itself"}},
		{"symlink loop as domain", func(_ *testing.T, dir string) error {
			return os.Symlink("loop.example", filepath.Join(dir, "loop.example"))
		}, []string{"loop.example", "leads back to itself"}},
		{"dangling symlink", func(_ *testing.T, dir string) error {
			return os.Symlink("nowhere", filepath.Join(dir, "example.com/b.private"))
		}, []string{"example.com/b.private", "no such file"}},
		{"key at the top", func(_ *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(dir, "mail.private"), ed, 0o600)
		}, []string{"mail.private", "outside a domain's folder", "<domain>"}},
		{"folder that is no domain", func(_ *testing.T, dir string) error {
			return os.Rename(filepath.Join(dir, "example.com"), filepath.Join(dir, "my keys"))
		}, []string{"my keys", "not named like a domain"}},
		{"no selector", func(_ *testing.T, dir string) error {
			return os.Rename(filepath.Join(dir, key), filepath.Join(dir, "example.com/a b.private"))
		}, []string{"a b.private", "not a selector"}},
		{"same selector in other case", func(_ *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(dir, "example.com/A.private"), ed, 0o600)
		}, []string{"a._domainkey.example.com", "already"}},
		{"folder instead of a key", func(_ *testing.T, dir string) error {
			return os.Mkdir(filepath.Join(dir, "example.com/b.private"), 0o700)
		}, []string{"b.private", "not a regular file"}},
		{"large file", func(_ *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(dir, "example.com/b.private"), make([]byte, maxKeyFile+1), 0o600)
		}, []string{"b.private", "no key"}},
		{"no key in it", func(_ *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(dir, key), []byte("secret"), 0o600)
		}, []string{key, "holds no private key"}},
		{"too many keys", func(_ *testing.T, dir string) error {
			for _, s := range strings.Split("bcdefghi", "") {
				if err := os.WriteFile(filepath.Join(dir, "example.com", s+".private"), ed, 0o600); err != nil {
					return err
				}
			}
			return nil
		}, []string{"more than 8 keys for example.com"}},
		{"no folder", func(_ *testing.T, dir string) error { return os.RemoveAll(dir) }, []string{"no such file"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := tree(t, map[string][]byte{key: ed})
			if err := tt.change(t, dir); err != nil {
				t.Fatal(err)
			}
			_, err := LoadKeys(KeySource{Dir: dir, Group: -1})
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("error %q shows the file's content", err)
			}
		})
	}
}

// A circle of folders is harmless: only two levels are read.
func TestLoadDirCircle(t *testing.T) {
	dir := tree(t, map[string][]byte{"example.com/a.private": pkcs8(t, testEd25519())})
	if err := os.Symlink("..", filepath.Join(dir, "example.com/loop.example")); err != nil {
		t.Fatal(err)
	}
	if got := names(load(t, KeySource{Dir: dir, Group: -1}).All()); got != "a/example.com" {
		t.Errorf("keys %q", got)
	}
}

func TestGroupMayRead(t *testing.T) {
	dir := tree(t, map[string][]byte{"example.com/a.private": pkcs8(t, testEd25519())})
	path := filepath.Join(dir, "example.com/a.private")
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	load(t, KeySource{Dir: dir, Group: os.Getegid()})
	if _, err := LoadKeys(KeySource{Dir: dir, Group: os.Getegid() + 1}); err == nil {
		t.Error("another group may read the key")
	}
	if err := os.Chmod(path, 0o660); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKeys(KeySource{Dir: dir, Group: os.Getegid()}); err == nil {
		t.Error("the group may write the key")
	}
}

// A bad file affects only its own key. Its previous key still signs.
func TestOneBadKey(t *testing.T) {
	ed, rsa := pkcs8(t, testEd25519()), pkcs8(t, testRSA())
	bad := func(t *testing.T, path string) {
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name   string
		spoil  func(t *testing.T, dir string)
		afresh string // the keys of a daemon that starts now
		kept   string // those of one that had them all
	}{
		{"key of everybody", func(t *testing.T, dir string) { bad(t, dir+"/a.example/s.private") }, "s/b.example t/b.example", "s/a.example s/b.example t/b.example"},
		{"one of two keys", func(t *testing.T, dir string) { bad(t, dir+"/b.example/s.private") }, "s/a.example t/b.example", "s/a.example s/b.example t/b.example"},
		{"half written", func(t *testing.T, dir string) { write(t, dir, "a.example/s.private", string(rsa[:700])) }, "s/b.example t/b.example", "s/a.example s/b.example t/b.example"},
		{"removed", func(t *testing.T, dir string) {
			if err := os.Remove(dir + "/a.example/s.private"); err != nil {
				t.Fatal(err)
			}
		}, "s/b.example t/b.example", "s/b.example t/b.example"},
		{"replaced", func(t *testing.T, dir string) { write(t, dir, "a.example/s.private", string(rsa)) }, "s/a.example s/b.example t/b.example", "s/a.example s/b.example t/b.example"},
		{"folder of everybody", func(t *testing.T, dir string) {
			if err := os.Chmod(dir+"/b.example", 0o777); err != nil {
				t.Fatal(err)
			}
		}, "s/a.example", "s/a.example s/b.example t/b.example"},
		{"folder that leads nowhere", func(t *testing.T, dir string) {
			if err := os.RemoveAll(dir + "/b.example"); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("nowhere", dir+"/b.example"); err != nil {
				t.Fatal(err)
			}
		}, "s/a.example", "s/a.example s/b.example t/b.example"},
		{"key at the top", func(t *testing.T, dir string) { write(t, dir, "s.private", string(ed)) }, "s/a.example s/b.example t/b.example", "s/a.example s/b.example t/b.example"},
		{"all of them", func(t *testing.T, dir string) {
			bad(t, dir+"/a.example/s.private")
			bad(t, dir+"/b.example/s.private")
			bad(t, dir+"/b.example/t.private")
		}, "none", "none"},
		{"whole folder", func(t *testing.T, dir string) {
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
		}, "none", "none"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := tree(t, map[string][]byte{"a.example/s.private": ed, "b.example/s.private": ed, "b.example/t.private": rsa})
			before := load(t, KeySource{Dir: dir, Group: -1})
			tt.spoil(t, dir)
			for _, c := range []struct {
				before *Keys
				want   string
			}{{nil, tt.afresh}, {before, tt.kept}} {
				keys, err := LoadKeys(KeySource{Dir: dir, Group: -1, Before: c.before})
				got := "none"
				if keys != nil {
					got = names(keys.All())
				}
				if got != c.want {
					t.Errorf("keys %q, want %q (%v)", got, c.want, err)
				}
				if fine := tt.name == "removed" || tt.name == "replaced"; (err == nil) != fine || keys != nil && (keys.Problems() == 0) != fine {
					t.Errorf("error %v", err)
				}
				if keys != nil && !slices.Contains(keys.Dirs(), dir) {
					t.Errorf("dirs %q", keys.Dirs())
				}
			}
		})
	}
}

// Tables and the files that they name fail in the same way.
func TestOneBadTableKey(t *testing.T) {
	ed := pkcs8(t, testEd25519())
	dir := tree(t, map[string][]byte{"each/a.example/k": ed, "each/b.example/k": ed, "one": ed, "senders": []byte("* each\nc.example one\nd.example any\n")})
	write(t, dir, "keys", strings.ReplaceAll("each %:s:DIR/each/%/k\none c.example:s:DIR/one\nany %:t:DIR/one\n", "DIR", dir))
	src := KeySource{KeyTable: dir + "/keys", SigningTable: dir + "/senders", Group: -1}
	chosen := func(keys *Keys) string {
		var all []string
		for _, domain := range []string{"a.example", "b.example", "c.example", "d.example"} {
			all = append(all, names(keys.choose(author.Mailbox{Domain: domain}, false)))
		}
		return strings.Join(all, "|")
	}
	before := load(t, src)
	const whole = "s/a.example|s/b.example|s/c.example|t/d.example"
	if got := chosen(before); got != whole || names(before.All()) != "s/a.example s/b.example s/c.example t/d.example" {
		t.Fatalf("%s, %s", got, names(before.All()))
	}
	if err := os.Chmod(dir+"/one", 0o604); err != nil {
		t.Fatal(err)
	}
	keys, err := LoadKeys(src)
	if got := chosen(keys); got != "s/a.example|s/b.example||" || err == nil || keys.Problems() != 1 {
		t.Errorf("%s, %d problems, %v", got, keys.Problems(), err)
	}
	src.Before = before
	for _, name := range []string{"keys", "senders"} { // a table that is gone
		if err := os.Rename(dir+"/"+name, dir+"/old"); err != nil {
			t.Fatal(err)
		}
		keys, err = LoadKeys(src)
		if got := chosen(keys); got != whole || !strings.Contains(err.Error(), name+": no such file") {
			t.Errorf("%s, %v", got, err)
		}
		if err := os.Rename(dir+"/old", dir+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir+"/each", 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir+"/one", 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err = LoadKeys(src)
	if got := chosen(keys); got != whole || err == nil {
		t.Errorf("%s, %v", got, err)
	}
	rest := keys.Without(func(k *Key) bool {
		return k.Domain == "d.example" || k.Domain == "a.example" || k.Domain == "c.example"
	})
	if got := chosen(rest); got != "|s/b.example||" {
		t.Errorf("without two: %s", got)
	}
}
