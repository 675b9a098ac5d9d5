package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// daemonUser is who the newcomer's daemons are.
const daemonUser = "nobody"

// homeZone is what a site has in the DNS that sends mail, beside its key.
const homeZone = `home.example. TXT "v=spf1 ip4:203.0.113.7 -all"
_dmarc.home.example. TXT "v=DMARC1; p=none; rua=mailto:postmaster@home.example"
`

// nameserver is the DNS of a newcomer. Programs of others ask at port 53.
func nameserver(t *testing.T, port53 bool) *resolvertest.Server {
	t.Helper()
	start := func(t *testing.T, zone string) *resolvertest.Server { return resolvertest.New(t, zone) }
	if port53 {
		start = newResolverAt53
	}
	dns := start(t, awayZone+Zones+homeZone)
	dns.SetAD(true)
	return dns
}

// places puts this test's folder where a text has PLACE.
func (n *newcomer) places(texts ...string) []string {
	var all []string
	for _, text := range texts {
		all = append(all, strings.ReplaceAll(text, "PLACE", n.dir))
	}
	return all
}

// publish publishes the site's key, and gives it to OpenDKIM where that has it.
func (n *newcomer) publish(t *testing.T, s shape) {
	t.Helper()
	record, code := n.postern(t, "dkim", "dns", homeDomain, "--dir", n.file("dkim"))
	if code > 1 || !strings.Contains(record, "first._domainkey") {
		t.Fatalf("exit %d: %s", code, record)
	}
	for _, selector := range []string{"first", "old"} {
		if err := n.dns.Add("$ORIGIN home.example.\n" + strings.ReplaceAll(record, "first._domainkey", selector+"._domainkey")); err != nil {
			t.Fatalf("%v in\n%s", err, record)
		}
	}
	if s.files["/etc/opendkim.conf"] != "" {
		replaceFile(t, filepath.Join(mkdir(t, n.dir, "root/keys"), "old.private"), readText(t, n.file("dkim/home.example/first.private")))
		n.chmod(t, 0o600, filepath.Join(n.dir, "root/keys/old.private"))
		if s.box {
			n.chown(t, boxKeyUser, filepath.Join(n.dir, "root/keys"))
		}
		if err := os.RemoveAll(n.file("dkim/home.example")); err != nil {
			t.Fatal(err)
		}
	}
	n.chown(t, daemonUser, n.file(""))
	n.chmod(t, 0o777, n.file("")) // the box's daemons have different users
}

func (n *newcomer) chown(t *testing.T, user, path string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "chown", "-R", user, path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func (n *newcomer) chmod(t *testing.T, mode os.FileMode, path string) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// peer starts a program of another project with the files that setup reads.
func (n *newcomer) peer(t *testing.T, socket, program string, args ...string) {
	t.Helper()
	if err := postfixtest.Peers(program); err != nil {
		t.Fatal(err)
	}
	dir := mkdir(t, n.dir, program)
	c := postfixtest.PeerConfig{Dir: dir, Nameserver: netip.MustParseAddrPort(n.dns.Addr()).Addr()}
	p, err := c.Start(t.Context(), filepath.Join(n.dir, socket), program, n.places(args...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
}

// unguarded asserts that nothing is asked, nor signed.
func unguarded(t *testing.T, n *newcomer) {
	t.Helper()
	n.expect(t, postfixtest.MX, postfixtest.Mail{From: Stranger, To: []string{Alice}, Client: "192.0.2.10"}, 250)
}

// debianPeers are what a Debian has that follows the usual guides: the programs run.
func debianPeers() map[string]string {
	return map[string]string{
		"/etc/default/postgrey":           `POSTGREY_OPTS="--unix=PLACE/postgrey.sock --delay=120"` + "\n",
		"/etc/postgrey/whitelist_clients": "192.0.2.77\n",
		"/etc/opendkim.conf": "Syslog no\nUMask 000\nMode sv\nDomain home.example\nSelector old\nKeyFile PLACE/root/keys/old.private\n" +
			"RequireSafeKeys no\nInternalHosts 127.0.0.8\nSocket local:PLACE/opendkim.sock\n",
		"/etc/opendmarc.conf": "Syslog no\nUMask 000\nSocket local:PLACE/opendmarc.sock\n",
	}
}

func startDebianPeers(t *testing.T, n *newcomer) {
	t.Helper()
	n.peer(t, "postgrey.sock", "postgrey", "--unix=PLACE/postgrey.sock", "--delay=120", "--user=root", "--group=root",
		"--dbdir="+mkdir(t, n.dir, "root/var/lib/postgrey"), "--whitelist-clients=PLACE/root/etc/postgrey/whitelist_clients")
	n.chmod(t, 0o666, filepath.Join(n.dir, "postgrey.sock"))
	n.peer(t, "opendkim.sock", "opendkim", "-f", "-x", "PLACE/root/etc/opendkim.conf")
	n.peer(t, "opendmarc.sock", "opendmarc", "-f", "-c", "PLACE/root/etc/opendmarc.conf")
}

// reload has Postfix read files that were changed behind its back.
func (n *newcomer) reload(t *testing.T) {
	t.Helper()
	if err := n.Reload(t.Context(), func() error {
		out, err := exec.CommandContext(t.Context(), "postfix", "-c", n.ConfigDir(), "reload").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// guarded asserts that postgrey delays, and that OpenDKIM signs.
func guarded(t *testing.T, n *newcomer) {
	t.Helper()
	n.expect(t, postfixtest.MX, postfixtest.Mail{From: "first@away.example", To: []string{Alice}, Client: "192.0.2.10"}, 450)
	n.expect(t, postfixtest.Submission, As(Alice, Alice, Bob), 250)
	n.delivered(t, Bob, "DKIM-Signature", "s=old")
}

// guardedByTables asserts the same, and that Postfix itself asks who owns a sender.
func guardedByTables(t *testing.T, n *newcomer) {
	t.Helper()
	// A smtpd that runs since before the tables were there does not open them.
	n.reload(t)
	guarded(t, n)
	n.expect(t, postfixtest.Submission, As(Alice, Bob, Stranger), 553)
}

// classic is postgrey, OpenDKIM and OpenDMARC as the usual guides have them.
func classic() shape {
	return shape{
		name: "postgrey, OpenDKIM, OpenDMARC", memory: 2, files: debianPeers(), peers: startDebianPeers, before: guarded,
		main: []string{
			"smtpd_recipient_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination, check_policy_service unix:PLACE/postgrey.sock",
			"smtpd_milters = unix:PLACE/opendkim.sock, unix:PLACE/opendmarc.sock", "non_smtpd_milters = $smtpd_milters",
		},
	}
}

// mailInABox is the box with its lines, its tables in SQLite, and the programs that its
// control panel keeps running.
func mailInABox() shape {
	files := debianPeers()
	files["/etc/mailinabox.conf"] = "STORAGE_ROOT=PLACE/user-data\n"
	files["/etc/default/postgrey"] = `POSTGREY_OPTS="--unix=PLACE/postgrey.sock --delay=120 --dbdir=PLACE/user-data/mail/postgrey/db"` + "\n"
	files["/etc/opendkim.conf"] = "Syslog no\nUMask 000\nMode sv\nKeyTable refile:/etc/opendkim/KeyTable\nSigningTable refile:/etc/opendkim/SigningTable\n" +
		"ExternalIgnoreList refile:/etc/opendkim/TrustedHosts\nInternalHosts refile:/etc/opendkim/TrustedHosts\nRequireSafeKeys no\nSocket local:PLACE/opendkim.sock\n"
	files["/etc/opendkim/TrustedHosts"] = "127.0.0.1\n"
	files["/etc/opendkim/KeyTable"] = "home.example home.example:old:PLACE/root/keys/old.private\n"
	files["/etc/opendkim/SigningTable"] = "*@home.example home.example\n"
	tables := "dbpath=PLACE/user-data/mail/users.sqlite\n"
	files["/etc/postfix/sender-login-maps.cf"] = tables + "query = SELECT permitted_senders FROM (SELECT permitted_senders, 0 AS priority FROM aliases WHERE source='%s' AND permitted_senders IS NOT NULL UNION SELECT destination AS permitted_senders, 1 AS priority FROM aliases WHERE source='%s' AND permitted_senders IS NULL UNION SELECT email as permitted_senders, 2 AS priority FROM users WHERE email='%s') ORDER BY priority LIMIT 1;\n"
	files["/etc/postfix/virtual-alias-maps.cf"] = tables + "query = SELECT destination FROM aliases WHERE source='%s'\n"
	return shape{
		name: "Mail-in-a-Box", files: files, peers: startBox, before: guardedByTables, after: permitted, box: true,
		main: []string{
			"smtpd_sender_login_maps = sqlite:PLACE/root/etc/postfix/sender-login-maps.cf", "virtual_alias_maps = sqlite:PLACE/root/etc/postfix/virtual-alias-maps.cf",
			"smtpd_sasl_auth_enable = no", "smtpd_relay_restrictions = permit_sasl_authenticated,permit_mynetworks,reject_unauth_destination",
			"smtpd_sender_restrictions = reject_non_fqdn_sender,reject_authenticated_sender_login_mismatch,reject_rhsbl_sender dbl.spamhaus.org=127.0.1.[2..99]",
			"smtpd_recipient_restrictions = permit_sasl_authenticated,permit_mynetworks,reject_rbl_client zen.spamhaus.org=127.0.0.[2..11],reject_unlisted_recipient,check_policy_service unix:PLACE/postgrey.sock",
			"smtpd_milters = unix:PLACE/opendkim.sock unix:PLACE/opendmarc.sock", "non_smtpd_milters = $smtpd_milters", "milter_default_action = accept",
		},
		submit: []string{"smtpd_milters=unix:PLACE/opendkim.sock", "cleanup_service_name=authclean"},
		rework: func(main, master string) (string, string) { return main, master + "authclean unix n - - - 0 cleanup\n" },
	}
}

// permitted asserts that an alias with permitted senders is theirs alone, also when its
// mail goes to others.
func permitted(t *testing.T, n *newcomer) {
	t.Helper()
	n.expect(t, postfixtest.Submission, As(Alice, "boss@home.example", Stranger), 553)
	n.expect(t, postfixtest.Submission, As(Bob, "boss@home.example", Stranger), 250)
}

func startBox(t *testing.T, n *newcomer) {
	t.Helper()
	fill(t, filepath.Join(mkdir(t, n.dir, "user-data/mail"), "users.sqlite"), strings.ReplaceAll(readDeploy(t, "examples/mailinabox/users.sql"), "@box.example", "@home.example")+
		"INSERT INTO users (email, password) VALUES ('alice@home.example', 'x'), ('postmaster@home.example', 'x');\n"+
		"INSERT INTO aliases (source, destination, permitted_senders) VALUES ('boss@home.example', 'alice@home.example', 'bob@home.example');\n")
	n.peer(t, "postgrey.sock", "postgrey", "--unix=PLACE/postgrey.sock", "--delay=120", "--user=root", "--group=root",
		"--dbdir="+mkdir(t, n.dir, "user-data/mail/postgrey/db"), "--whitelist-clients=PLACE/root/etc/postgrey/whitelist_clients")
	n.chmod(t, 0o666, filepath.Join(n.dir, "postgrey.sock"))
	conf := filepath.Join(n.dir, "opendkim.conf") // setup takes paths below --root, opendkim does not know of it
	replaceFile(t, conf, strings.ReplaceAll(readText(t, filepath.Join(n.dir, "root/etc/opendkim.conf")), "/etc/opendkim/", n.dir+"/root/etc/opendkim/"))
	n.peer(t, "opendkim.sock", "opendkim", "-f", "-x", conf)
	n.peer(t, "opendmarc.sock", "opendmarc", "-f", "-c", "PLACE/root/etc/opendmarc.conf")
}

// besideRspamd is a site whose rspamd neither signs nor greylists, and goes on to
// filter.
func besideRspamd() shape {
	return shape{
		name: "beside rspamd", peers: startRspamd, before: unguarded,
		main: []string{"smtpd_milters = unix:PLACE/rspamd/rspamd.sock", "non_smtpd_milters = $smtpd_milters", "milter_default_action = accept"},
		files: map[string]string{
			"/etc/rspamd/local.d/greylist.conf": "enabled = false;\n", "/etc/rspamd/local.d/dkim_signing.conf": "enabled = false;\n",
		},
	}
}

func startRspamd(t *testing.T, n *newcomer) {
	t.Helper()
	if err := postfixtest.Peers("rspamd"); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"milter_headers.conf": readDeploy(t, "examples/rspamd/local.d/milter_headers.conf")}
	for _, name := range []string{"greylist.conf", "dkim_signing.conf"} {
		files[name] = readText(t, filepath.Join(n.dir, "root/etc/rspamd/local.d", name))
	}
	p, err := postfixtest.StartRspamdMilter(t.Context(), postfixtest.PeerConfig{
		Dir: mkdir(t, n.dir, "rspamd"), Nameserver: netip.MustParseAddrPort(n.dns.Addr()).Addr(), Suffixes: []string{"example"},
	}, files)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
}

// behindFilter is a site whose content filter hands mail back at ports of loopback: the
// internet's where main.cf's milters are asked, users' where OpenDKIM signs. Own hosts
// have a port that asks postgrey. Services that no longer ask what is to be stopped, and
// those that never asked ours, have to pass mail.
func behindFilter() shape {
	files := debianPeers()
	files["/etc/opendkim.conf"] = strings.Replace(files["/etc/opendkim.conf"], "127.0.0.8", "127.0.0.1", 1)
	const stays = "receive_override_options=no_unknown_recipient_checks,no_header_body_checks"
	return shape{
		name: "behind a content filter", files: files,
		more: []postfixtest.Service{
			{Name: "back", Options: []string{"content_filter=", stays}},
			{Name: "signed", Options: []string{"content_filter=", stays, "smtpd_milters=unix:PLACE/opendkim.sock"}},
			{Name: "hosts", Options: []string{"smtpd_client_restrictions=permit_mynetworks,reject", "smtpd_helo_restrictions=check_policy_service unix:PLACE/postgrey.sock"}},
		},
		main: []string{"smtpd_milters = unix:PLACE/opendmarc.sock"},
		rework: func(main, master string) (string, string) {
			master = strings.Replace(master, "  -o { syslog_name = postfix/submission }\n", "  -o { syslog_name = postfix/submission }\n  -o content_filter=filter:[127.0.0.1]:PORT(signed)\n", 1)
			return main + "content_filter = filter:[127.0.0.1]:PORT(back)\n", strings.Replace(master, "ADDR(hosts) inet", "PORT(hosts) inet", 1) + "filter unix - - n - 2 smtp\n"
		},
		peers: startDebianPeers,
		before: func(t *testing.T, n *newcomer) {
			n.reload(t)
			n.expect(t, postfixtest.Submission, As(Alice, Alice, Bob), 250)
			n.delivered(t, Bob, "DKIM-Signature", "s=old")
		},
		after: passesAlone,
	}
}

// passesAlone asserts that mail passes when the programs that were replaced are away, and
// that what is not the internet's is not judged.
func passesAlone(t *testing.T, n *newcomer) {
	t.Helper()
	away := func(from, to string) {
		for _, name := range []string{"postgrey", "opendkim", "opendmarc"} {
			if err := os.Rename(filepath.Join(n.dir, name+from), filepath.Join(n.dir, name+to)); err != nil {
				t.Fatal(err)
			}
		}
	}
	away(".sock", ".away")
	defer away(".away", ".sock")
	n.expect(t, postfixtest.MX, postfixtest.Mail{From: Stranger, To: []string{"postmaster@home.example"}, Client: "192.0.2.10"}, 250)
	n.delivered(t, "postmaster@home.example", "Authentication-Results", "spf=fail")
	n.expect(t, postfixtest.Submission, As(Alice, Alice, Bob), 250)
	n.expect(t, "hosts", postfixtest.Mail{From: Bob, To: []string{"postmaster@home.example"}, Client: "127.0.0.8"}, 250)
	for _, to := range []string{Bob, "postmaster@home.example"} {
		d, err := n.Delivered(t.Context(), to)
		if err != nil || len(d.Headers("Authentication-Results")) != 0 {
			t.Errorf("mail of our own was judged: %v\n%s", err, d.Data)
		}
	}
}

// instance starts another instance of Postfix, which the first one knows of as
// postmulti(1) has it. What setup does to the first one must not reach it.
func (n *newcomer) instance(t *testing.T) {
	t.Helper()
	n.other = postfixtest.New(t, postfixtest.Config{
		Users: map[string]string{Alice: password}, Mailboxes: []string{Alice}, Main: []string{"multi_instance_enable = yes", "multi_instance_name = postfix-out", "multi_instance_group = mta"},
	})
	if out, err := exec.CommandContext(t.Context(), "postconf", "-c", n.ConfigDir(), "-e", "multi_instance_enable = yes", "multi_instance_directories = "+n.other.ConfigDir()).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// untouched asserts that the other instance asks nothing of ours.
func (n *newcomer) untouched(t *testing.T) {
	t.Helper()
	r, err := n.other.Send(t.Context(), postfixtest.MX, postfixtest.Mail{From: Stranger, To: []string{Alice}, Client: "192.0.2.10"})
	if err != nil || r.Final().Code != 250 {
		t.Errorf("the other instance: %v, %v", r.Final(), err)
	}
	d, err := n.other.Delivered(t.Context(), Alice)
	if err != nil || len(d.Headers("Authentication-Results"))+len(d.Headers("X-Greylist")) != 0 {
		t.Errorf("the other instance: %v, %+v", err, d)
	}
}
