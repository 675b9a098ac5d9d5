package sign

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/author"
)

// tableCase is a pair of OpenDKIM's tables, in which KEYS is a folder, and whether
// the second one is a file of patterns.
type tableCase struct {
	keys, senders string
	refile        bool
}

const openKeys = `# names, domains, selectors, files
com    example.com:com:KEYS/one.pem
net	example.net:net:KEYS/one.pem   # another domain
rel    example.com:rel:./one.pem
any    %:any:KEYS/one.pem
each   %:each:KEYS/each/%/mail.pem
flat   %:flat:KEYS/flat/%.pem
twice  %:twice:KEYS/twice/%/%.pem
sub.example.com sub.example.com:own:KEYS/one.pem
example.com example.com:own:KEYS/one.pem
`

var openTables = map[string]tableCase{
	"plain":               {openKeys, "example.com com\nexample.net net\n", false},
	"user before domain":  {openKeys, "example.com com\nboss@example.com rel\n", false},
	"below, nearest wins": {openKeys, ".example.com com\nu@.example.com rel\n.sub.example.com any\n", false},
	"user below":          {openKeys, "u@.com any\n.example.com com\n", false},
	"any domain":          {openKeys, "u@* any\n* com\n", false},
	"percent":             {openKeys, "* any\n", false},
	"percent in the path": {openKeys, "example.com each\nexample.net flat\nsub.example.com twice\n", false},
	"percent as the name": {openKeys, "example.com %\nsub.example.com %\n", false},
	"with signers":        {openKeys, "example.com com:@example.com\nsub.example.com any:boss@%\n.sub.example.com any:x@example.org\n", false},
	"patterns":            {openKeys, "boss@example.com rel\n*@example.com com\n*@*.example.com any\n*@example.net net\n", true},
	"first match":         {openKeys, "*@example.com com\nboss@example.com rel\n", true},
	"everything first":    {openKeys, "* any\n*@example.com com\n", true},
	"globs":               {openKeys, "b*s@ex*.com com\n*sub* any\n*@*.NET net\n", true},
	"a glob among rules":  {openKeys, "boss@example.com rel\n*o*@*.com any\n*@example.com com\n", true},
	"user everywhere":     {openKeys, "boss@* any\nu@*.example.com com\n", true},
	"suffix without at":   {openKeys, "*.example.com com\n*example.com rel\n", true},
	"signer of patterns":  {openKeys, "*@example.com com:list@%\n* any:@%\n", true},
	"case and tabs":       {"COM\tEXAMPLE.com:Com:KEYS/one.pem\n", "*@Example.COM\tCOM\n", true},
	"no match":            {openKeys, "nobody@example.com com\n", false},
}

var tableSenders = []string{
	"u@example.com", "boss@example.com", "BOSS@EXAMPLE.COM", "boss@example.net", "u@example.net", "u@sub.example.com", "boss@sub.example.com",
	"v@a.sub.example.com", "u@other.example.com", "u@notexample.com", "u@example.org", "b.o.s.s@example.com",
}

// TestOpenDKIMTables reads tables as opendkim does: for every sender, opendkim and
// we sign with the same selector, domain and identity.
func TestOpenDKIMTables(t *testing.T) {
	needs(t, "/usr/sbin/opendkim")
	pem := pkcs8(t, testRSA())
	for name, tt := range openTables {
		t.Run(name, func(t *testing.T) {
			dir := tree(t, map[string][]byte{
				"one.pem": pem, "each/example.com/mail.pem": pem, "flat/example.net.pem": pem, "twice/sub.example.com/sub.example.com.pem": pem,
				"keys": nil, "senders": []byte(tt.senders),
			})
			write(t, dir, "keys", strings.ReplaceAll(tt.keys, "KEYS", dir))
			prefix := map[bool]string{true: "refile:"}[tt.refile]
			keys := load(t, KeySource{KeyTable: dir + "/keys", SigningTable: prefix + dir + "/senders", Group: -1})
			write(t, dir, "conf", fmt.Sprintf("Mode s\nKeyTable %s/keys\nSigningTable %s%s/senders\nRequireSafeKeys no\n", dir, prefix, dir))
			for _, sender := range tableSenders {
				theirs, ours := opendkimSigns(t, dir, sender), weSign(t, keys, sender)
				if _, domain, _ := strings.Cut(sender, "@"); theirs != "" && !covers(strings.Fields(theirs)[1], strings.ToLower(domain)) {
					theirs = "" // it signs for a domain that does not align; we never do
				}
				if ours != theirs {
					t.Errorf("%s: we sign with %q, opendkim with %q", sender, ours, theirs)
				}
			}
		})
	}
}

// Lists within opendkim.conf, "csl:", are read as opendkim reads them.
func TestOpenDKIMLists(t *testing.T) {
	needs(t, "/usr/sbin/opendkim")
	dir := tree(t, map[string][]byte{"one.pem": pkcs8(t, testRSA())})
	const com, net = "com=example.com:com:KEYS/one.pem", "net=example.net:net:KEYS/one.pem"
	for _, tt := range []struct{ keys, senders string }{
		{"csl:" + com, "csl:example.com=com"},
		{"csl:" + com + "," + net, "csl:example.net=net,example.com=com"},
		{"csl: com = example.com:com:KEYS/one.pem , " + net, "csl: example.net = net , boss@example.com = com"},
		{"csl:" + com + "," + net, "example.com=com,example.net=net"},
		{"csl:any=%:any:KEYS/one.pem", "csl:.example.com=any,example.org=any"},
		{"csl:" + com, "csl:example.com=com:list@%"},
	} {
		keyTable := strings.ReplaceAll(tt.keys, "KEYS", dir)
		write(t, dir, "conf", fmt.Sprintf("Mode s\nKeyTable %s\nSigningTable %s\nRequireSafeKeys no\n", keyTable, tt.senders))
		keys := load(t, KeySource{KeyTable: keyTable, SigningTable: tt.senders, Group: -1})
		signs := 0
		for _, sender := range tableSenders {
			theirs, ours := opendkimSigns(t, dir, sender), weSign(t, keys, sender)
			if ours != theirs {
				t.Errorf("%s, %s: %s: we sign with %q, opendkim with %q", tt.keys, tt.senders, sender, ours, theirs)
			}
			if ours != "" {
				signs++
			}
		}
		if signs == 0 {
			t.Errorf("%s, %s: nothing is signed", tt.keys, tt.senders)
		}
	}
	for _, list := range []string{"csl:com", "csl:com example.com:com:" + dir + "/one.pem", "csl:=x", "csl:,"} {
		if _, err := LoadKeys(KeySource{KeyTable: list, SigningTable: "csl:example.com=com", Group: -1}); err == nil {
			t.Errorf("%s is a key table", list)
		}
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// weSign returns "selector domain identity" of our signature.
func weSign(t *testing.T, keys *Keys, sender string) string {
	a, reason := readAuthor([]Field{{Name: "From", Value: " " + sender}})
	if reason != "" {
		t.Fatal(reason)
	}
	var all []string
	for _, k := range keys.choose(author.Mailbox{Local: a.Local, Domain: a.Domain}, false) {
		all = append(all, strings.TrimSpace(k.Selector+" "+k.Domain+" "+k.Identity))
	}
	return strings.Join(all, ", ")
}

// opendkimSigns is the same for opendkim's signature. It finds relative paths from
// the directory that it runs in.
func opendkimSigns(t *testing.T, dir, sender string) string {
	t.Helper()
	write(t, dir, "mail", "From: "+sender+"\r\nTo: x\r\nSubject: y\r\n\r\nhi\r\n")
	cmd := exec.CommandContext(context.Background(), "/usr/sbin/opendkim", "-x", "conf", "-t", "mail", "-vvv")
	cmd.Dir = dir
	out, _ := cmd.CombinedOutput() // it fails for mail that is not signed
	found := regexp.MustCompile(`(?s)hvalue='v=1;(.*?)h=`).FindSubmatch(out)
	if found == nil {
		return ""
	}
	tag := func(name string) string {
		m := regexp.MustCompile(`[\s;]` + name + `=([^;]*);`).FindSubmatch(found[1])
		if m == nil {
			return ""
		}
		return string(m[1])
	}
	return strings.TrimSpace(strings.ToLower(tag("s")) + " " + strings.ToLower(tag("d")) + " " + tag("i"))
}
