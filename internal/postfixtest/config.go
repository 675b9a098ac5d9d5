package postfixtest

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/postconf"
)

// The names of the two services that every private Postfix has.
const (
	MX         = "mx"         // port 25: mail from the internet; XCLIENT presents any client
	Submission = "submission" // port 587: users' mail; AUTH through Dovecot
)

// Config describes a private Postfix. The zero value is an MX for home.example that
// accepts all recipients there and relays nothing, and a submission service without
// users.
type Config struct {
	Hostname  string            // myhostname; "" means mail.home.example
	Domains   []string          // hosted domains; none means home.example
	Mailboxes []string          // addresses that exist in Domains; none means all do
	Users     map[string]string // submission logins and their passwords; no ':' in a login
	TLS       bool              // offer STARTTLS, with a certificate of our own (see Postfix.TLSConfig)
	NoXClient bool              // do not accept XCLIENT from 127.0.0.1
	Dir       string            // an existing directory, which Stop keeps; "" creates one

	Main       []string  // further main.cf lines, "name = value"; they replace ours
	MX         []string  // master.cf options of the MX service, "name=value"
	Submission []string  // master.cf options of the submission service
	More       []Service // further smtpd services
}

// Service is one smtpd(8) listener.
type Service struct {
	Name    string   // for Postfix.Addr and in the log as postfix/NAME/smtpd
	Login   bool     // offers AUTH; Config.Users must not be empty then
	Proxied bool     // expects ProxyLine first, and trusts it
	Options []string // master.cf options, "name=value"; they replace ours
}

// ProxyLine returns the PROXY protocol line for a client of a Proxied service: IPv4
// address and port.
func ProxyLine(client netip.AddrPort) string {
	return fmt.Sprintf("PROXY TCP4 %s 127.0.0.1 %d 25\r\n", client.Addr(), client.Port())
}

// withDefaults returns c with defaults in place of empty fields.
func (c Config) withDefaults() Config {
	if c.Hostname == "" {
		c.Hostname = "mail.home.example"
	}
	if len(c.Domains) == 0 {
		c.Domains = []string{"home.example"}
	}
	return c
}

// services returns all listeners of c.
func (c Config) services() []Service {
	all := []Service{
		{Name: MX, Options: c.MX},
		{Name: Submission, Login: len(c.Users) > 0, Options: c.Submission},
	}
	return append(all, c.More...)
}

// check returns an error for mistakes that would show late or mean something else.
func (c Config) check() error {
	for login, password := range c.Users {
		if login == "" || strings.ContainsAny(login, ":\r\n") || strings.ContainsAny(password, ":\r\n") {
			return fmt.Errorf("user %q: a login must not be empty, and neither it nor its password may hold ':' or a line break", login)
		}
	}
	var names []string
	for _, s := range c.services() {
		if s.Name == "" || strings.ContainsAny(s.Name, " \t\r\n/") || slices.Contains(names, s.Name) {
			return fmt.Errorf("service name %q is empty, taken twice, or holds a space or '/'", s.Name)
		}
		names = append(names, s.Name)
	}
	if i := slices.IndexFunc(c.More, func(s Service) bool { return s.Login }); i >= 0 && len(c.Users) == 0 {
		return fmt.Errorf("service %s offers AUTH, but there are no users", c.More[i].Name)
	}
	if line := firstWithBreak(c); line != "" {
		return fmt.Errorf("configuration line %q holds a line break", line)
	}
	return nil
}

func firstWithBreak(c Config) string {
	lines := slices.Concat(c.Main, c.Domains, c.Mailboxes, []string{c.Hostname})
	for _, s := range c.services() {
		lines = append(lines, s.Options...)
	}
	i := slices.IndexFunc(lines, func(l string) bool { return strings.ContainsAny(l, "\r\n") })
	if i < 0 {
		return ""
	}
	return lines[i]
}

// layout names the files of a private Postfix, all below dir.
type layout struct{ dir string }

func (l layout) config() string     { return filepath.Join(l.dir, "etc") }
func (l layout) queue() string      { return filepath.Join(l.dir, "queue") }
func (l layout) data() string       { return filepath.Join(l.dir, "data") }
func (l layout) log() string        { return filepath.Join(l.dir, "mail.log") }
func (l layout) dovecot() string    { return filepath.Join(l.dir, "dovecot") }
func (l layout) chain() string      { return filepath.Join(l.config(), "chain.pem") }
func (l layout) mailboxes() string  { return filepath.Join(l.config(), "mailboxes") }
func (l layout) mainCF() string     { return filepath.Join(l.config(), "main.cf") }
func (l layout) masterCF() string   { return filepath.Join(l.config(), "master.cf") }
func (l layout) authSocket() string { return filepath.Join(l.queue(), "private", "auth") }

// maxSocketPath is the maximum length of a Unix socket's path on Linux.
const maxSocketPath = 107

func (l layout) check() error {
	if len(l.authSocket()) > maxSocketPath {
		return fmt.Errorf("%s is too long for a socket: choose a shorter TMPDIR", l.authSocket())
	}
	for dir := l.dir; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("%s is closed to the postfix user: choose another TMPDIR", dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// mainCF returns the text of main.cf. Postfix warns if a name is set twice, so a line
// of c.Main replaces ours.
func mainCF(c Config, l layout, sink string) string {
	lines := []string{
		"compatibility_level = 3.6",
		"queue_directory = " + l.queue(),
		"data_directory = " + l.data(),
		"maillog_file = " + l.log(),
		"maillog_file_prefixes = " + l.dir,
		"myhostname = " + c.Hostname,
		"inet_interfaces = 127.0.0.1",
		// Without IPv6 here, XCLIENT could not present an IPv6 client.
		"inet_protocols = all",
		// No address is trusted: every test comes from 127.0.0.1.
		"mynetworks =",
		"mydestination =",
		"local_recipient_maps =",
		"alias_maps =",
		"alias_database =",
		"recipient_delimiter = +",
		"virtual_mailbox_domains = " + strings.Join(c.Domains, ", "),
		"virtual_transport = lmtp:inet:" + sink,
		"default_transport = lmtp:inet:" + sink,
		"relay_transport = lmtp:inet:" + sink,
		"smtp_dns_support_level = disabled",
		// Otherwise a message that was begun and aborted would delay each later one by
		// a second.
		"in_flow_delay = 0",
		// The tests are one client with many errors.
		"smtpd_client_connection_count_limit = 0",
		"smtpd_error_sleep_time = 0",
		"smtpd_soft_error_limit = 1000",
		"smtpd_hard_error_limit = 1000",
		"smtpd_recipient_restrictions = permit_sasl_authenticated, reject_unauth_destination",
		"smtpd_sasl_type = dovecot",
		"smtpd_sasl_path = private/auth",
		"smtpd_sasl_security_options = noanonymous",
	}
	if len(c.Mailboxes) > 0 {
		lines = append(lines, "virtual_mailbox_maps = texthash:"+l.mailboxes())
	} else {
		lines = append(lines, "virtual_mailbox_maps = static:exists")
	}
	if !c.NoXClient {
		lines = append(lines, "smtpd_authorized_xclient_hosts = 127.0.0.1")
	}
	if c.TLS {
		lines = append(lines, "smtpd_tls_chain_files = "+l.chain(), "smtpd_tls_security_level = may")
	}
	return strings.Join(override(lines, c.Main), "\n") + "\n"
}

// override returns base without the names that extra sets, and then extra.
func override(base, extra []string) []string {
	name := func(line string) string {
		n, _, _ := strings.Cut(line, "=")
		return strings.TrimSpace(n)
	}
	kept := slices.DeleteFunc(slices.Clone(base), func(line string) bool {
		return slices.ContainsFunc(extra, func(e string) bool { return name(e) == name(line) })
	})
	return append(kept, extra...)
}

// masterServices are the daemons behind the listeners. None is chrooted, so tests may
// put maps and sockets anywhere.
const masterServices = `pickup    unix  n - n 60    1 pickup
cleanup   unix  n - n -     0 cleanup
qmgr      unix  n - n 300   1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n -     - trivial-rewrite
bounce    unix  - - n -     0 bounce
defer     unix  - - n -     0 bounce
trace     unix  - - n -     0 bounce
verify    unix  - - n -     1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n -     - proxymap
proxywrite unix - - n -     1 proxymap
smtp      unix  - - n -     - smtp
relay     unix  - - n -     - smtp
showq     unix  n - n -     - showq
error     unix  - - n -     - error
retry     unix  - - n -     - error
discard   unix  - - n -     - discard
local     unix  - n n -     - local
virtual   unix  - n n -     - virtual
lmtp      unix  - - n -     - lmtp
anvil     unix  - - n -     1 anvil
scache    unix  - - n -     1 scache
postlog   unix-dgram n - n - 1 postlogd
`

// masterCF returns the text of master.cf for the listeners at addrs.
func masterCF(services []Service, addrs map[string]string) string {
	var b strings.Builder
	for _, s := range services {
		ours := []string{"syslog_name=postfix/" + s.Name}
		if s.Login {
			ours = append(ours, "smtpd_sasl_auth_enable=yes")
		}
		if s.Proxied {
			ours = append(ours, "smtpd_upstream_proxy_protocol=haproxy")
		}
		fmt.Fprintf(&b, "%s inet n - n - - smtpd\n", addrs[s.Name])
		for _, option := range override(ours, s.Options) {
			name, value, _ := strings.Cut(option, "=")
			fmt.Fprintf(&b, "  -o { %s = %s }\n", strings.TrimSpace(name), strings.TrimSpace(value))
		}
	}
	b.WriteString(masterServices)
	return b.String()
}

// writeConfig makes the directories and files of a private Postfix.
func writeConfig(c Config, l layout, addrs map[string]string, sink string) error {
	if err := makeDirectories(l); err != nil {
		return err
	}
	files := map[string]string{
		l.mainCF():    mainCF(c, l, sink),
		l.masterCF():  masterCF(c.services(), addrs),
		l.mailboxes(): strings.Join(c.Mailboxes, " exists\n") + " exists\n",
	}
	for path, text := range files {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return postconf.Settle(l.config())
}

// makeDirectories makes the directories that "postfix check" would make, with the
// owners that master(8) and its daemons require.
func makeDirectories(l layout) error {
	ids, err := lookupIDs()
	if err != nil {
		return err
	}
	for _, dir := range []string{l.config(), l.queue(), filepath.Join(l.queue(), "pid")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	private := []string{"active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace"}
	for _, name := range private {
		if err := makeOwned(filepath.Join(l.queue(), name), 0o700, ids.postfix, 0); err != nil {
			return err
		}
	}
	return errors.Join(
		makeOwned(l.data(), 0o700, ids.postfix, 0),
		makeOwned(filepath.Join(l.queue(), "maildrop"), 0o730, ids.postfix, ids.postdrop),
		makeOwned(filepath.Join(l.queue(), "public"), 0o710, ids.postfix, ids.postdrop),
	)
}

func makeOwned(dir string, mode os.FileMode, uid, gid int) error {
	if err := os.MkdirAll(dir, mode); err != nil {
		return err
	}
	// The umask does not apply.
	return errors.Join(os.Chmod(dir, mode), os.Chown(dir, uid, gid))
}
