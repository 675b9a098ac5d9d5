package setup

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/milterd"
	"github.com/postern-mail/postern/internal/policyd"
	"github.com/postern-mail/postern/internal/postconf"
	"github.com/postern-mail/postern/internal/postfixtest"
)

// The processes that kill themselves are this test, told so by the environment.
const killAt = "POSTERN_TEST_KILL_AT"

// binaries has the daemons, which check their settings.
var binaries *postfixtest.Binaries

func TestMain(m *testing.M) {
	if os.Getenv(killAt) != "" {
		os.Exit(killed())
	}
	os.Exit(withBinaries(m))
}

func withBinaries(m *testing.M) int {
	var err error
	if binaries, err = postfixtest.NewBinaries(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := binaries.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// site is a Postfix that does not run, and listeners in place of our daemons.
type site struct {
	Applier
	dir       string
	said      []string
	listeners []net.Listener // in place of our daemons
}

const siteMain = `# Odd formatting, which undo must give back.
compatibility_level=3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
myhostname   = mail.example.org
mydestination = $myhostname
# a comment inside
   example.org,  localhost
myorigin = example.org
alias_maps =
smtpd_recipient_restrictions = permit_mynetworks,
	permit_sasl_authenticated
# another
	reject_unauth_destination  check_policy_service inet:127.0.0.1:10023
smtpd_milters = inet:127.0.0.1:8891
non_smtpd_milters = $smtpd_milters`

const siteMaster = `# service type  private unpriv  chroot  wakeup  maxproc command + args
smtp      inet  n       -       y       -       -       smtpd -v
cleanup   unix  n       -       y       -       0       cleanup
submission inet n - y - - smtpd
  -o smtpd_sasl_auth_enable=yes
# inside
  -o { smtpd_sender_restrictions = $mua_sender_restrictions }
#end
`

// newSite writes a Postfix below a folder, and keeps endpoints open for it.
func newSite(t *testing.T) *site {
	t.Helper()
	postfixtest.Require(t)
	dir, err := postfixtest.MakeDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := siteIn(dir)
	var endpoints []string
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		s.listeners = append(s.listeners, l)
		endpoints = append(endpoints, "inet:"+l.Addr().String())
	}
	s.Policy, s.Verify, s.Sign = endpoints[0], endpoints[1], endpoints[2]
	for _, name := range []string{"postern-policyd", "postern-milterd"} {
		path, err := binaries.Path(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		s.Binaries = filepath.Dir(path)
	}
	for _, folder := range []string{"postfix", "queue", "data", "root", "postern"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"postfix/main.cf": fmt.Sprintf(siteMain, dir), "postfix/master.cf": siteMaster,
		"postern/policyd.toml": "# the package's\nowners = [\n  \"hash:/nonexistent/logins\",\n]\ngreylist-store = \"memory:\"\n",
		"postern/milterd.toml": "mark-key-file = \"\"\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := postconf.Settle(filepath.Join(dir, "postfix")); err != nil {
		t.Fatal(err)
	}
	return s
}

func siteIn(dir string) *site {
	s := &site{dir: dir}
	s.Options = Options{
		ConfigDirectory: filepath.Join(dir, "postfix"), Root: filepath.Join(dir, "root"), User: "no such user",
		Policyd: Daemon{policyd.Program(), filepath.Join(dir, "postern/policyd.toml")},
		Milterd: Daemon{milterd.Program(), filepath.Join(dir, "postern/milterd.toml")},
	}
	s.Journal = filepath.Join(dir, "journal")
	s.Journals = JournalsOf(s.Journal, s.ConfigDirectory)
	s.Say = func(format string, args ...any) { s.said = append(s.said, fmt.Sprintf(format, args...)) }
	return s
}

func (s *site) apply(ctx context.Context) error {
	plan, err := MakePlan(ctx, s.Options)
	if err != nil {
		return err
	}
	return s.Apply(ctx, plan)
}

// tree is every file below the site's folders, with mode and text.
func (s *site) tree(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || strings.HasPrefix(path, filepath.Join(s.dir, "queue")) || strings.HasPrefix(path, filepath.Join(s.dir, "data")) {
			return err // Postfix makes its own folders there
		}
		info, err := d.Info()
		if err != nil || d.IsDir() {
			all[path] = "folder"
			return err
		}
		text, err := os.ReadFile(path)
		all[path] = fmt.Sprint(info.Mode(), info.ModTime().UnixNano(), string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// sameTree fails the test when two states differ.
func sameTree(t *testing.T, want, got map[string]string) {
	t.Helper()
	for path, text := range want {
		if got[path] != text {
			t.Errorf("%s is\n%s\nand was\n%s", path, got[path], text)
		}
	}
	for path := range got {
		if _, ok := want[path]; !ok {
			t.Errorf("%s is left", path)
		}
	}
}

func TestApplyAndUndo(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	before := s.tree(t)
	if err := s.apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	now, err := ReadPostfix(t.Context(), s.ConfigDirectory)
	if err != nil {
		t.Fatal(err)
	}
	if got := now.value("smtpd_recipient_restrictions"); !strings.Contains(got, s.Policy) || strings.Contains(got, "10023") {
		t.Errorf("recipient restrictions are %s", got)
	}
	plan, err := MakePlan(t.Context(), s.Options)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listening(t.Context(), plan); !plan.Nothing() || err != nil {
		t.Errorf("once it is attached there is more to do: %+v %+v, %v", plan.Changes, plan.Files, err)
	}
	s.stopDaemons(t)
	if err := s.Listening(t.Context(), plan); err == nil || !strings.Contains(err.Error(), "no daemon listens at "+s.Policy) {
		t.Errorf("once the daemons have stopped: %v", err)
	}
	if err := s.Undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	sameTree(t, before, s.tree(t))
	// As a kill leaves it before anything is changed.
	if err := os.MkdirAll(filepath.Join(s.Journals.folder, "stage-1", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Undo(t.Context()); !errors.Is(err, ErrNothing) {
		t.Errorf("a second undo: %v", err)
	}
	sameTree(t, before, s.tree(t))
}

// stopDaemons closes the listeners in place of our daemons, and waits until nothing listens
// there: a program that a parallel test starts has copies of them for a moment.
func (s *site) stopDaemons(t *testing.T) {
	t.Helper()
	for _, l := range s.listeners {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		for tries := 0; ; tries++ {
			c, err := net.Dial("tcp", l.Addr().String())
			if errors.Is(err, syscall.ECONNREFUSED) {
				break
			}
			if err == nil {
				_ = c.Close()
			}
			if tries == 1000 {
				t.Fatalf("%s still listens: %v", l.Addr(), err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// A rotation has deleted a key that another program signs with after the undo.
func TestUndoAfterRotation(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	plan, err := MakePlan(t.Context(), s.Options)
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(s.dir, "postern/dkim/example.org/old.private")
	plan.Files = append(plan.Files, File{Path: key, Mode: 0o600, Text: []byte("key")})
	if err := errors.Join(s.Apply(t.Context(), plan), os.Remove(key), s.Undo(t.Context())); err != nil {
		t.Fatal(err)
	}
	if said := strings.Join(s.said, "\n"); !strings.Contains(said, key+" is not there any more") {
		t.Errorf("undo said:\n%s", said)
	}
}

// Watching first and then deciding are two runs, and undo takes back both.
func TestShadowAndBack(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	before := s.tree(t)
	shadow := true
	s.Shadow = &shadow
	if err := s.apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	now, err := ReadPostfix(t.Context(), s.ConfigDirectory)
	if err != nil {
		t.Fatal(err)
	}
	if got := now.value("smtpd_recipient_restrictions"); !strings.Contains(got, s.Policy) || !strings.Contains(got, "10023") {
		t.Errorf("watched recipient restrictions are %s", got)
	}
	if text, err := os.ReadFile(s.Milterd.Config); err != nil || !strings.Contains(string(text), "\nshadow = [\"all\"]\ndkim-keys = \"\"\n") {
		t.Errorf("%v\n%s", err, text)
	}
	shadow = false
	if err := s.apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now, err = ReadPostfix(t.Context(), s.ConfigDirectory); err != nil {
		t.Fatal(err)
	}
	if got := now.value("smtpd_recipient_restrictions"); strings.Contains(got, "10023") || strings.Contains(now.value(ownershipName), "DUNNO") {
		t.Errorf("recipient restrictions are %s, ownership is %s", got, now.value(ownershipName))
	}
	for _, name := range []string{s.Policyd.Config, s.Milterd.Config} {
		if text, err := os.ReadFile(name); err != nil || strings.Contains(string(text), "shadow") {
			t.Errorf("%v\n%s", err, text)
		}
	}
	s.said = nil
	if err := s.Undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	sameTree(t, before, s.tree(t))
	if slices.Sort(s.said); len(s.said) == 0 || len(slices.Compact(slices.Clone(s.said))) < len(s.said) { // that Postfix does not run, for one
		t.Errorf("undo of two runs said:\n%s", strings.Join(s.said, "\n"))
	}
}

// After watching, the services for users ask what they would ask without it: the lists that
// main.cf no longer names go, those that a service had of its own stay.
func TestWatchedListsGo(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const list = "reject_rhsbl_sender dbl.spamhaus.org=127.0.1.[2..99]"
	s.edit(t, "main.cf", "alias_maps =", "alias_maps =\nsmtpd_sender_restrictions = reject_non_fqdn_sender,reject_authenticated_sender_login_mismatch,"+list)
	s.edit(t, "master.cf", "#end\n", "smtps inet n - y - - smtpd\n  -o smtpd_sasl_auth_enable=yes\n"+
		"own inet n - y - - smtpd\n  -o smtpd_sasl_auth_enable=yes\n  -o { smtpd_sender_restrictions = "+list+" }\n")
	s.Users = []string{"own/inet"}
	shadow := true
	s.Shadow = &shadow
	if err := s.apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	shadow = false
	plan, err := MakePlan(t.Context(), s.Options)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{"smtps/inet": "not changed", "own/inet": "not changed"}
	for _, c := range plan.Changes {
		if c.Name == senderList && c.Service != "" {
			got[c.Service] = c.New
		}
	}
	if want := map[string]string{"smtps/inet": "reject_non_fqdn_sender,$" + ownershipName, "own/inet": "not changed"}; !maps.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// steps are the names of the steps of a run.
func steps(t *testing.T, do func(*site) error) []string {
	t.Helper()
	s := newSite(t)
	var names []string
	s.step = func(name string) { names = append(names, name) }
	if err := do(s); err != nil {
		t.Fatal(err)
	}
	return names
}

// killed is a process that ends at a step of apply or undo, as by SIGKILL.
func killed() int {
	args := strings.Split(os.Getenv(killAt), " ")
	at, err := strconv.Atoi(args[1])
	if err != nil {
		return 2
	}
	s := siteIn(os.Args[1])
	s.Policy, s.Verify, s.Sign, s.Binaries = os.Args[2], os.Args[3], os.Args[4], os.Args[5]
	s.step = func(string) {
		if at == 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		at--
	}
	ctx := context.Background()
	if args[0] == "undo" {
		err = s.Undo(ctx)
	} else {
		err = s.apply(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	return 0
}

// kill runs apply or undo in a process that is killed before a step.
func (s *site) kill(t *testing.T, what string, step int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, s.dir, s.Policy, s.Verify, s.Sign, s.Binaries)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", killAt, what, step))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("%s was not killed at step %d: %v\n%s", what, step, err, out)
	}
}

// A run that is killed at any step is taken back byte for byte, by undo or before the
// next run.
func TestKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	apply := steps(t, func(s *site) error { return s.apply(t.Context()) })
	if len(apply) < 8 || !slices.Contains(apply, "reload") {
		t.Fatalf("steps of apply: %q", apply)
	}
	for i, name := range apply {
		t.Run("apply, "+name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			before := s.tree(t)
			s.kill(t, "apply", i)
			if i%2 == 0 { // both ways lead back; each step need not try both
				if _, err := s.Recover(t.Context()); err != nil {
					t.Fatal(err)
				}
			} else if err := s.Undo(t.Context()); err != nil && !errors.Is(err, ErrNothing) {
				t.Fatal(err)
			}
			sameTree(t, before, s.tree(t))
		})
	}
}

// An undo that is killed at every step, one after the other, still comes to its end.
func TestUndoKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	before := s.tree(t)
	if err := s.apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	var names []string
	copied := *s
	copied.step = func(name string) { names = append(names, name) }
	if err := errors.Join(copied.Undo(t.Context()), s.apply(t.Context())); err != nil {
		t.Fatal(err)
	}
	if len(names) < 6 {
		t.Fatalf("steps of undo: %q", names)
	}
	for i := range names {
		s.kill(t, "undo", i)
	}
	if err := s.Undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	sameTree(t, before, s.tree(t))
}

// An undo that is interrupted says so. It does not take a Postfix that it could not ask
// for one that is not running.
func TestUndoInterrupted(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	before := s.tree(t)
	if err := s.apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, interrupt := context.WithCancelCause(t.Context())
	signal := errors.New("interrupt signal received")
	var said strings.Builder
	copied := *s
	copied.Say = func(format string, args ...any) { fmt.Fprintf(&said, format+"\n", args...) }
	copied.step = func(name string) {
		if name == "reload" {
			interrupt(signal)
		}
	}
	err := copied.Undo(ctx)
	if !errors.Is(err, signal) || !strings.Contains(err.Error(), "run postern setup --undo again") || strings.Contains(said.String(), "not running") {
		t.Errorf("%v\n%s", err, &said)
	}
	if err := s.Undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	sameTree(t, before, s.tree(t))
}

// What fails is taken back at once.
func TestRollBack(t *testing.T) {
	tests := []struct {
		name   string
		break_ func(t *testing.T, s *site)
		want   string
	}{
		{"the settings are not accepted", func(t *testing.T, s *site) {
			if err := os.WriteFile(s.Policyd.Config, []byte("no-such-key = 1\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, "unknown key no-such-key"},
		{"Postfix has a mistake already", func(t *testing.T, s *site) {
			s.edit(t, "main.cf", "alias_maps =\n", "alias_maps =\ndaemon_directory = /nonexistent\n")
		}, "before anything is changed"},
		{"Postfix does not accept it", func(t *testing.T, s *site) {
			s.step = func(name string) {
				if name == "postfix check" { // as if someone had broken the file meanwhile
					if err := os.WriteFile(filepath.Join(s.ConfigDirectory, "master.cf"), []byte("smtp inet broken\n"), 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
		}, "master.cf"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			test.break_(t, s)
			before := s.tree(t)
			err := s.apply(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if test.name != "Postfix does not accept it" {
				sameTree(t, before, s.tree(t))
			}
		})
	}
}

// Without systemd the settings come first, then the daemons, then Postfix.
func TestDaemonsToBeStarted(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	before := s.tree(t)
	away := s.Verify
	s.Verify = "inet:127.0.0.1:1"
	if err := s.apply(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Fatal(err)
	}
	now := s.tree(t)
	for _, name := range []string{"main.cf", "master.cf"} {
		if path := filepath.Join(s.ConfigDirectory, name); now[path] != before[path] {
			t.Errorf("%s has changed", path)
		}
	}
	if now[s.Policyd.Config] == before[s.Policyd.Config] {
		t.Error("the settings are not written")
	}
	s.Verify = away
	if err := errors.Join(s.apply(t.Context()), s.Undo(t.Context())); err != nil {
		t.Fatal(err)
	}
	sameTree(t, before, s.tree(t))
}

// Two instances of Postfix share the daemons: whoever is undone last gives back their
// settings, which the second one has changed too.
func TestTwoInstances(t *testing.T) {
	t.Parallel()
	for name, isFirst := range map[string]bool{"first undone first": true, "second undone first": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := newSite(t)
			second := siteIn(first.dir)
			second.ConfigDirectory = filepath.Join(first.dir, "other")
			if err := os.CopyFS(second.ConfigDirectory, os.DirFS(first.ConfigDirectory)); err != nil {
				t.Fatal(err)
			}
			first.edit(t, "main.cf", "myhostname ", noUsers+"myhostname ")
			second.Journals = JournalsOf(first.Journal, second.ConfigDirectory)
			second.Policy, second.Verify, second.Sign, second.Binaries = first.Policy, first.Verify, first.Sign, first.Binaries
			before := first.tree(t)
			for _, s := range []*site{first, second} {
				if err := s.apply(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			attached := first.tree(t)
			gone, stays := first, second
			if !isFirst {
				gone, stays = second, first
			}
			if err := gone.Undo(t.Context()); err != nil {
				t.Fatal(err)
			}
			now := first.tree(t)
			for _, path := range []string{first.Policyd.Config, first.Milterd.Config, filepath.Join(stays.ConfigDirectory, "main.cf")} {
				if now[path] != attached[path] {
					t.Errorf("%s has changed", path)
				}
			}
			if path := filepath.Join(gone.ConfigDirectory, "main.cf"); now[path] != before[path] {
				t.Errorf("%s is not as it was", path)
			}
			if err := stays.Undo(t.Context()); err != nil {
				t.Fatal(err)
			}
			sameTree(t, before, first.tree(t))
		})
	}
}

// noUsers takes the service for users away.
const noUsers = "master_service_disable = submission/inet\n"

// plannedText returns one of our files as a plan leaves it.
func (s *site) plannedText(t *testing.T, path string) string {
	t.Helper()
	plan, err := MakePlan(t.Context(), s.Options)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if i := slices.IndexFunc(plan.Files, func(f File) bool { return f.Path == path }); i >= 0 {
		text = plan.Files[i].Text
	} else if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func checksIn(t *testing.T, text string) []string {
	t.Helper()
	file, err := config.ParseDocument("policyd.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return listed(file, "checks")
}

// Users come later to a server that took the internet's mail alone: what setup has written
// then is no decision of the administrator, and their hook asks for a check that runs.
func TestUsersComeLater(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.edit(t, "main.cf", "myhostname ", noUsers+"myhostname ")
	if err := s.apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if text := s.plannedText(t, s.Policyd.Config); slices.Contains(checksIn(t, text), "ownership") || !strings.Contains(text, "checks = ") {
		t.Fatalf("without users:\n%s", text)
	}
	s.edit(t, "main.cf", noUsers, "")
	if text := s.plannedText(t, s.Policyd.Config); !slices.Contains(checksIn(t, text), "ownership") || !strings.Contains(text, "owners = ") {
		t.Errorf("with users:\n%s", text)
	}
}

// An instance for the internet's mail shares the daemons with one for users, which goes on
// to ask for ownership, and whose sockets stay below its own queue.
func TestInstanceWithoutUsers(t *testing.T) {
	t.Parallel()
	users := newSite(t)
	if err := users.apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	internet := siteIn(users.dir)
	internet.ConfigDirectory = filepath.Join(users.dir, "other")
	if err := os.CopyFS(internet.ConfigDirectory, os.DirFS(users.ConfigDirectory)); err != nil {
		t.Fatal(err)
	}
	internet.edit(t, "main.cf", "myhostname ", noUsers+"myhostname ")
	internet.edit(t, "main.cf", "/queue\n", "/otherqueue\n")
	internet.Policy, internet.Verify, internet.Sign = users.Policy, users.Verify, users.Sign
	for _, path := range []string{users.Policyd.Config, users.Milterd.Config} {
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if text := internet.plannedText(t, path); text != string(before) {
			t.Errorf("%s was\n%s\nand would be\n%s", path, before, text)
		}
	}
}

// edit changes a text in a file of Postfix.
func (s *site) edit(t *testing.T, name, old, new string) {
	t.Helper()
	path := filepath.Join(s.ConfigDirectory, name)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		t.Fatalf("%s has no %q:\n%s", name, old, text)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), old, new, 1)), 0o640); err != nil {
		t.Fatal(err)
	}
}

// What others have changed since stays; only our lines go.
func TestUndoAfterChanges(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if err := s.apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.edit(t, "main.cf", "compatibility_level=3.6\n", "compatibility_level=3.6\n# mine\nmessage_size_limit = 1000000\n")
	s.edit(t, "main.cf", "smtpd_recipient_restrictions = permit_mynetworks", "smtpd_recipient_restrictions = reject_invalid_helo_hostname, permit_mynetworks")
	settings, err := os.ReadFile(s.Policyd.Config)
	if err == nil {
		err = os.WriteFile(s.Policyd.Config, append(settings, "dns-timeout = \"3s\"\n"...), 0o640)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.edit(t, "master.cf", "cleanup   unix", "relay unix - - y - - smtp\ncleanup   unix")
	s.edit(t, "master.cf", "-o smtpd_sasl_auth_enable=yes", "-o smtpd_sasl_auth_enable=yes\n    -o smtpd_tls_auth_only=yes")
	if err := s.Undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	now, err := ReadPostfix(t.Context(), s.ConfigDirectory)
	if err != nil {
		t.Fatal(err)
	}
	want := "reject_invalid_helo_hostname, permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination, check_policy_service inet:127.0.0.1:10023"
	if got := now.value("smtpd_recipient_restrictions"); got != want {
		t.Errorf("recipient restrictions are %q, want %q", got, want)
	}
	if now.value("message_size_limit") != "1000000" || !strings.Contains(now.value("smtpd_milters"), "8891") {
		t.Errorf("size limit %s, milters %s", now.value("message_size_limit"), now.value("smtpd_milters"))
	}
	submission := now.services[slices.IndexFunc(now.services, func(s *Service) bool { return s.Name == "submission" })]
	if got := fmt.Sprint(submission.overrides); got != "map[smtpd_sasl_auth_enable:yes smtpd_sender_restrictions:$mua_sender_restrictions smtpd_tls_auth_only:yes]" {
		t.Errorf("submission has %s", got)
	}
	for _, name := range []string{"main.cf", "master.cf"} {
		if text, err := os.ReadFile(filepath.Join(s.ConfigDirectory, name)); err != nil || strings.Contains(string(text), "postern_") {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
	if text, err := os.ReadFile(s.Policyd.Config); err != nil || strings.Contains(string(text), "postern setup") || !strings.HasSuffix(string(text), "\ndns-timeout = \"3s\"\n") {
		t.Errorf("%v\n%s", err, text)
	}
	if said := strings.Join(s.said, "\n"); !strings.Contains(said, s.Policyd.Config+" was changed since: what setup has written is taken out, and what others have set stays: dns-timeout\n") {
		t.Errorf("undo said:\n%s", said)
	}
}

// A mistake that others have made since keeps no one from going back.
func TestUndoOfBrokenPostfix(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if err := s.apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.edit(t, "main.cf", "alias_maps =\n", "alias_maps =\ninet_interfaces = 203.0.113.99\n")
	if err := s.Undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(s.ConfigDirectory, "main.cf"))
	if err != nil || strings.Contains(string(text), s.Policy) || !strings.Contains(string(text), "203.0.113.99") {
		t.Errorf("%v\n%s", err, text)
	}
}

// Options of master.cf may have white space in their values, which postconf does not write.
func TestUndoRestoresSpacesAfterChanges(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const spaced = "check_sender_access inline:{a@example.org=OK}, check_policy_service { inet:127.0.0.1:10099, timeout=10s }, permit"
	s.edit(t, "master.cf", "$mua_sender_restrictions", spaced)
	if err := s.apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.edit(t, "master.cf", "-o smtpd_sasl_auth_enable=yes", "-o smtpd_sasl_auth_enable=yes\n    -o smtpd_tls_auth_only=yes")
	if err := s.Undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	now, err := ReadPostfix(t.Context(), s.ConfigDirectory)
	if err != nil {
		t.Fatal(err)
	}
	submission := now.services[slices.IndexFunc(now.services, func(s *Service) bool { return s.Name == "submission" })]
	want := map[string]string{"smtpd_sasl_auth_enable": "yes", "smtpd_tls_auth_only": "yes", "smtpd_sender_restrictions": spaced}
	if !maps.Equal(submission.overrides, want) {
		t.Errorf("submission has %q, want %q", submission.overrides, want)
	}
}

// What looks like setup's own and is not, it refuses to touch, with the difference.
func TestUndoRefuses(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if err := s.apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.edit(t, "main.cf", "compatibility_level=3.6\n", "compatibility_level=3.6\nsmtpd_data_restrictions = check_policy_service "+s.Policy+"\n")
	before := s.tree(t)
	err := s.Undo(t.Context())
	if err == nil || !strings.Contains(err.Error(), "\n+smtpd_data_restrictions = check_policy_service") {
		t.Errorf("got %v", err)
	}
	sameTree(t, before, s.tree(t))
}

// folderOf fails the test unless a folder has a mode and an owner.
func folderOf(t *testing.T, path string, mode fs.FileMode, uid uint32) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Sys().(*syscall.Stat_t).Uid; info.Mode().Perm() != mode || got != uid && os.Geteuid() == 0 {
		t.Errorf("%s has mode %04o and belongs to %d, want %04o and %d", path, info.Mode().Perm(), got, mode, uid)
	}
}

// Where the package has made no folders, the daemons read their settings beside the
// journals and beside keys that belong to one of them.
func TestNewFolders(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	private := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	etc := filepath.Join(s.dir, "root/etc")
	err = errors.Join(os.RemoveAll(filepath.Join(s.dir, "postern")), os.Mkdir(etc, 0o755),
		os.WriteFile(filepath.Join(etc, "mail.key"), private, 0o600),
		os.WriteFile(filepath.Join(etc, "opendkim.conf"), []byte("Domain example.org\nSelector mail\nKeyFile /etc/mail.key\n"), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	daemon, owner := uint32(0), uint32(os.Geteuid())
	if owner == 0 {
		s.User = "nobody"
		uid, _, ok := lookupUser(s.User)
		if !ok {
			t.Fatal("no user nobody")
		}
		daemon = uint32(uid)
	}
	s.Only = Milterd // its keys come before all other files
	folder, looked := filepath.Join(s.dir, "postern"), false
	s.step = func(name string) {
		if name == "check "+Milterd {
			looked = true
			folderOf(t, folder, 0o755, owner)
			folderOf(t, filepath.Join(folder, "dkim"), 0o700, daemon)
			folderOf(t, filepath.Join(folder, "dkim/example.org"), 0o700, daemon)
		}
	}
	before := s.tree(t)
	// Where the package is not installed the settings have no store, and are refused then.
	err = s.apply(t.Context())
	if err == nil {
		err = s.Undo(t.Context())
	}
	if !looked {
		t.Fatalf("the files are not written: %v", err)
	}
	sameTree(t, before, s.tree(t))

	journals := JournalsOf(filepath.Join(folder, "setup"), s.ConfigDirectory)
	unlock, err := journals.lock()
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	folderOf(t, folder, 0o755, owner)
	folderOf(t, journals.root, 0o700, owner)
}

// A setting that apply has written is known as such, until it is taken back.
func TestWrote(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	main := filepath.Join(s.ConfigDirectory, "main.cf")
	if err := os.WriteFile(main, []byte(fmt.Sprintf(siteMain, s.dir)+"\nvirtual_alias_maps = inline:{sales@example.org=alice}\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := postconf.Settle(s.ConfigDirectory); err != nil {
		t.Fatal(err)
	}
	if err := s.apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	found, err := s.Journals.Wrote("owner-aliases")
	if err != nil || len(found) == 0 || found[0].Path != s.Policyd.Config || !slices.Equal(found[0].Values, []string{"inline:{sales@example.org=alice}"}) {
		t.Errorf("found %v, %v", found, err)
	}
	if found, err := s.Journals.Wrote("greylist-store"); err != nil || len(found) > 0 { // the package's
		t.Errorf("found %v, %v", found, err)
	}
	if err := s.Undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	if found, err := s.Journals.Wrote("owner-aliases"); err != nil || len(found) > 0 {
		t.Errorf("found %v, %v", found, err)
	}
}

// A folder that is there keeps its owner and mode, whatever files are put in.
func TestFolderThatIsThere(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "dkim")
	if err := os.Mkdir(folder, 0o750); err != nil {
		t.Fatal(err)
	}
	w := written{Path: filepath.Join(folder, "new/key"), Folders: []string{folder, filepath.Join(folder, "new")}, After: content{Mode: 0o600, UID: 65534, GID: 65534}}
	if err := (&journal{Files: []written{w}}).makeFolders(); err != nil {
		t.Fatal(err)
	}
	folderOf(t, folder, 0o750, uint32(os.Geteuid()))
	folderOf(t, filepath.Join(folder, "new"), 0o700, 65534)
}

// A parameter that only what is replaced has named is taken out, or the new warning of
// Postfix would end the run. It comes back, also when someone has changed main.cf since.
func TestUnusedNamesComeBack(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.edit(t, "main.cf", "smtpd_milters = inet:127.0.0.1:8891", "signer = inet:127.0.0.1:8891\nsmtpd_milters = $signer")
	before := s.tree(t)
	if err := s.apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now, err := ReadPostfix(t.Context(), s.ConfigDirectory); err != nil || now.isSet("signer") {
		t.Errorf("signer is still set, %v", err)
	}
	if err := s.Undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	sameTree(t, before, s.tree(t))
	if err := s.apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.edit(t, "main.cf", "alias_maps =", "alias_maps =\nbiff = no")
	if err := s.Undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now, err := ReadPostfix(t.Context(), s.ConfigDirectory); err != nil || now.value("smtpd_milters") != "inet:127.0.0.1:8891" || now.main["smtpd_milters"] != "$signer" {
		t.Errorf("smtpd_milters is %q, %v", now.main["smtpd_milters"], err)
	}
}
