package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// The tables that both programs sign with. opendkim has no Ed25519, and signs a mail
// once, by the first line that matches.
const (
	shapesKeyTable = `rsa   home.example:postern:KEYS/home.example/postern.private
ed    home.example:postern-ed25519:KEYS/home.example/postern-ed25519.private
list  home.example:list:KEYS/home.example/postern.private
`
	shapesSigningTable = `list@home.example  list
*@home.example  rsa
*@home.example  ed
*@*.home.example  rsa
`
)

// newTableSite starts a site that signs by the tables, and returns the configuration
// of an opendkim that signs by the same files.
func newTableSite(t *testing.T) (s *Site, conf string) {
	t.Helper()
	dir, err := postfixtest.MakeDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	siteDir := mkdir(t, dir, "site")
	keys := writeFile(t, dir, "KeyTable", strings.ReplaceAll(shapesKeyTable, "KEYS", filepath.Join(siteDir, "dkim")))
	senders := "refile:" + writeFile(t, dir, "SigningTable", shapesSigningTable)
	s = newSigningSite(t, SiteConfig{Dir: siteDir, Milterd: []string{
		"--dkim-keys=", "--dkim-key-table", keys, "--dkim-signing-table", senders,
	}})
	return s, writeFile(t, dir, "opendkim.conf", "Mode s\nRequireSafeKeys no\nKeyTable "+keys+"\nSigningTable "+senders+"\n")
}

// tagsOf returns the tags of a DKIM-Signature field, without white space.
func tagsOf(value string) map[string]string {
	tags := make(map[string]string)
	for tag := range strings.SplitSeq(value, ";") {
		name, text, _ := strings.Cut(tag, "=")
		tags[strings.TrimSpace(name)] = strings.Join(strings.Fields(text), "")
	}
	return tags
}

// signedByOpenDKIM has opendkim sign mails, and returns the tags of its signatures. It
// stops at the first mail that it does not sign.
func signedByOpenDKIM(t *testing.T, conf string, paths ...string) (signatures []map[string]string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "/usr/sbin/opendkim", "-x", conf, "-vvv", "-t", strings.Join(paths, ",")).Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	for inserted := range strings.SplitSeq(string(out), "### INSHEADER:") {
		if _, value, ok := strings.Cut(inserted, "hname='DKIM-Signature' hvalue='"); ok {
			signatures = append(signatures, tagsOf(value))
		}
	}
	return signatures
}

// signedByUs returns the tags of the signatures in a delivered mail.
func signedByUs(d postfixtest.Delivery) (signatures []map[string]string) {
	for _, value := range d.Headers("DKIM-Signature") {
		signatures = append(signatures, tagsOf(value))
	}
	return signatures
}

// whoSigned returns the domains and selectors of signatures.
func whoSigned(signatures []map[string]string) string {
	var names []string
	for _, tags := range signatures {
		names = append(names, tags["d"]+"/"+tags["s"])
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// moreSigned returns the header fields that our signatures list more often than those
// of opendkim, and why. There is none that opendkim lists more often.
func moreSigned() map[string]string {
	const again = "once more than the mail has it, so that another one breaks the signature"
	return map[string]string{
		"from": again, "to": again, "cc": again, "subject": again, "reply-to": again, "date": again,
		"message-id":            "a mail that is sent again under another name is another mail",
		"resent-message-id":     "that name, of a mail that is redirected",
		"mime-version":          "says how the body is read",
		"content-type":          "says how the body is read",
		"sender":                "mail programs show it",
		"list-unsubscribe-post": "counts only if it is signed (RFC 8058)",
	}
}

// compareWithOpenDKIM has opendkim sign the mails of a folder, which have been signed
// by us, and explains each difference.
func compareWithOpenDKIM(t *testing.T, conf, dir string, delivered map[string]postfixtest.Delivery) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	signatures := signedByOpenDKIM(t, conf, paths...)
	if len(signatures) != len(delivered) {
		t.Fatalf("opendkim signs %d of %d mails", len(signatures), len(delivered))
	}
	unseen := moreSigned()
	for i, theirs := range signatures {
		number := filepath.Base(paths[i])
		d := delivered[number]
		ours := signedByUs(d)
		if us, them := whoSigned(ours), whoSigned(signatures[i:i+1]); us != "home.example/postern home.example/postern-ed25519" || them != "home.example/postern" {
			t.Errorf("shape %s: we sign as %q, opendkim as %q", number, us, them)
		}
		for _, tags := range ours {
			// Relays change white space, which the simple form does not survive.
			if tags["c"] != "relaxed/relaxed" || theirs["c"] != "simple/simple" {
				t.Errorf("shape %s: our form is %s, that of opendkim %s", number, tags["c"], theirs["c"])
			}
			for _, name := range compareFields(t, number, d, tags["h"], theirs["h"]) {
				delete(unseen, name)
			}
		}
	}
	for name := range unseen {
		t.Errorf("no shape has the difference in %s", name)
	}
}

// compareFields compares two lists of signed fields, and returns the names that we list
// more often.
func compareFields(t *testing.T, number string, d postfixtest.Delivery, ours, theirs string) (more []string) {
	t.Helper()
	count := func(list string) map[string]int {
		n := make(map[string]int)
		for name := range strings.SplitSeq(strings.ToLower(list), ":") {
			n[name]++
		}
		return n
	}
	us, them := count(ours), count(theirs)
	for name := range them {
		us[name] += 0 // so that it is compared
	}
	for name, n := range us {
		present := len(d.Headers(name))
		switch {
		case them[name] != 0 && them[name] != present, n < them[name], n > present+1:
			t.Errorf("shape %s has %d of %s: we list %d, opendkim %d", number, present, name, n, them[name])
		case n == them[name]:
		case moreSigned()[name] == "":
			t.Errorf("shape %s: why do we list %d of %s, and opendkim %d?", number, n, name, them[name])
		default:
			more = append(more, name)
		}
	}
	return more
}

// authorCase is a From field, and who signs the mail.
type authorCase struct {
	number, from string
	ours, theirs string
}

// authorCases returns authors for whom the tables have an entry or none. Where a reader
// may see an author of another domain, opendkim takes the first address, and we sign
// nothing.
func authorCases() []authorCase {
	const rsa = "home.example/postern"
	return []authorCase{
		{"own-line", "list@home.example", "home.example/list", "home.example/list"},
		{"capitals", "LIST@HOME.EXAMPLE", "home.example/list", "home.example/list"},
		{"below", "alice@sub.home.example", rsa, rsa},
		{"elsewhere", "alice@away.example", "", ""},
		{"longer", "alice@home.example.away.example", "", ""},
		{"shown-name", `"alice@home.example" <alice@away.example>`, "", ""},
		{"two-fields", "<alice@home.example>\nFrom: <x@away.example>", "", rsa},
		{"two-fields-ours-last", "<x@away.example>\nFrom: <alice@home.example>", "", ""},
		{"two-addresses", "<alice@home.example>, <x@away.example>", "", rsa},
	}
}
