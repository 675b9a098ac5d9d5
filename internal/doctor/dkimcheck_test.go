package doctor

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/postern-mail/postern/internal/resolver/resolvertest"
	"github.com/postern-mail/postern/milter/sign"
)

// nameServers are a resolver and two authoritative servers on one port, and a host
// that signs for home.example with a key of each kind.
type nameServers struct {
	t           *testing.T
	resolver    *resolvertest.Server
	first, next *resolvertest.Server // ns1 and ns2
	keys        []*sign.Key
	facts       *Facts
}

const dkimZone = `
home.example.                    IN NS  ns1.home.example.
home.example.                    IN NS  ns2.home.example.
ns1.home.example.                IN A   127.0.0.1
ns2.home.example.                IN A   127.0.0.2
mail.home.example.               IN A   203.0.113.7
7.113.0.203.in-addr.arpa.        IN PTR mail.home.example.
home.example.                    IN TXT "v=spf1 ip4:203.0.113.7 -all"
_dmarc.home.example.             IN TXT "v=DMARC1; p=none; rua=mailto:postmaster@home.example"
`

// madeKeys are made once: an RSA key takes its time.
var madeKeys = sync.OnceValues(func() ([]sign.NewKey, error) {
	dir, err := os.MkdirTemp("", "postern-dkim-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	return sign.Generate(sign.NewKeys{Dir: dir, Domain: "home.example"})
})

// keyName is the name of the record of the RSA key.
const keyName = "postern._domainkey.home.example."

func newNameServers(t *testing.T) *nameServers {
	t.Helper()
	made, err := madeKeys()
	if err != nil {
		t.Fatal(err)
	}
	n := &nameServers{t: t, resolver: resolvertest.New(t, dkimZone), first: resolvertest.New(t, dkimZone)}
	port := netip.MustParseAddrPort(n.first.Addr()).Port()
	if n.next, err = resolvertest.StartAt(fmt.Sprintf("127.0.0.2:%d", port), dkimZone); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.next.Close)
	for _, s := range []*resolvertest.Server{n.first, n.next} {
		s.SetAuthoritative()
	}
	for _, key := range made {
		own := *key.Key
		n.keys = append(n.keys, &own)
		n.add("$ORIGIN home.example.\n" + key.ZoneEntry)
	}
	n.facts = &Facts{
		Options: Options{bounds: patient, dnsPort: port},
		Postfix: &Postfix{Params: map[string]string{"myhostname": "mail.home.example"}},
		Milterd: &Daemon{Settings: map[string][]string{"dkim-headers": sign.DefaultHeaders()}},
		loaded:  func() (*sign.Keys, error) { return new(sign.Keys), nil },
		keys:    func() ([]*sign.Key, error) { return n.keys, nil },
		DNS:     n.resolver.Resolver(t),
	}
	return n
}

// all are the servers.
func (n *nameServers) all() []*resolvertest.Server {
	return []*resolvertest.Server{n.resolver, n.first, n.next}
}

// add puts records into all servers.
func (n *nameServers) add(text string) {
	n.t.Helper()
	for _, s := range n.all() {
		if err := s.Add(text); err != nil {
			n.t.Fatal(err)
		}
	}
}

// put replaces the records at a name, of TXT unless text says otherwise.
func (n *nameServers) put(name string, texts ...string) {
	n.t.Helper()
	for _, s := range n.all() {
		s.Remove(name)
		for _, text := range texts {
			qtype := "TXT"
			if target, ok := strings.CutPrefix(text, "CNAME "); ok {
				qtype, text = "CNAME", target
			}
			if err := s.AddRecord(name, qtype, text); err != nil {
				n.t.Fatal(err)
			}
		}
	}
}

// record is the text of the RSA key's record.
func (n *nameServers) record() string {
	n.t.Helper()
	text, err := n.keys[0].Record()
	if err != nil {
		n.t.Fatal(err)
	}
	return text
}

func (n *nameServers) check(domains ...string) *DKIMReport {
	n.t.Helper()
	r, err := n.facts.checkDKIM(n.t.Context(), domains)
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}

// findings are those of all domains and about none.
func (r *DKIMReport) all() (found []Finding) {
	for _, d := range r.Domains {
		found = append(found, d.Findings...)
	}
	return append(found, r.Findings...)
}

func TestDKIMCheckOfWhatWorks(t *testing.T) {
	r := newNameServers(t).check()
	if r.Level != OK || r.Status() != 0 {
		t.Errorf("level %s: %+v", r.Level, r.all())
	}
	if len(r.Domains) != 1 || len(r.Domains[0].Keys) != 2 {
		t.Fatalf("domains %+v", r.Domains)
	}
	key := r.Domains[0].Keys[0]
	want := []DKIMServer{{"ns1.home.example", "127.0.0.1", "published", ""}, {"ns2.home.example", "127.0.0.2", "published", ""}}
	if !slices.Equal(key.Servers, want) {
		t.Errorf("servers %+v, want %+v", key.Servers, want)
	}
	if key.Strings != 3 || key.Bits != 2048 || !slices.Equal(key.Names, []string{"postern._domainkey.home.example"}) {
		t.Errorf("key %+v", key)
	}
	for _, receiver := range []string{"gmail", "yahoo", "microsoft"} {
		if !slices.ContainsFunc(r.Domains[0].Findings, func(f Finding) bool { return f.Check == receiver && f.Level == OK }) {
			t.Errorf("%s would not take it: %+v", receiver, r.Domains[0].Findings)
		}
	}
}

// Each fault of the DNS and of the settings has its finding.
func TestDKIMCheckOfFaults(t *testing.T) {
	other := "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
	for _, test := range []struct {
		name     string
		edit     func(*nameServers)
		about    string
		level    Level
		text     string
		fix      string
		receiver string // that would not take it; "" for none that is looked at
	}{
		{"no record", func(n *nameServers) { n.put(keyName) }, "key", Fail, "has no record", "postern dkim dns home.example", "gmail"},
		{"a record at a name without its last dot", func(n *nameServers) { n.put(keyName); n.put(keyName+"home.example.", n.record()) },
			"key", Fail, "it is at postern._domainkey.home.example.home.example", "end its name with a dot", "yahoo"},
		{"another key", func(n *nameServers) { n.put(keyName, other) }, "key", Fail, "holds another key", "postern dkim dns", "microsoft"},
		{"a revoked key", func(n *nameServers) { n.put(keyName, "v=DKIM1; p=") }, "key", Fail, "is revoked", "another selector", "gmail"},
		{"a test", func(n *nameServers) { n.put(keyName, strings.Replace(n.record(), "p=", "t=y; p=", 1)) }, "key", Warn, "published as a test", "take t=y out", "gmail"},
		{"a key for another service", func(n *nameServers) { n.put(keyName, strings.Replace(n.record(), "p=", "s=tlsrpt; p=", 1)) },
			"key", Fail, "key is not for email", "postern dkim dns", "gmail"},
		{"a key for SHA-1", func(n *nameServers) { n.put(keyName, strings.Replace(n.record(), "h=sha256", "h=sha1", 1)) }, "key", Fail, "does not allow SHA-256", "postern dkim dns", ""},
		{"a record of another version", func(n *nameServers) { n.put(keyName, strings.Replace(n.record(), "DKIM1", "DKIM2", 1)) }, "key", Fail, "not of version DKIM1", "postern dkim dns", ""},
		{"backslashes", func(n *nameServers) { n.put(keyName, strings.ReplaceAll(n.record(), ";", `\;`)) }, "key", Fail, "backslashes", "postern dkim dns", ""},
		{"quotation marks", func(n *nameServers) { n.put(keyName, `"`+n.record()+`"`) }, "key", Fail, "quotation marks", "postern dkim dns", ""},
		{"the whole line", func(n *nameServers) { n.put(keyName, "postern._domainkey IN TXT "+n.record()) }, "key", Fail, "whole line of a zone file", "postern dkim dns", ""},
		{"a key that is cut off", func(n *nameServers) { n.put(keyName, n.record()[:255]) }, "key", Fail, "cut off", "postern dkim dns", "gmail"},
		{"two records instead of two strings", func(n *nameServers) { n.put(keyName, n.record()[:255], n.record()[255:]) }, "key", Fail, "split over 2 records", "strings of one record", ""},
		{"a wildcard", func(n *nameServers) { n.put(keyName, "v=spf1 -all") }, "key", Fail, "an SPF record, which a wildcard", "postern dkim dns", ""},
		{"two keys", func(n *nameServers) { n.put(keyName, n.record(), other) }, "key", Warn, "has 2 key records", "leave one", ""},
		{"a CNAME record to nothing", func(n *nameServers) { n.put(keyName, "CNAME gone.home.example.") }, "key", Fail, "a CNAME to gone.home.example", "correct the CNAME", "gmail"},
		{"CNAME records in a circle", func(n *nameServers) {
			n.put(keyName, "CNAME round.home.example.")
			n.put("round.home.example.", "CNAME "+keyName)
		}, "key", Fail, "cannot be looked up", "CNAME", "gmail"},
		{"a resolver that fails", func(n *nameServers) { n.resolver.Fail(keyName, resolvertest.ServFail) }, "key", Fail, "cannot be looked up", "DNSSEC", "gmail"},
		{"a server that is behind", func(n *nameServers) { n.next.Remove(keyName) }, "servers", Fail, "ns2.home.example [127.0.0.2] has not the record", "transfer", "gmail"},
		{"a server with the key of before", func(n *nameServers) { n.next.Remove(keyName); _ = n.next.AddRecord(keyName, "TXT", other) }, "servers", Fail, "ns2.home.example [127.0.0.2] has not the record", "wait", "gmail"},
		{"a server that leads elsewhere", func(n *nameServers) { n.next.Remove(keyName); _ = n.next.AddRecord(keyName, "CNAME", "other.example.") }, "servers", Fail, "a CNAME record to other.example", "behind", "gmail"},
		{"a server that refuses", func(n *nameServers) { n.next.Fail("*", resolvertest.Refused) }, "servers", Warn, "it answers REFUSED", "take it out of the NS records", "gmail"},
		{"a server that is not responsible", func(n *nameServers) { n.put("ns2.home.example."); n.lame() }, "servers", Warn, "lame delegation", "take it out of the NS records", "gmail"},
		{"a server without an address", func(n *nameServers) { n.put("ns2.home.example.") }, "servers", Warn, "ns2.home.example gives no answer", "NS records", "gmail"},
		{"a resolver that does not see it yet", func(n *nameServers) { n.resolver.Remove(keyName) }, "servers", Warn, "the resolver does not see it yet", "caches", "gmail"},
		{"a record that is only in caches", func(n *nameServers) { n.first.Remove(keyName); n.next.Remove(keyName) }, "servers", Fail, "no authoritative server has it", "publish it again", "gmail"},
		{"no SPF record", func(n *nameServers) { n.put("home.example.", "nothing") }, "spf", Fail, "has no SPF record", "v=spf1", "microsoft"},
		{"an SPF record without this host", func(n *nameServers) { n.put("home.example.", "v=spf1 -all") }, "spf", Fail, "SPF says fail for 203.0.113.7", "ip4:203.0.113.7", "gmail"},
		{"no DMARC record", func(n *nameServers) { n.put("_dmarc.home.example.") }, "dmarc", Warn, "has no DMARC record", "v=DMARC1", "yahoo"},
		{"a DMARC record without a policy", func(n *nameServers) { n.put("_dmarc.home.example.", "v=DMARC1; rua=mailto:a@home.example") }, "dmarc", Fail, "_dmarc.home.example has no policy", "p=none", "gmail"},
		{"a DMARC policy that is misspelt", func(n *nameServers) { n.put("_dmarc.home.example.", "v=DMARC1; p=quarentine") }, "dmarc", Fail, "_dmarc.home.example has no policy", "p=quarantine", "yahoo"},
		{"a DMARC policy for subdomains that is misspelt", func(n *nameServers) { n.put("_dmarc.home.example.", "v=DMARC1; p=reject; sp=no") }, "dmarc", Fail, "no valid value for sp", "remove it", "gmail"},
		{"a report address without its scheme", func(n *nameServers) { n.put("_dmarc.home.example.", "v=DMARC1; p=reject; rua=a@home.example") }, "dmarc", Warn, "no valid value for rua, which", "mailto:", ""},
		{"strict alignment", func(n *nameServers) {
			n.put("_dmarc.home.example.", "v=DMARC1; p=none; adkim=s")
			n.facts.Milterd.Settings["dkim-subdomains"] = []string{"true"}
		}, "alignment", Warn, "does not align", "adkim=r", "gmail"},
		{"no host name", func(n *nameServers) { n.put("7.113.0.203.in-addr.arpa.") }, "ptr", Fail, "no host name (PTR record)", "mail.home.example", "microsoft"},
		{"a host name of another", func(n *nameServers) {
			n.put("7.113.0.203.in-addr.arpa.")
			n.add("7.113.0.203.in-addr.arpa. IN PTR ns1.home.example.")
		}, "ptr", Fail, "that name has not this address", "PTR", "gmail"},
		{"unsubscription is not signed", func(n *nameServers) { n.facts.Milterd.Settings["dkim-headers"] = []string{"From", "Subject"} },
			"unsubscribe", Warn, "List-Unsubscribe, List-Unsubscribe-Post is not signed", "dkim-headers", "gmail"},
		{"a short key", func(n *nameServers) { n.keys[0].Bits = 1024 }, "key", Warn, "of 1024 bit is short", "--selector", "gmail"},
		{"an Ed25519 key alone", func(n *nameServers) { n.keys = n.keys[1:] }, "gmail", Warn, "an RSA key of at least 2048 bit", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			n := newNameServers(t)
			test.edit(n)
			r := n.check()
			if !slices.ContainsFunc(r.all(), func(f Finding) bool {
				return f.Check == test.about && f.Level == test.level && strings.Contains(f.Text, test.text) && strings.Contains(f.Fix, test.fix)
			}) {
				t.Errorf("no finding %s %s %q with the fix %q in:\n%s", test.level, test.about, test.text, test.fix, listed(r.all()))
			}
			if worst(r.all()) != r.Level || r.Level == OK {
				t.Errorf("the level is %s of:\n%s", r.Level, listed(r.all()))
			}
			if test.receiver != "" && !slices.ContainsFunc(r.all(), func(f Finding) bool { return f.Check == test.receiver && f.Level == Warn }) {
				t.Errorf("%s would take it:\n%s", test.receiver, listed(r.all()))
			}
		})
	}
}

// lame has ns2 lead to a server that is not responsible: the resolver.
func (n *nameServers) lame() {
	n.t.Helper()
	port := netip.MustParseAddrPort(n.first.Addr()).Port()
	s, err := resolvertest.StartAt(fmt.Sprintf("127.0.0.3:%d", port), dkimZone)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(s.Close)
	n.add("ns2.home.example. IN A 127.0.0.3")
}

func listed(found []Finding) string {
	var b strings.Builder
	for _, f := range found {
		fmt.Fprintf(&b, "%s %s: %s; fix: %s\n", f.Level, f.Check, f.Text, f.Fix)
	}
	return b.String()
}

// A CNAME record to a provider is followed to the provider's servers.
func TestDKIMCheckFollowsCNAME(t *testing.T) {
	n := newNameServers(t)
	n.put(keyName, "CNAME key.provider.example.")
	n.add("provider.example. IN NS ns1.home.example.")
	n.put("key.provider.example.", n.record())
	r := n.check()
	if r.Level != OK {
		t.Fatalf("findings:\n%s", listed(r.all()))
	}
	key := r.Domains[0].Keys[0]
	if want := []string{"postern._domainkey.home.example", "key.provider.example"}; !slices.Equal(key.Names, want) || len(key.Servers) != 1 {
		t.Errorf("names %q, servers %+v, want %q at one server", key.Names, key.Servers, want)
	}
}

func TestDKIMCheckOfDomainWithoutKey(t *testing.T) {
	n := newNameServers(t)
	r := n.check("other.example")
	if r.Level != Fail || len(r.Domains) != 1 || !strings.Contains(listed(r.all()), "fail key: other.example has no key: its mail is not signed; fix: postern dkim genkey other.example") {
		t.Errorf("level %s:\n%s", r.Level, listed(r.all()))
	}
}

// Behind a relay host nothing is said about this host's address.
func TestDKIMCheckBehindRelayHost(t *testing.T) {
	n := newNameServers(t)
	n.facts.Postfix.Params["relayhost"] = "[relay.example]"
	n.put("7.113.0.203.in-addr.arpa.")
	if r := n.check(); r.Level != OK {
		t.Errorf("level %s:\n%s", r.Level, listed(r.all()))
	}
}

// Keys of a Postfix table are looked up for the domains that are named.
func TestDKIMCheckOfTable(t *testing.T) {
	n := newNameServers(t)
	path := filepath.Join(t.TempDir(), "postern.private")
	der, err := x509.MarshalPKCS8PrivateKey(n.keys[0].Signer)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	n.keys = nil
	n.facts.Milterd.Settings["dkim-key-table"] = []string{"inline:{home.example=" + path + "}"}
	n.facts.openKeyTables()
	t.Cleanup(func() { _ = n.facts.closeTables() })
	if r := n.check("home.example"); r.Level != OK || len(r.Domains[0].Keys) != 1 || r.Domains[0].Keys[0].Selector != "postern" {
		t.Errorf("level %s:\n%s", r.Level, listed(r.all()))
	}
	if _, err := n.facts.checkDKIM(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "name the domains") {
		t.Errorf("without a domain: %v", err)
	}
}

// The keys of a parent sign for a subdomain only where the daemon does so.
func TestDKIMCheckOfSubdomain(t *testing.T) {
	dir := t.TempDir()
	if _, err := sign.Generate(sign.NewKeys{Dir: dir, Domain: "home.example", Type: sign.Ed25519}); err != nil {
		t.Fatal(err)
	}
	for _, subdomains := range []string{"true", "false"} {
		n := newNameServers(t)
		n.facts.loaded = func() (*sign.Keys, error) { return sign.LoadKeys(sign.KeySource{Dir: dir, Group: -1}) }
		n.facts.Milterd.Settings["dkim-subdomains"] = []string{subdomains}
		d := n.check("news.home.example").Domains[0]
		none := slices.ContainsFunc(d.Findings, func(f Finding) bool { return strings.Contains(f.Text, "news.home.example has no key") })
		if none == (subdomains == "true") || len(d.Keys) != 1 != none {
			t.Errorf("dkim-subdomains = %s: %d keys, %+v", subdomains, len(d.Keys), d.Findings)
		}
	}
}
