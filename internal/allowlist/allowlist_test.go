package allowlist

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/mailaddr"
)

func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAllowedClients(t *testing.T) {
	list, err := ReadClients(write(t, `
# comment
192.0.2.7            # one address
198.51.100.0/24
2001:db8:1::/48
::ffff:203.0.113.5
Mail.Example.
.dotted.example
bücher.example
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		addr, name string
		want       bool
	}{
		{"192.0.2.7", "", true}, {"192.0.2.8", "", false}, {"198.51.100.255", "", true}, {"198.51.101.0", "", false},
		{"2001:db8:1:2::3", "", true}, {"2001:db8:2::3", "", false}, {"203.0.113.5", "", true}, {"::ffff:192.0.2.7", "", true},
		{"192.0.2.9", "mail.example", true}, {"192.0.2.9", "a.b.MAIL.example", true}, {"192.0.2.9", "xmail.example", false}, {"192.0.2.9", "example", false},
		{"192.0.2.9", "dotted.example", true}, {"192.0.2.9", "x.xn--bcher-kva.example", true}, {"192.0.2.9", "a b", false},
		{"", "mail.example", true}, {"", "", false},
	} {
		addr, _ := netip.ParseAddr(c.addr)
		if got := list.Has(addr, c.name); got != c.want {
			t.Errorf("%s %q: %v", c.addr, c.name, got)
		}
	}
	var none *Clients
	if none.Has(netip.MustParseAddr("192.0.2.7"), "x.example") {
		t.Error("an absent list has entries")
	}
}

func TestAllowedRecipients(t *testing.T) {
	list, err := ReadRecipients(write(t, "Open@Home.example\nhelp@\nfree.example\n@also.example\n\"a b\"@home.example\n"))
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]bool{
		"open@home.example": true, "OPEN@HOME.EXAMPLE": true, "me@home.example": false, "help@any.example": true, "help": true,
		"open+tag@home.example": true, "Open+Tag@HOME.example.": true, "help+x@any.example": true, "me+open@home.example": false, "x@free.example": true, "x@sub.free.example": true, "x@notfree.example": false, "x@also.example": true, "a b@home.example": true,
		"": false, "a@": false,
	} {
		if got := list.Has(mailaddr.ParseInternal(address), "+"); got != want {
			t.Errorf("%q: %v", address, got)
		}
	}
	for address, want := range map[string]bool{"open-tag@home.example": true, "open+tag@home.example": false, "open=tag@home.example": true} {
		if got := list.Has(mailaddr.ParseInternal(address), "-="); got != want {
			t.Errorf("%q with other delimiters: %v", address, got)
		}
	}
	var none *Recipients
	if none.Has(mailaddr.ParseInternal("a@b.example"), "+") {
		t.Error("an absent list has entries")
	}
}

func TestAllowFileErrors(t *testing.T) {
	long := strings.Repeat("x", maxLine+1)
	for text, want := range map[string]string{
		"ok.example\n192.168":       ":2: \"192.168\": not an IP address",
		"192.0.2.1/24":              ":1: \"192.0.2.1/24\": address bits after the network's prefix are set: did you mean 192.0.2.0/24?",
		"192.0.2.0/33":              ":1: ",
		"/^mail.*$/":                "regular expressions",
		"fe80::1%eth0":              ":1: ",
		"a b":                       ":1: ",
		"::ffff:192.0.2.0/120":      ":1: ",
		"#" + long:                  ":1: a line of more than",
		"a.example\n" + long + "\n": ":2: a line of more than",
	} {
		path := write(t, text)
		if _, err := ReadClients(path); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), path) {
			t.Errorf("%.40q: %v", text, err)
		}
	}
	for text, want := range map[string]string{
		"a@b@":        ":1: ",
		"@":           ":1: ",
		"\n\na b":     ":3: ",
		"/x/":         "regular expressions",
		"a@b..c":      ":1: ",
		"x@[1.2.3.4]": "",
	} {
		_, err := ReadRecipients(write(t, text))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := ReadClients(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := ReadRecipients(t.TempDir()); err == nil {
		t.Error("a folder was read")
	}
	if _, err := ReadClients(write(t, strings.Repeat("# "+strings.Repeat("x", 1000)+"\n", 4400))); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Error(err)
	}
}

// An entry that can never match is an error in every list, with the fix.
func TestNeverMatches(t *testing.T) {
	readers := map[string]func(string) error{
		"clients":    func(p string) error { _, err := ReadClients(p); return err },
		"recipients": func(p string) error { _, err := ReadRecipients(p); return err },
		"domains":    func(p string) error { _, err := ReadDomains(p); return err },
		"authors":    func(p string) error { _, err := ReadAuthors(p); return err },
	}
	for entry, want := range map[string]string{
		"192.0.2.1-192.0.2.9": "ranges", "192.0.2.0-24": "ranges", "192.0.2.1 - 192.0.2.9": "ranges", "2001:db8::1-2001:db8::9": "ranges",
		"192.0.2.*": "wild cards", "2001:db8::*": "wild cards", "*.example.org": "wild cards", "mail*.example.org": "wild cards", "mail?.example.org": "wild cards", "*": "wild cards",
		"192.0.2": "", "10.1-5": "", "a.example,b.example": "", "!a.example": "", "192.0.2.0/255.255.255.0": "",
	} {
		for list, read := range readers {
			path := write(t, "ok.example\n"+entry+"\n")
			if err := read(path); err == nil || !strings.HasPrefix(err.Error(), path+":2: ") || !strings.Contains(err.Error(), want) {
				t.Errorf("%s, %s: %v, want %q", list, entry, err, want)
			}
		}
	}
	for _, entry := range []string{"*@example.org", "user*@example.org", "user@*", "user@*.example.org", "info@192.0.2"} {
		if _, err := ReadRecipients(write(t, entry)); err == nil {
			t.Errorf("%s was read", entry)
		}
	}
}

func FuzzAllowFile(f *testing.F) {
	for _, seed := range []string{"192.0.2.0/24\n", "a.example # x", "user@", "@", "\"a b\"@c.example", "/x/", "::/0", "\x00", "[1.2.3.4]", "bücher.example\nu@bücher.example"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		clients := NewClients()
		if Parse(strings.NewReader(text), "f", clients.Add) == nil {
			clients.Has(netip.MustParseAddr("192.0.2.1"), "a.b.example")
			clients.Has(netip.MustParseAddr("2001:db8::1"), "")
		}
		recipients := NewRecipients()
		if Parse(strings.NewReader(text), "f", recipients.Add) == nil {
			recipients.Has(mailaddr.ParseInternal("user@a.b.example"), "+")
		}
	})
}

func TestDomains(t *testing.T) {
	list, err := ReadDomains(write(t, "Sealer.example # one\n.all.example\nb\u00fccher.example\n"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"sealer.example": true, "x.sealer.example": false, "all.example": true, "x.all.example": true, "xall.example": false,
		"xn--bcher-kva.example": true, "example": false, "": false,
	} {
		if got := list.Has(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
	if (*Domains)(nil).Has("sealer.example") {
		t.Error("an absent list has entries")
	}
	for _, text := range []string{"a..b", "a b", "192.0.2.1", "a@b.example", "."} {
		path := write(t, "\n"+text)
		if _, err := ReadDomains(path); err == nil || !strings.HasPrefix(err.Error(), path+":2: ") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestAuthors(t *testing.T) {
	list, err := ReadAuthors(write(t, "any.example\nsome.example 192.0.2.0/24 mail.partner.example\nsome.example 2001:db8::1\nany.example 192.0.2.1 # wider before\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		domain, addr, name string
		want               bool
	}{
		{"any.example", "198.51.100.1", "", true}, {"x.any.example", "198.51.100.1", "", false},
		{"some.example", "192.0.2.9", "", true}, {"some.example", "198.51.100.1", "", false},
		{"some.example", "198.51.100.1", "a.mail.partner.example", true}, {"some.example", "2001:db8::1", "", true},
		{"other.example", "192.0.2.9", "mail.partner.example", false},
	} {
		if got := list.Has(c.domain, netip.MustParseAddr(c.addr), c.name); got != c.want {
			t.Errorf("%s from %s %q: %v", c.domain, c.addr, c.name, got)
		}
	}
	if (*Authors)(nil).Has("any.example", netip.Addr{}, "") {
		t.Error("an absent list has entries")
	}
	for _, text := range []string{"192.0.2.1 any.example", "some.example 192.0.2.1/24", "some.example a..b"} {
		if _, err := ReadAuthors(write(t, text)); err == nil || !strings.Contains(err.Error(), ":1: ") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// A table of access(5) is refused: its actions are not read, so the domains
// that it rejects would be allowed.
func TestAuthorsHaveNoActions(t *testing.T) {
	for _, action := range []string{"REJECT", "ok", "Dunno", "192.0.2.1 RELAY"} {
		if _, err := ReadAuthors(write(t, "bad.example "+action+"\n")); !errors.Is(err, errAction) {
			t.Errorf("%s: %v", action, err)
		}
	}
}
