package doctor

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/postconf"
	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
	"github.com/postern-mail/postern/milter/sign"
)

// binaries are built once for all tests of this package.
var binaries *postfixtest.Binaries

func TestMain(m *testing.M) {
	var err error
	if binaries, err = postfixtest.NewBinaries(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := binaries.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// daemonUser is who the daemons of the tests are.
const daemonUser = "nobody"

// zone is the DNS of the tests: the root, lists that answer their test points, a domain
// with everything, and one that has an MX before and behind its own.
const zone = `
.                                IN NS  ns.invalid.
2.0.0.127.zen.spamhaus.org.      IN A   127.0.0.2
dbltest.com.dbl.spamhaus.org.    IN A   127.0.1.2
test.dbl.spamhaus.org.           IN A   127.0.1.2
mail.home.example.               IN A   203.0.113.7
home.example.                    IN TXT "v=spf1 ip4:203.0.113.7 -all"
_dmarc.home.example.             IN TXT "v=DMARC1; p=none; rua=mailto:postmaster@home.example"
backed.example.                  IN MX  10 mx1.backed.example.
backed.example.                  IN MX  20 mail.home.example.
backed.example.                  IN MX  30 mx2.backed.example.
mx1.backed.example.              IN A   203.0.113.91
mx2.backed.example.              IN A   203.0.113.92
`

// site is a Postern that works: a Postfix folder, settings, keys, DNS, and both
// daemons running unless a test wants them down.
type site struct {
	t       *testing.T
	dir     string
	postfix string // folder of Postfix's files, its log and rspamd's
	dns     *resolvertest.Server
	keys    []sign.NewKey

	policy, verify, sign string // addresses

	policyd, milterd string // lines of their files
}

// newSite makes the files of a site; start starts its daemons.
func newSite(t *testing.T) *site {
	t.Helper()
	postfixtest.Require(t)
	dir := makeDir(t)
	s := &site{t: t, dir: dir, postfix: dir, dns: resolvertest.New(t, zone)}
	s.dns.SetAD(true)
	var err error
	for _, at := range []*string{&s.policy, &s.verify, &s.sign} {
		if *at, err = postfixtest.FreeAddr(); err != nil {
			t.Fatal(err)
		}
	}
	for _, folder := range []string{"run", "dkim", "queue/postern", "queue/hold", "queue/active", "queue/incoming", "queue/deferred", "queue/maildrop", "queue/defer"} {
		s.must(os.MkdirAll(filepath.Join(dir, folder), 0o755))
	}
	s.system("chown", "-R", daemonUser+":postfix", s.path("run"), s.path("queue/postern"))
	s.system("chown", daemonUser+":", s.path("dkim"))
	s.makeKeys()
	s.writePostfix()
	s.write("sender_logins", "press@home.example alice\n")
	s.policyd = fmt.Sprintf(`listen = ["inet:%s", "unix:%s", "unix:%s"]
admin = "unix:%s"
metrics-listen = ""
resolver = [%q]
dns-timeout = "30s"
login-domain = "home.example"
owners = ["texthash:%s"]
greylist-store = "sqlite:%s"
queue-directory = %q
socket-group = "postfix"
user = %q
`, s.policy, s.path("queue/postern/policyd.sock"), s.path("run/outside.sock"), s.path("run/policyd.sock"), s.dns.Addr(),
		s.path("sender_logins"), s.path("run/greylist.db"), s.path("queue"), daemonUser)
	s.milterd = fmt.Sprintf(`listen-verify = ["inet:%s", "unix:%s", "unix:%s"]
listen-sign = ["inet:%s"]
admin = "unix:%s"
metrics-listen = ""
resolver = [%q]
dns-timeout = "30s"
dkim-keys = %q
queue-directory = %q
socket-group = "postfix"
user = %q
`, s.verify, s.path("run/verify.sock"), s.path("queue/postern/verify.sock"), s.sign, s.path("run/milterd.sock"), s.dns.Addr(), s.path("dkim"), s.path("queue"), daemonUser)
	return s
}

func makeDir(t *testing.T) string {
	t.Helper()
	dir, err := postfixtest.MakeDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// withPostfix is the same site with Postfix's files of its own.
func (s *site) withPostfix(t *testing.T) *site {
	t.Helper()
	other := *s
	other.t, other.postfix = t, makeDir(t)
	other.writePostfix()
	return &other
}

func (s *site) writePostfix() {
	s.t.Helper()
	for _, folder := range []string{"etc", "rspamd/local.d"} {
		s.must(os.MkdirAll(s.path(folder), 0o755))
	}
	s.write("etc/main.cf", s.mainCF())
	s.write("etc/master.cf", s.masterCF())
}

func (s *site) path(name string) string {
	if top, _, _ := strings.Cut(name, "/"); top == "etc" || top == "rspamd" || top == "amavis" || top == "iredapd.py" || top == "mail.log" {
		return filepath.Join(s.postfix, name)
	}
	return filepath.Join(s.dir, name)
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) write(name, text string) {
	s.t.Helper()
	s.must(os.WriteFile(s.path(name), []byte(text), 0o644))
	if top, _, _ := strings.Cut(name, "/"); top == "etc" {
		s.must(postconf.Settle(s.path("etc")))
	}
}

func (s *site) system(name string, args ...string) {
	s.t.Helper()
	path, err := postconf.Program(name)
	s.must(err)
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		s.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// postconf edits the site's Postfix.
func (s *site) postconf(args ...string) {
	s.t.Helper()
	s.system("postconf", append([]string{"-c", s.path("etc")}, args...)...)
	s.must(postconf.Settle(s.path("etc")))
}

// replace changes a file, in which the old text must be.
func (s *site) replace(name, old, text string) {
	s.t.Helper()
	before, err := os.ReadFile(s.path(name))
	s.must(err)
	if !strings.Contains(string(before), old) {
		s.t.Fatalf("%s has no %q", name, old)
	}
	s.write(name, strings.ReplaceAll(string(before), old, text))
}

// alsoAsks has Postfix ask another policy service, before ours.
func (s *site) alsoAsks(endpoint string) {
	s.t.Helper()
	s.replace("etc/main.cf", "reject_unlisted_recipient,", "reject_unlisted_recipient, check_policy_service "+endpoint+",")
}

func (s *site) makeKeys() {
	s.t.Helper()
	var err error
	s.keys, err = sign.Generate(sign.NewKeys{Dir: s.path("dkim"), Domain: "home.example", Bits: 1024})
	s.must(err)
	for _, key := range s.keys {
		s.must(s.dns.Add("$ORIGIN home.example.\n" + key.ZoneEntry))
	}
}

func (s *site) mainCF() string {
	return fmt.Sprintf(`compatibility_level = 3.6
queue_directory = %s
maillog_file = %s
maillog_file_prefixes = %s
myhostname = mail.home.example
mynetworks = 127.0.0.0/8
smtpd_recipient_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination, reject_unlisted_recipient,
  check_policy_service { inet:%s, { policy_context = dnsbl, greylist }, default_action=DUNNO }
postern_ownership = check_policy_service { inet:%s, policy_context=ownership }
smtpd_milters = { inet:%s, default_action=accept }
non_smtpd_milters = { inet:%s, default_action=accept }
`, s.path("queue"), s.path("mail.log"), s.postfix, s.policy, s.policy, s.verify, s.sign)
}

func (s *site) masterCF() string {
	return fmt.Sprintf(`smtp       inet n - y - - smtpd
submission inet n - y - - smtpd
  -o syslog_name=postfix/submission
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_client_restrictions=$mua_client_restrictions
  -o smtpd_sender_restrictions=$postern_ownership
  -o smtpd_milters=inet:%s
  -o milter_macro_daemon_name=ORIGINATING
pickup     unix n - y 60 1 pickup
cleanup    unix n - y - 0 cleanup
qmgr       unix n - n 300 1 qmgr
smtp       unix - - y - - smtp
relay      unix - - y - - smtp
showq      unix n - y - - showq
`, s.sign)
}

// start starts the daemons with their files.
func (s *site) start() {
	s.t.Helper()
	s.startOnly("policyd")
	s.startOnly("milterd")
}

func (s *site) startOnly(name string) {
	s.t.Helper()
	d, err := postfixtest.StartDaemon(s.t.Context(), postfixtest.DaemonConfig{Path: s.binary("postern-" + name), Args: []string{"--config", s.path(name + ".toml")}})
	s.must(err)
	s.t.Cleanup(func() {
		if s.t.Failed() {
			s.t.Logf("postern-%s's log ends:\n%s", name, d.LogTail())
		}
		if err := d.StopUnlessEnded(); err != nil {
			s.t.Error(err)
		}
	})
}

func (s *site) binary(name string) string {
	s.t.Helper()
	path, err := binaries.Path(s.t.Context(), name)
	s.must(err)
	return path
}

// save writes the daemons' files.
func (s *site) save() {
	s.write("policyd.toml", s.policyd)
	s.write("milterd.toml", s.milterd)
}

// patient are the bounds of tests: how fast the machine is says nothing about a site.
var patient = bounds{ask: time.Hour, check: time.Hour, dns: 2 * time.Minute, lists: time.Hour, slowDNS: time.Hour, slowStore: time.Hour}

// setupWrote makes the journal of a postern setup that has written lines into policyd's file.
func (s *site) setupWrote(lines string) {
	s.t.Helper()
	file := map[string]any{"path": s.path("policyd.toml"), "kind": "policyd", "after": map[string]any{"exists": true, "text": []byte(lines)}}
	text, err := json.Marshal(map[string]any{"postfix": s.path("etc"), "files": []any{file}, "done": true})
	s.must(err)
	name := filepath.Join("setup", url.PathEscape(s.path("etc")), "1.json")
	s.must(os.MkdirAll(filepath.Dir(s.path(name)), 0o700))
	s.write(name, string(text))
}

// options are those with which the site is looked at. Whether this machine's clock is
// kept right says nothing about the site.
func (s *site) options() Options {
	return Options{
		ConfigDirectory: s.path("etc"),
		Policyd:         DaemonOptions{Admin: "unix:" + s.path("run/policyd.sock"), Config: s.path("policyd.toml"), Binary: s.binary("postern-policyd")},
		Milterd:         DaemonOptions{Admin: "unix:" + s.path("run/milterd.sock"), Config: s.path("milterd.toml"), Binary: s.binary("postern-milterd")},
		Skip:            []string{"clock"},
		bounds:          patient,
		paths:           paths{rspamd: s.path("rspamd"), iredapd: s.path("iredapd.py"), amavis: s.path("amavis"), keys: s.path("rspamd/dkim"), mailLogs: []string{}, journals: s.path("setup")},
	}
}
