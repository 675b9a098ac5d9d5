package e2e

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// What a site has that runs rspamd as its instructions say.
const (
	rspamdMain = `compatibility_level = 3.6
smtpd_milters = inet:localhost:11332
non_smtpd_milters = $smtpd_milters
milter_default_action = accept
`
	rspamdMaster = "smtp inet n - y - - smtpd\nsubmission inet n - y - - smtpd\n  -o smtpd_sasl_auth_enable=yes\n"
)

// gtube is the text that every filter takes for spam.
const gtube = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"

// TestBesideRspamd is a site where rspamd judges the content: the two do not get in
// each other's way.
func TestBesideRspamd(t *testing.T) {
	t.Parallel()
	postfixtest.Require(t)
	if err := postfixtest.Peers("rspamd"); err != nil {
		t.Fatal(err)
	}
	e := &example{name: "rspamd", dir: openDir(t)}
	e.addresses(t)
	e.replace = append(e.replace, "/etc/postfix/sender_logins", writeFile(t, e.dir, "sender_logins", ownersMap))
	keys := filepath.Join(e.dir, "dkim")
	rspamd := e.startRspamd(t, e.rspamdKey(t, keys))
	e.replace = append(e.replace, "inet:localhost:11332", "unix:"+rspamd.Socket)
	e.startPolicyd(t, "policyd.toml", "--listen", e.place("inet:127.0.0.1:10045"), "--greylist-store", "memory:", "--greylist-delay", "1s")
	e.startMilterd(t, "milterd.toml", "--listen-verify", e.place("inet:127.0.0.1:10046"), "--listen-sign", e.place("inet:127.0.0.1:10047"),
		"--dkim-keys", keys, "--mark-key-file", filepath.Join(e.dir, "mark.key"))
	main, master := e.attach(t, rspamdMain, rspamdMaster)
	e.postfix = postfixtest.New(t, postfixtest.Config{
		Users: map[string]string{Alice: password, Bob: password}, Main: main, Submission: master["submission"],
	})

	t.Run("ownership", func(t *testing.T) {
		e.expect(t, postfixtest.Submission, As(Alice, Press, "reader@away.example"), 250, record.OwnerOwned)
		e.signedOnce(t, e.delivered(t, "reader@away.example"), 1)
		e.expect(t, postfixtest.Submission, As(Bob, Press, "reader@away.example"), 553, record.OwnerNotOwned)
	})
	t.Run("a report of this machine", func(t *testing.T) {
		if err := e.postfix.Sendmail(t.Context(), "From: <"+Alice+">\nSubject: a report\n\nAll is well.\n", "-f", Alice, "--", "admin@away.example"); err != nil {
			t.Fatal(err)
		}
		e.signedOnce(t, e.delivered(t, "admin@away.example"), 1)
	})
	mail := fromOutside(Stranger, Dora)
	mail.Message = forgedResults + "From: <" + Stranger + ">\nTo: <" + Dora + ">\nSubject: hello\nDate: Thu, 26 Nov 2026 12:00:00 +0000\nMessage-ID: <1@away.example>\n\nHello.\n"
	t.Run("a stranger", func(t *testing.T) {
		e.expect(t, postfixtest.MX, mail, 450, record.GreylistNew)
		eventually(t, func() bool { return e.send(t, postfixtest.MX, mail).Code == 250 })
		d := e.delivered(t, Dora)
		e.judgedOnce(t, d, "mail.home.example", "spf=pass")
		if len(d.Headers("X-Spamd-Bar")) != 1 {
			t.Errorf("no field of rspamd's in\n%s", d.Data)
		}
	})
	t.Run("spam", func(t *testing.T) {
		spam := mail
		spam.Message += gtube + "\n"
		if got := e.send(t, postfixtest.MX, spam); got.Code != 554 {
			t.Errorf("rspamd's verdict: %s", got)
		}
	})
	t.Run("without rspamd", func(t *testing.T) {
		rspamd.Kill()
		if err := e.accepted(t, postfixtest.MX, mail); err != nil {
			t.Fatal(err)
		}
		e.judgedOnce(t, e.delivered(t, Dora), "mail.home.example", "spf=pass")
		if err := e.accepted(t, postfixtest.Submission, As(Alice, Alice, "reader@away.example")); err != nil {
			t.Fatal(err)
		}
		e.signedOnce(t, e.delivered(t, "reader@away.example"), 1)
	})
}

// rspamdKey has rspamd's own program make a key, brings it over as the README does,
// and returns its record.
func (e *example) rspamdKey(t *testing.T, keys string) (zone string) {
	t.Helper()
	made := filepath.Join(e.dir, homeDomain+".dkim.key")
	out, err := exec.CommandContext(t.Context(), "rspamadm", "dkim_keygen", "-s", "dkim", "-d", homeDomain, "-b", "2048", "-k", made).Output()
	if err != nil {
		t.Fatalf("rspamadm dkim_keygen: %v", err)
	}
	text, err := os.ReadFile(made)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(keys, homeDomain), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(keys, homeDomain, "dkim.private"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	return strings.Replace(string(out), "dkim._domainkey", "dkim._domainkey."+homeDomain+".", 1)
}

// newResolverAt53 starts a DNS server at port 53 of an address of its own, for programs that
// cannot choose the port.
func newResolverAt53(t *testing.T, zone string) *resolvertest.Server {
	t.Helper()
	dns, err := resolvertest.StartAt(postfixtest.NameserverAddr().String(), zone)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dns.Close)
	return dns
}

// startRspamd starts rspamd with its default settings and those of the example.
func (e *example) startRspamd(t *testing.T, zone string) *postfixtest.Peer {
	t.Helper()
	zone = awayZone + bankZone + Zones + zone
	e.dns = resolvertest.New(t, zone)
	dns := newResolverAt53(t, zone)
	files := map[string]string{}
	for _, name := range []string{"greylist.conf", "dkim_signing.conf", "milter_headers.conf"} {
		files[name] = e.shipped(t, "local.d/"+name)
	}
	rspamd, err := postfixtest.StartRspamdMilter(t.Context(), postfixtest.PeerConfig{
		Dir: e.dir, Nameserver: netip.MustParseAddrPort(dns.Addr()).Addr(), Suffixes: []string{"example"},
	}, files)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rspamd.Kill)
	return rspamd
}
