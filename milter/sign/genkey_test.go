package sign

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestGenerate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	made, err := Generate(NewKeys{Dir: dir, Domain: "Example.COM"})
	if err != nil {
		t.Fatal(err)
	}
	keys := load(t, KeySource{Dir: dir, Group: -1})
	if got := names(keys.All()); got != "postern/example.com postern-ed25519/example.com" {
		t.Fatalf("keys %q", got)
	}
	for i, k := range keys.All() {
		want, err := k.ZoneEntry()
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(made[i].RecordPath)
		if err != nil || string(text) != want || made[i].ZoneEntry != want {
			t.Errorf("record file %q, error %v, want %q", text, err, want)
		}
		if info, err := os.Stat(k.Path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", k.Path, info, err)
		}
	}
	for _, path := range []string{dir, filepath.Join(dir, "example.com")} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	header := fields("From: a@example.com")
	r := signed(t, sign(t, New(Options{}, keys), header, "x\r\n"), 2)
	verifyAll(t, zoneOf(t, keys), append(r.Fields, header...), "x\r\n", 2)
}

func TestGenerateNeverOverwrites(t *testing.T) {
	dir := t.TempDir()
	req := NewKeys{Dir: dir, Domain: "example.com", Selector: "s", Type: Ed25519}
	if _, err := Generate(req); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "example.com/s.private")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Generate(req); err == nil || !strings.Contains(err.Error(), "file exists") {
		t.Errorf("error %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("the key changed (%v)", err)
	}
	// If the record file exists already, no key without a record is left.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := Generate(req); err == nil {
		t.Error("the record was overwritten")
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("a key was left behind: %v", err)
	}
}

func TestGenerateErrors(t *testing.T) {
	dir := t.TempDir()
	for _, req := range []NewKeys{
		{Domain: "example.com"},
		{Dir: dir},
		{Dir: dir, Domain: "../x"},
		{Dir: dir, Domain: "example.com", Selector: "../x"},
		{Dir: dir, Domain: "example.com", Selector: strings.Repeat("s", 60)},
		{Dir: dir, Domain: "example.com", Type: "dsa"},
		{Dir: dir, Domain: "example.com", Bits: 512},
		{Dir: dir, Domain: "example.com", Bits: 8192},
	} {
		if _, err := Generate(req); err == nil || !strings.HasPrefix(err.Error(), "generate key: ") {
			t.Errorf("%+v: error %v", req, err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// The layout is that of opendkim-genkey(8), which administrators know.
func TestZoneEntry(t *testing.T) {
	key, err := newKey("example.com", "mail", "p", testEd25519())
	if err != nil {
		t.Fatal(err)
	}
	got, err := key.ZoneEntry()
	if err != nil {
		t.Fatal(err)
	}
	want := "mail._domainkey\tIN\tTXT\t( \"v=DKIM1; h=sha256; k=ed25519; \"\n" +
		"\t  \"p=KE1SeOoyXFNiC/SIqOp7VfBSjH1SP9xR9ENgmP8lNJQ=\" )  ; ----- DKIM key mail for example.com\n"
	if got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
	for _, s := range zoneStrings(got) {
		if len(s) > 255 {
			t.Errorf("string of %d octets", len(s))
		}
	}
	key, err = newKey("example.com", "mail", "p", testRSA())
	if err != nil {
		t.Fatal(err)
	}
	entry, err := key.ZoneEntry()
	if err != nil {
		t.Fatal(err)
	}
	record, err := key.Record()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(zoneStrings(entry), ""); got != record || len(zoneStrings(entry)) != 3 {
		t.Errorf("strings join to %q, record is %q", got, record)
	}
}

// zoneStrings returns the character-strings of a zone entry.
func zoneStrings(entry string) []string {
	var list []string
	for i, part := range strings.Split(entry, `"`) {
		if i%2 == 1 {
			list = append(list, part)
		}
	}
	return list
}
