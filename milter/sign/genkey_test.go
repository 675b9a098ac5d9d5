package sign

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
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

// The folder of all keys may belong to the daemon's user. Its links must not direct what
// root writes; root's own links may.
func TestGenerateThroughLinks(t *testing.T) {
	const otherUser = 12345
	me := os.Geteuid()
	for name, test := range map[string]struct {
		link  string // in the folder of all keys
		to    string // in a folder beside it, or absolute in the folder of all keys
		owner int
		want  string // part of the error, "" for none
	}{
		"our own link":            {"example.com", "../elsewhere", me, ""},
		"our own, to a domain":    {"example.com", "example.net", me, ""},
		"another user's":          {"example.com", "../elsewhere", otherUser, "is a symbolic link of another user to ../elsewhere"},
		"another's, to a domain":  {"example.com", "example.net", otherUser, ""},
		"below, which never does": {"example.com/.hidden", "../../elsewhere", me, "path escapes from parent"},
	} {
		if test.owner != me && me != 0 {
			continue // only root can give a link away
		}
		top := t.TempDir()
		dir, elsewhere := filepath.Join(top, "keys"), filepath.Join(top, "elsewhere")
		link := filepath.Join(dir, test.link)
		err := errors.Join(os.MkdirAll(filepath.Join(dir, "example.net"), 0o700), os.Mkdir(elsewhere, 0o700),
			os.MkdirAll(filepath.Dir(link), 0o700), os.Symlink(test.to, link), os.Lchown(link, test.owner, -1))
		if err != nil {
			t.Fatal(err)
		}
		req := NewKeys{Dir: dir, Domain: "example.com", Selector: "s", Type: Ed25519}
		if strings.Contains(test.link, "/") {
			req.Below = ".hidden"
		}
		_, err = Generate(req)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		into := elsewhere
		if !strings.HasPrefix(test.to, "..") {
			into = filepath.Join(dir, test.to)
		}
		files, err := os.ReadDir(into)
		if err != nil || (len(files) == 2) != (test.want == "") {
			t.Errorf("%s: %v in %s, %v", name, files, into, err)
		}
	}
}

// A chain of links that root made ends at one that another user made, or nowhere.
func TestOpenDomainFolderChains(t *testing.T) {
	dir := t.TempDir()
	for link, to := range map[string]string{"a.example": "b.example", "b.example": filepath.Join(dir, "c.example"), "loop.example": "loop.example", "gone.example": "nowhere"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "c.example"), 0o700); err != nil {
		t.Fatal(err)
	}
	root, err := OpenDomainFolder(dir, "a.example")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for domain, want := range map[string]error{"loop.example": syscall.ELOOP, "gone.example": fs.ErrNotExist, "none.example": fs.ErrNotExist} {
		if _, err := OpenDomainFolder(dir, domain); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", domain, err, want)
		}
	}
	if os.Geteuid() != 0 {
		return // only root can give a link away
	}
	last := filepath.Join(dir, "b.example")
	if err := errors.Join(os.Remove(last), os.Symlink("/", last), os.Lchown(last, 12345, -1)); err != nil {
		t.Fatal(err)
	}
	if root, err := OpenDomainFolder(dir, "a.example"); err == nil {
		t.Errorf("opened %s through a link of another user", root.Name())
	}
}
