package e2e

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/manual"
	"github.com/postern-mail/postern/internal/postfixtest"
)

// guide is the page that is run.
const guide = "deploy/examples/debian/README.md"

// guideStep is one command of the guide, or a place where the test looks.
type guideStep struct {
	command string
	look    string // the name of the place
}

// guideSteps reads the commands of a page in their order: what is in blocks of sh,
// line by line. A here-document belongs to its line.
func guideSteps(text string) []guideStep {
	var all []guideStep
	inBlock, until := false, ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		name, isPlace := strings.CutPrefix(line, "<!-- test: ")
		switch {
		case until != "":
			all[len(all)-1].command += "\n" + line
			if line == until {
				until = ""
			}
		case line == "```sh":
			inBlock = true
		case strings.HasPrefix(line, "```"):
			inBlock = false
		case inBlock:
			all = append(all, guideStep{command: line})
			if _, word, ok := strings.Cut(line, "<<"); ok {
				until = strings.Trim(word, "'\"")
			}
		case isPlace:
			all = append(all, guideStep{look: strings.TrimSuffix(name, " -->")})
		}
	}
	return all
}

// The server that the guide starts from: Debian's own Postfix and Dovecot, and two
// people with accounts.
const firstDayServer = `
useradd --create-home alice && useradd --create-home bob && printf 'alice:wonder\nbob:builder\n' | chpasswd
echo example.org >/etc/mailname
postconf -e 'myorigin = /etc/mailname' 'myhostname = mail.example.org' 'mydestination = $myhostname, example.org, localhost' 'smtpd_sasl_type = dovecot' 'smtpd_sasl_path = private/auth'
postconf -M 'submission/inet=submission inet n - y - - smtpd'
postconf -P 'submission/inet/smtpd_tls_security_level=encrypt' 'submission/inet/smtpd_sasl_auth_enable=yes' 'submission/inet/smtpd_relay_restrictions=permit_sasl_authenticated,reject'
printf 'protocols =\nauth_mechanisms = plain login\nservice auth {\n  unix_listener /var/spool/postfix/private/auth {\n    mode = 0660\n    user = postfix\n    group = postfix\n  }\n}\n' >/etc/dovecot/local.conf
systemctl restart dovecot postfix
ip address add 192.0.2.1/24 dev lo
`

// firstDay is the machine of the guide, and what mails find there.
type firstDay struct {
	*machine
	*shell
}

// TestFirstDay runs the guide for Debian line by line on a fresh Debian, and sends
// mails where it says what has changed.
func TestFirstDay(t *testing.T) {
	t.Parallel()
	postfixtest.Require(t)
	m := startDebian(t, debianTree(t))
	d := firstDay{m, m.shell(t)}
	t.Cleanup(func() {
		if t.Failed() {
			journal, _, _ := m.shell(t).run("journalctl -n 60 --no-pager")
			t.Logf("the journal ends:\n%s", journal)
		}
	})
	for line := range strings.Lines(strings.TrimSpace(firstDayServer)) {
		d.must(t, line)
	}
	page, err := manual.Read("../..", guide)
	if err != nil {
		t.Fatal(err)
	}
	looks := map[string]func(*testing.T){
		"watching":    d.watching,
		"switched":    d.switched,
		"signing":     d.signing,
		"back":        d.back,
		"uninstalled": d.uninstalled,
		"removed":     d.removed,
	}
	d.follow(t, page.Text, looks)
}

// follow runs the commands of a guide, and looks where it has a place for that.
func (d firstDay) follow(t *testing.T, text string, looks map[string]func(*testing.T)) {
	t.Helper()
	reloads := 0
	for _, s := range guideSteps(text) {
		if s.look == "" {
			t.Logf("# %s", s.command)
			before := d.must(t, "pgrep -x smtpd || true")
			if out := d.must(t, s.command); out != "" {
				t.Log(strings.TrimSpace(out))
			}
			if reloadsPostfix(s.command) { // and returns before master(8) has done it
				reloads++
				d.journal(t, reloads, "reload -- version", "-t postfix/master")
				d.ended(t, before)
			}
			continue
		}
		look := looks[s.look]
		delete(looks, s.look)
		if look == nil {
			t.Fatalf("the guide has a place %q that the test does not know", s.look)
		}
		look(t)
		if t.Failed() {
			t.Fatalf("at %q", s.look)
		}
	}
	if len(looks) > 0 {
		t.Errorf("places that the guide does not have: %d", len(looks))
	}
}

// reloadsPostfix reports whether a command of a guide has Postfix read its files again.
func reloadsPostfix(command string) bool {
	return command == "postfix reload" || strings.HasPrefix(command, "postern setup --")
}

// journal waits until the journal has a text in n lines of a unit or a program.
func (d firstDay) journal(t *testing.T, n int, text, of string) {
	t.Helper()
	const wait = `[ "$(timeout 60 grep -c -m %[1]d -F '%[2]s' < <(journalctl %[3]s -o cat -n all -f))" = %[1]d ]`
	d.must(t, fmt.Sprintf(wait, n, text, of))
}

// ended waits until processes of Postfix have ended. Those of before a reload take mail by
// the settings of before until master(8), which logs first, has told them.
func (d firstDay) ended(t *testing.T, pids string) {
	t.Helper()
	for _, pid := range strings.Fields(pids) {
		d.must(t, "timeout 60 bash -c 'while [ -d /proc/"+pid+" ]; do :; done'")
	}
}

// submission is a mail that a user hands in.
func submission(login, password, from, to string) postfixtest.Mail {
	mail := postfixtest.Mail{Login: login, Password: password, From: from, To: []string{to}, TLS: &tls.Config{InsecureSkipVerify: true}}
	mail.Message = "From: <" + from + ">\r\nTo: <" + to + ">\r\nSubject: first day\r\n\r\nHello\r\n"
	return mail
}

const submissionPort = "127.0.0.1:587"

// submit sends a mail as a user, and returns the reply that decided.
func (d firstDay) submit(t *testing.T, login, password, from, to string) string {
	t.Helper()
	return d.send(t, submissionPort, submission(login, password, from, to))
}

// arrive sends a mail from the internet.
func (d firstDay) arrive(t *testing.T, from, to string) string {
	t.Helper()
	return d.send(t, "192.0.2.1:25", postfixtest.Mail{From: from, To: []string{to}})
}

func (d firstDay) send(t *testing.T, addr string, m postfixtest.Mail) string {
	t.Helper()
	reply, err := d.transaction(t.Context(), addr, m)
	if err != nil {
		t.Fatalf("%s to %q: %v", m.From, m.To, err)
	}
	return reply
}

// replied compares the start of a reply.
func replied(t *testing.T, what, reply, want string) {
	t.Helper()
	if !strings.HasPrefix(reply, want) {
		t.Errorf("%s: %q, want %q", what, reply, want)
	}
}

// open is what everyone may do while nothing is asked or nothing is refused.
func (d firstDay) open(t *testing.T) {
	t.Helper()
	replied(t, "alice as herself", d.submit(t, "alice", "wonder", "alice@example.org", "bob@example.org"), "250 ")
	replied(t, "alice as bob", d.submit(t, "alice", "wonder", "bob@example.org", "alice@example.org"), "250 ")
	replied(t, "a stranger", d.arrive(t, "carol@away.example", "alice@example.org"), "250 ")
}

func (d firstDay) watching(t *testing.T) {
	d.open(t)
	for _, reason := range []string{"sender_unlisted", "owned_by_login", "greylist_new"} {
		d.logged(t, "postern-policyd", `"reason":"`+reason+`","mode":"shadow"`)
	}
}

// logged waits until a unit has logged a text.
func (d firstDay) logged(t *testing.T, unit, text string) {
	t.Helper()
	d.journal(t, 1, text, "-u "+unit)
}

func (d firstDay) switched(t *testing.T) {
	d.logged(t, "postern-policyd", `"msg":"reloaded"`)
	replied(t, "alice as herself", d.submit(t, "alice", "wonder", "alice@example.org", "bob@example.org"), "250 ")
	replied(t, "bob as the press", d.submit(t, "bob", "builder", "press@example.org", "alice@example.org"), "250 ")
	replied(t, "alice as bob", d.submit(t, "alice", "wonder", "bob@example.org", "alice@example.org"), "553 5.7.1 ")
	replied(t, "a stranger", d.arrive(t, "dave@away.example", "alice@example.org"), "450 4.2.0 ")
}

func (d firstDay) signing(t *testing.T) {
	d.switched(t)
	d.logged(t, "postern-milterd", `"reason":"signed"`)
	d.logged(t, "postern-milterd", `"signed_by":"example.org/postern`)
	d.must(t, "postern log --journal --reason signed | grep -q ' signed=example.org/postern'")
	// There is no DNS here, and no one to keep a clock.
	d.must(t, "postern doctor --skip resolver,lists,keys,domains,clock")
	// The service requires its socket.
	d.must(t, "systemctl disable -q postern-policyd.socket && postern doctor --check units")
	d.must(t, "systemctl disable -q postern-policyd.service && postern doctor --check units | grep 'postern-policyd.service is not enabled.*systemctl enable postern-policyd.service' && systemctl enable -q postern-policyd.socket postern-policyd.service")
	// While it is down, its settings are read as its unit would have it read them.
	d.must(t, "systemctl stop postern-policyd.socket postern-policyd.service && postern doctor --check settings,stores,attached,context,ownership")
	d.must(t, "postern doctor --check daemons,units | grep 'postern-policyd.socket is enabled and not active.*systemctl start postern-policyd.socket'")
	d.must(t, "systemctl start postern-policyd.socket postern-policyd.service")
	d.must(t, "postern-policyd --version && postern version && test -s /usr/share/man/man8/postern-milterd.8")
}

func (d firstDay) back(t *testing.T) {
	d.open(t)
	d.must(t, "diff -r /etc/postfix /root/postfix.before-postern")
}

func (d firstDay) uninstalled(t *testing.T) {
	d.open(t)
	if left := d.must(t, "find /usr /etc/systemd -name '*postern*' -not -path '/usr/local/go/*'"); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}

func (d firstDay) removed(t *testing.T) {
	d.open(t)
	d.must(t, "diff -r /etc/postfix /root/postfix.before-postern && ! getent passwd postern")
}
