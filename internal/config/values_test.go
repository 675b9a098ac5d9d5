package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-mail/postern/internal/transient"
)

func TestParseDuration(t *testing.T) {
	const h = time.Hour
	for in, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "90s": 90 * time.Second, "3m": 3 * time.Minute, "35d": 840 * h, "1d12h": 36 * h,
		"2w": 336 * h, "1w1d1h1m1s1ms": 193*h + time.Minute + time.Second + time.Millisecond,
		"1.5d": 36 * h, "0.5h": 30 * time.Minute, "1h1h": 2 * h, "15250w1d23h47m16s": math.MaxInt64 / time.Second * time.Second,
	} {
		if got, err := ParseDuration(in); err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "3", "d", "-3m", "+3m", "3 m", "3m ", "3y", "1d2", "..d", "1.2.3h", "3M", "١d", "1e9s", "\x00", "15251w", "300y",
		"15250w15250w", "99999999999999999999d", strings.Repeat("1s", maxDurationLength),
	} {
		if got, err := ParseDuration(in); err == nil {
			t.Errorf("%q: got %v, want an error", in, got)
		}
	}
}

func TestFormatDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Second: "1s", 90 * time.Second: "1m30s", 3 * time.Minute: "3m", 2 * time.Hour: "2h",
		2*time.Hour + time.Second: "2h0m1s", 35 * day: "35d", day + 12*time.Hour: "1d12h", 200 * time.Millisecond: "200ms",
		10 * time.Minute: "10m", 20 * time.Hour: "20h", -time.Minute: "-1m",
	} {
		if got := FormatDuration(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

func FuzzDuration(f *testing.F) {
	for _, s := range []string{"", "0", "35d", "1d12h", "1.5w", "-1h", "1h1h", "9999999w", "0.000000001ns", "1µs", ".", "d", "1d\x00", "15250w1d23h47m16.854775807s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDuration(s)
		if err != nil {
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
				t.Errorf("%q: more than one line: %q", s, err)
			}
			return
		}
		if d < 0 {
			t.Fatalf("%q: negative: %v", s, d)
		}
		if back, err := ParseDuration(FormatDuration(d)); err != nil || back != d {
			t.Errorf("%q: %v is spelled %q, which is %v, %v", s, d, FormatDuration(d), back, err)
		}
	})
}

func TestSize(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "1": 1, "1000": 1000, "1B": 1, "512M": 512 << 20, "512m": 512 << 20, "2G": 2 << 30, "64KiB": 64 << 10, "3TB": 3 << 40,
		"8388607T": 8388607 << 40, "9223372036854775807": math.MaxInt64,
	} {
		if got, err := ParseSize(in); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", in, got, err, want)
		}
		if back, err := ParseSize(FormatSize(want)); err != nil || back != want {
			t.Errorf("%d is spelled %q, which is %d, %v", want, FormatSize(want), back, err)
		}
	}
	for _, in := range []string{"", "M", "B", "iB", "-1M", "+1M", "1.5G", "1 M", " 1M", "1P", "1MM", "1iM", "1i", "1BB", "1MBB", "1MiiB", "0x10", "1_000", "8388608T", "9223372036854775808", "١M"} {
		if got, err := ParseSize(in); err == nil {
			t.Errorf("%q: got %d, want an error", in, got)
		}
	}
}

func TestWords(t *testing.T) {
	tests := []struct {
		args []string
		want string
	}{
		{nil, "[ownership dnsbl]"},
		{[]string{"--checks=greylist, ownership"}, "[greylist ownership]"},
		{[]string{"--checks=greylist", "--checks=ownership"}, "[greylist ownership]"},
		{[]string{"--checks="}, "[]"},
		{[]string{"--checks=greylist,,ownership"}, "--checks: an empty word between commas"},
		{[]string{"--checks=greylist", "--checks=greylist"}, `--checks: "greylist" is given twice`},
	}
	for _, tt := range tests {
		var c settings
		_, err := c.load("", tt.args, nil)
		got := fmt.Sprint(c.checks)
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%q: got %s, want %s", tt.args, got, tt.want)
		}
	}
}

// The default of a list is not shared between loads.
func TestListDefaultsAreNotShared(t *testing.T) {
	def := []string{"ownership", "dnsbl"}
	w := wordsValue{p: &def}
	got := w.GetSlice()
	got[0] = "x"
	if def[0] != "ownership" {
		t.Error("GetSlice gives the list itself")
	}
	if err := w.Replace([]string{"a", "a"}); err == nil {
		t.Error("Replace takes a word twice")
	}
}

func TestSecretNeverShows(t *testing.T) {
	s := NewSecret("hunter2")
	holder := struct{ secret Secret }{s}
	var shown []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		shown = append(shown, fmt.Sprintf(verb, s), fmt.Sprintf(verb, &s), fmt.Sprintf(verb, []Secret{s}), fmt.Sprintf(verb, holder))
	}
	shown = append(shown, s.String(), s.GoString())
	for _, v := range []any{s, &s, map[string]Secret{"k": s}, struct{ S Secret }{s}} {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		shown = append(shown, string(b))
	}
	core, logs := observer.New(zap.DebugLevel)
	zap.New(core).Info("x", zap.Any("a", s), zap.Reflect("r", s), zap.Stringer("s", s))
	shown = append(shown, fmt.Sprint(logs.All()[0].ContextMap()))
	text, err := s.MarshalText()
	if err != nil || string(text) != "***" || s.String() != "***" {
		t.Errorf("got %q, %v", text, err)
	}
	for _, got := range shown {
		if strings.Contains(got, "hunter2") || strings.Contains(got, "68756e74657232") {
			t.Errorf("leaked: %s", got)
		}
	}
	if s.Reveal() != "hunter2" || s.Empty() || !(Secret{}).Empty() || (Secret{}).Reveal() != "" {
		t.Error("Reveal or Empty is wrong")
	}
}

func TestSecretFile(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file("redis", "  hunter2 \r\nsecond line\n")
	tests := []struct {
		name, credentials string
		want, err         string
	}{
		{file("plain", "hunter2"), "", "hunter2", ""},
		{dir + "/redis", "", "hunter2", ""},
		{"redis", dir, "hunter2", ""},
		// The secret itself instead of a file's name.
		{"hunter2", "", "", noCredentials},
		{"hunter2", dir, "", noCredential},
		{"", dir, "", "no file is named"},
		{"..", dir, "", ".. is not a file name"},
		{file("empty", ""), "", "", dir + "/empty: the first line is empty: put the secret there"},
		{file("blank", "\nhunter2\n"), "", "", dir + "/blank: the first line is empty: put the secret there"},
		{file("nul", "hunter\x002\n"), "", "", dir + "/nul: the first line holds a NUL: put the secret there as text"},
		{file("pem", "-----BEGIN PRIVATE KEY-----\nhunter2\n"), "", "", dir + "/pem: is a PEM file: a secret of one line is expected"},
		{file("big", strings.Repeat("hunter2", maxSecretSize)), "", "", dir + "/big is larger than 65536 bytes"},
		{dir + "/absent", "", "", "cannot read " + dir + "/absent: no such file or directory"},
		{dir, "", "", dir + " is a directory: name a file"},
	}
	for _, tt := range tests {
		s, err := SecretFile(tt.name, tt.credentials)
		if s.Reveal() != tt.want || (err != nil || tt.err != "") && fmt.Sprint(err) != tt.err {
			t.Errorf("%s: got %q, %v", tt.name, s.Reveal(), err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter") {
			t.Errorf("leaked: %v", err)
		}
	}
}

// A credential that --check-config cannot see is not a mistake. A mistake in one
// that it sees is reported, and the daemon itself sees all of them.
func TestCredentialHidden(t *testing.T) {
	seen := t.TempDir()
	away := filepath.Join(seen, "away")
	for _, tt := range []struct {
		check             bool
		name, credentials string
		want              bool
	}{
		{true, "redis", away, true},
		{true, "redis", seen, false},
		{true, "/etc/redis", away, false},
		{true, "redis", "", false},
		{true, "", away, false},
		{false, "redis", away, false},
	} {
		if got := (&Set{check: tt.check}).CredentialHidden(tt.name, tt.credentials); got != tt.want {
			t.Errorf("%+v: %t", tt, got)
		}
	}
}

// A file with a secret that others can read is refused; systemd protects
// credentials itself.
func TestSecretFileOthersCanRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	if err := os.WriteFile(path, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := SecretFile(path, ""); err == nil || !strings.Contains(err.Error(), "chmod 0600 "+path) {
		t.Errorf("got %v", err)
	}
	if s, err := SecretFile("key", dir); err != nil || s.Reveal() != "secret" {
		t.Errorf("a credential: %v", err)
	}
}

// A missing folder is a temporary problem, because it may be mounted later. A
// missing file in an existing folder is not.
func TestMissingFolderCanPass(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]bool{filepath.Join(dir, "secret"): false, filepath.Join(dir, "mount", "secret"): true} {
		if _, err := SecretFile(path, ""); transient.Is(err) != want {
			t.Errorf("%s: %v can pass: %t", path, err, !want)
		}
		if _, err := Load(Program{Name: "x", Bind: func(*pflag.FlagSet) {}}, []string{"--config=" + path}, nil); err == nil || transient.Is(err) != want {
			t.Errorf("--config=%s: %v can pass: %t", path, err, !want)
		}
	}
}

// A command that root runs reads what the daemon's group may read, and no more.
func TestSecretFileOfADaemon(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	path := filepath.Join(t.TempDir(), "secret")
	if err := errors.Join(os.WriteFile(path, []byte("secret\n"), 0o600), os.Chown(path, 0, 12345)); err != nil {
		t.Fatal(err)
	}
	for mode, good := range map[os.FileMode]bool{0o640: true, 0o660: false, 0o644: false} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := SecretFile(path, ""); (err == nil) != good {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
}
