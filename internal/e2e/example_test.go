package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/manual"
	postconfs "github.com/postern-mail/postern/internal/postconf"
	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// example is a set-up of deploy/examples as a test runs it: the daemons start from
// its files, and Postfix has the lines that its README puts in force.
type example struct {
	name            string // of the folder
	dir             string
	replace         []string // what the files name and where that is in this test, for strings.NewReplacer
	dns             *resolvertest.Server
	policyd, milter *postfixtest.Daemon
	postfix         *postfixtest.Postfix
}

// addresses gives the daemons ports of this test.
func (e *example) addresses(t *testing.T) {
	t.Helper()
	for _, port := range []string{"10045", "10046", "10047"} {
		addr, err := postfixtest.FreeAddr()
		if err != nil {
			t.Fatal(err)
		}
		e.replace = append(e.replace, "127.0.0.1:"+port, addr)
	}
}

// place returns text with the places of this test.
func (e *example) place(text string) string { return strings.NewReplacer(e.replace...).Replace(text) }

// shipped returns a file of the example with the places of this test.
func (e *example) shipped(t *testing.T, name string) string {
	t.Helper()
	return e.place(readDeploy(t, "examples/"+e.name+"/"+name))
}

// write writes a file of the example into the folder of this test.
func (e *example) write(t *testing.T, name string) string {
	t.Helper()
	return writeFile(t, e.dir, filepath.Base(name), e.shipped(t, name))
}

func (e *example) daemon(t *testing.T, name string, args ...string) *postfixtest.Daemon {
	t.Helper()
	path, err := binaries.Path(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return postfixtest.NewDaemon(t, postfixtest.DaemonConfig{Path: path, Args: append(args, "--resolver", e.dns.Addr(), "--metrics-listen", "")})
}

// startPolicyd starts postern-policyd from the policyd.toml of the example.
func (e *example) startPolicyd(t *testing.T, file string, args ...string) {
	t.Helper()
	e.policyd = e.daemon(t, "postern-policyd", append(args, "--config", e.write(t, file), "--admin", "unix:"+e.policydSocket())...)
}

// startMilterd starts postern-milterd from the milterd.toml of the example.
func (e *example) startMilterd(t *testing.T, file string, args ...string) {
	t.Helper()
	e.milter = e.daemon(t, "postern-milterd", append(args, "--config", e.write(t, file), "--admin", "unix:"+filepath.Join(e.dir, "milterd.sock"))...)
}

func (e *example) policydSocket() string { return filepath.Join(e.dir, "policyd.sock") }

// runPart runs the commands of the README behind one of its marks, on the settings
// of Postfix in a folder.
func (e *example) runPart(t *testing.T, conf, mark string) {
	t.Helper()
	page, err := manual.Read("../..", "deploy/examples/"+e.name+"/README.md")
	if err != nil {
		t.Fatal(err)
	}
	at, ran := "", 0
	for _, step := range guideSteps(page.Text) {
		if step.look != "" {
			at = step.look
		}
		if at != mark || step.command == "" || strings.HasPrefix(step.command, "postfix ") {
			continue
		}
		if !strings.HasPrefix(step.command, "postconf ") && !strings.Contains(step.command, "/etc/postfix/") {
			break // what follows is not about Postfix
		}
		runPostconf(t, conf, strings.NewReplacer("/etc/postfix/", conf+"/", "/root/postfix.before-postern/", conf+".before/").Replace(step.command))
		ran++
	}
	if ran == 0 {
		t.Fatalf("the README of %s has no commands behind the mark %q", e.name, mark)
	}
}

// runPostconf runs a command of a shell on the settings of Postfix in a folder.
func runPostconf(t *testing.T, conf, command string) {
	t.Helper()
	settle(t, conf)
	cmd := exec.CommandContext(t.Context(), "sh", "-c", command)
	cmd.Env = append(os.Environ(), "MAIL_CONFIG="+conf)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// settle has the settings look old: postconf waits two seconds for a main.cf that
// somebody may still be writing.
func settle(t *testing.T, conf string) {
	t.Helper()
	if err := postconfs.Settle(conf); err != nil {
		t.Fatal(err)
	}
}

func postconf(t *testing.T, conf, what string) string {
	t.Helper()
	settle(t, conf)
	out, err := exec.CommandContext(t.Context(), "postconf", "-c", conf, what).Output()
	if err != nil {
		t.Fatalf("postconf %s: %v", what, err)
	}
	return string(out)
}

// attach has the README put its lines in force in a main.cf and a master.cf of the
// site, and returns what Postfix then reads. It goes the way back too, on a copy.
func (e *example) attach(t *testing.T, main, master string) (lines []string, services map[string][]string) {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "postfix")
	for _, dir := range []string{conf, conf + ".before"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, dir, "main.cf", main)
		writeFile(t, dir, "master.cf", master)
	}
	everything := func() string { return postconf(t, conf, "-n") + postconf(t, conf, "-M") + postconf(t, conf, "-P") }
	before := everything()
	e.runPart(t, conf, "attach")
	lines, services = e.readBack(t, conf)
	e.runPart(t, conf, "back")
	if after := everything(); after != before {
		t.Errorf("there and back, Postfix reads\n%s\nand before\n%s", after, before)
	}
	return lines, services
}

// leftOut are options of services that this Postfix has no use for: its sessions are
// without TLS, and it has no second cleanup service.
var leftOut = []string{"smtpd_tls_wrappermode", "smtpd_tls_security_level", "cleanup_service_name", "syslog_name"}

// readBack reads main.cf and the options of services in a folder as Postfix does.
func (e *example) readBack(t *testing.T, conf string) (main []string, master map[string][]string) {
	t.Helper()
	for line := range strings.Lines(e.place(postconf(t, conf, "-n"))) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "config_directory") {
			main = append(main, line)
		}
	}
	master = make(map[string][]string)
	for line := range strings.Lines(postconf(t, conf, "-P")) {
		service, option, _ := strings.Cut(strings.TrimSpace(line), "/inet/")
		if name, _, _ := strings.Cut(option, " "); !slices.Contains(leftOut, name) {
			master[service] = append(master[service], e.place(option))
		}
	}
	return main, master
}

// postern runs the administrator's command against the policy daemon.
func (e *example) postern(t *testing.T, args ...string) string {
	t.Helper()
	return e.command(t, append(args, "--admin", e.policydSocket())...)
}

// command runs the administrator's command.
func (e *example) command(t *testing.T, args ...string) string {
	t.Helper()
	path, err := binaries.Path(t.Context(), "postern")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("postern %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// expect sends a mail and compares reply and reason.
func (e *example) expect(t *testing.T, service string, m postfixtest.Mail, code int, reason record.Reason) {
	t.Helper()
	if got := e.send(t, service, m); got.Code != code {
		t.Fatalf("%s to %s by %q: %s, want %d", m.From, m.To, m.Login, got, code)
	}
	r, err := e.policyd.WaitRecord(t.Context(), func(r postfixtest.Record) bool { return r.Sender == m.From && r.Recipient == m.To[0] })
	if err != nil {
		t.Fatal(err)
	}
	if why, _ := r.Why(); why != string(reason) {
		t.Errorf("%s to %s by %q: %s because of %q, want %q", m.From, m.To, m.Login, r.Action, why, reason)
	}
}

func (e *example) send(t *testing.T, service string, m postfixtest.Mail) postfixtest.Reply {
	t.Helper()
	r, err := e.postfix.Send(t.Context(), service, m)
	if err != nil {
		t.Fatal(err)
	}
	return r.Final()
}

func (e *example) accepted(t *testing.T, service string, m postfixtest.Mail) error {
	t.Helper()
	if got := e.send(t, service, m); got.Code != 250 {
		return errors.New(got.String())
	}
	return nil
}

func (e *example) delivered(t *testing.T, recipient string) postfixtest.Delivery {
	t.Helper()
	d, err := e.postfix.Delivered(t.Context(), recipient)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// signedOnce asserts that a mail has n signatures and that all of them verify.
func (e *example) signedOnce(t *testing.T, d postfixtest.Delivery, n int) {
	t.Helper()
	if good, all, err := VerifyDKIM(t.Context(), e.dns, d.Data); err != nil || good != n || all != n {
		t.Errorf("%d of %d signatures verify, want %d: %v\n%s", good, all, n, err, d.Data)
	}
}

// judgedOnce asserts that the first field of a mail is our Authentication-Results,
// that no other field claims to be, and that it holds text.
func (e *example) judgedOnce(t *testing.T, d postfixtest.Delivery, name, text string) {
	t.Helper()
	var ours []string
	for _, field := range d.Headers("Authentication-Results") {
		if strings.HasPrefix(field, name+";") {
			ours = append(ours, field)
		}
	}
	if len(ours) != 1 || !strings.Contains(ours[0], text) {
		t.Errorf("our results are %q, want one with %q\n%s", ours, text, d.Data)
	}
}
