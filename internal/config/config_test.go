package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// settings is a small daemon with one flag of every kind.
type settings struct {
	Common
	checks    []string
	owners    []string
	onError   string
	deadline  time.Duration
	threshold int
	header    bool
	ratio     float64
	ports     []int
	domain    string
	store     string
}

func (c *settings) bind(fs *pflag.FlagSet) {
	fs.StringArrayVar(&c.owners, "owners", nil, "owner `map`")
	Words(fs, &c.checks, "checks", []string{"ownership", "dnsbl"}, "checks", "ownership", "dnsbl", "greylist")
	Choice(fs, &c.onError, "owners-on-error", "rule", "defer", "pass")
	Duration(fs, &c.deadline, "deadline", 8*time.Second, 100*time.Millisecond, 90*time.Second, "deadline")
	Duration(fs, new(time.Duration), "greylist-delay", 3*time.Minute, 0, 365*day, "delay")
	Int(fs, &c.threshold, "dnsbl-threshold", 1, -100, 100, "threshold")
	fs.BoolVar(&c.header, "greylist-header", false, "header")
	fs.Float64Var(&c.ratio, "ratio", 0.5, "ratio")
	fs.IntSliceVar(&c.ports, "ports", []int{25}, "ports")
	fs.StringVar(&c.domain, "login-domain", "", "domain")
	fs.StringVar(&c.store, "store", "memory:", "store")
	c.Common.Bind(fs, CommonDefaults{MetricsListen: "inet:127.0.0.1:9145", Admin: "unix:/run/postern/policyd.sock"})
}

func (c *settings) program(file string) Program {
	return Program{Name: "postern-policyd", EnvPrefix: "POSTERN_POLICYD_", DefaultFile: file, Bind: c.bind}
}

// load loads and validates like a daemon.
func (c *settings) load(file string, args, environ []string) (*Set, error) {
	s, err := Load(c.program(file), args, environ)
	if err != nil {
		return s, err
	}
	if c.store != "memory:" && !strings.HasPrefix(c.store, "sqlite:") {
		return s, s.Errorf("store", "%q is not a store", c.store)
	}
	return s, c.Validate(s)
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "policyd.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Every file of testdata/bad is refused with exactly the line beside it.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			want, err := os.ReadFile(strings.TrimSuffix(file, ".toml") + ".want")
			if err != nil {
				t.Fatal(err)
			}
			var c settings
			_, err = c.load("", []string{"--config", file}, nil)
			got := strings.TrimPrefix(fmt.Sprint(err), "testdata/bad/")
			if got != strings.TrimSuffix(string(want), "\n") {
				t.Errorf("\n got %s\nwant %s", got, want)
			}
			var e *Error
			if !errors.As(err, &e) || e.Origin.Level != File || e.Origin.Name != file {
				t.Errorf("not an *Error of the file: %#v", err)
			}
		})
	}
}

func TestPrecedence(t *testing.T) {
	file := write(t, "# policyd\ndeadline = \"5s\"\nowners = [\n\t\"hash:/file1\",\n\t\"hash:/file2\",\n]\n")
	env := []string{"HOME=/root", "POSTERN_POLICYD_DEADLINE=6s", "POSTERN_POLICYD_OWNERS=hash:/env1  inline:{a=b}"}
	args := []string{"--deadline=7s", "--owners", "hash:/flag"}
	tests := []struct {
		name                           string
		file                           string
		env, args                      []string
		deadline                       time.Duration
		owners                         []string
		deadlineOrigin, lastOwnerOrigi string
	}{
		{"default", "", nil, nil, 8 * time.Second, nil, "default", "default"},
		{"file", file, nil, nil, 5 * time.Second, []string{"hash:/file1", "hash:/file2"}, file + ":2", file + ":5"},
		{"environment", file, env, nil, 6 * time.Second, []string{"hash:/env1", "inline:{a=b}"}, "POSTERN_POLICYD_DEADLINE", "POSTERN_POLICYD_OWNERS"},
		{"flag", file, env, args, 7 * time.Second, []string{"hash:/flag"}, "--deadline", "--owners"},
		{"flag over file", file, nil, args, 7 * time.Second, []string{"hash:/flag"}, "--deadline", "--owners"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var c settings
			s, err := c.load(tt.file, tt.args, tt.env)
			if err != nil {
				t.Fatal(err)
			}
			if c.deadline != tt.deadline || !slices.Equal(c.owners, tt.owners) {
				t.Errorf("got %v, %q", c.deadline, c.owners)
			}
			if got := s.Origin("deadline").String(); got != tt.deadlineOrigin {
				t.Errorf("deadline from %s, want %s", got, tt.deadlineOrigin)
			}
			if got := s.originAt("owners", 1).String(); got != tt.lastOwnerOrigi {
				t.Errorf("second owner from %s, want %s", got, tt.lastOwnerOrigi)
			}
			if s.Changed("owners") != (tt.owners != nil) {
				t.Error("Changed is wrong")
			}
		})
	}
}

func TestValuesOfEveryKind(t *testing.T) {
	var c settings
	s, err := c.load(write(t, "\ufeff"+`
checks = ["greylist"]
owners = []
owners-on-error = "pass"
deadline = "1m30s"
dnsbl-threshold = -16
greylist-header = true
ratio = 1
ports = [25, 5_87]
login-domain = 'exämple.com' # comment
socket-mode = 0o600
resolver = ["::1", "127.0.0.1:5353"]
`), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.TrimSpace(fmt.Sprintln(c.checks, c.owners, c.onError, c.deadline, c.threshold, c.header, c.ratio, c.ports, c.domain, c.SocketMode, c.Resolvers))
	want := "[greylist] [] pass 1m30s -16 true 1 [25 587] exämple.com -rw------- [[::1]:53 127.0.0.1:5353]"
	if got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	if s.Origin("owners").Line != 3 {
		t.Errorf("an empty list has no origin: %v", s.Origin("owners"))
	}
}

func TestDefaults(t *testing.T) {
	var c settings
	if _, err := c.load(filepath.Join(t.TempDir(), "absent.toml"), nil, nil); err != nil {
		t.Fatal(err)
	}
	want := Common{
		DNSTimeout: 2 * time.Second, LogFormat: "json", LogLevel: "info", SocketMode: 0o660, AdminMode: 0o660, MaxConns: 2000, MaxHostConns: 1000,
		DrainTimeout: 30 * time.Second, MetricsListen: "inet:127.0.0.1:9145",
		Admin: "unix:/run/postern/policyd.sock", QueueDirectory: "/var/spool/postfix",
	}
	if got := fmt.Sprintf("%+v", c.Common); got != fmt.Sprintf("%+v", want) {
		t.Errorf("\n got %s\nwant %+v", got, want)
	}
}

func TestBadArgumentsAndEnvironment(t *testing.T) {
	dir := t.TempDir()
	big := filepath.Join(dir, "big.toml")
	if err := os.WriteFile(big, bytes.Repeat([]byte("#\n"), maxFileSize/2+1), 0o600); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name      string
		args, env []string
		want      string
	}{
		{"unknown flag", []string{"--greylist-dealy=3m"}, nil, "--greylist-dealy: unknown flag: did you mean --greylist-delay?"},
		{"shorthand", []string{"-c", "x"}, nil, "-c: unknown flag: flags have two dashes"},
		{"no value", []string{"--deadline"}, nil, "--deadline: needs a value"},
		{"no name", []string{"--=3m"}, nil, "command line: bad flag syntax: --=3m"},
		{"argument", []string{"start\n"}, nil, `command line: "start\n" is not a flag: settings are given as --name value`},
		{"bad flag value", []string{"--deadline", "soon"}, nil, `--deadline: "soon" is not a duration: write it as 90s, 3m, 12h, 35d or 1d12h`},
		{"bad bool", []string{"--greylist-header=yes"}, nil, `--greylist-header: "yes" is not a value of type bool: write true or false, without quotes`},
		{"control", []string{"--login-domain", "a\x00b"}, nil, "--login-domain: a value with a line break or another control character"},
		{"list", []string{"--ports", "25,x"}, nil, `--ports: strconv.Atoi: parsing "x": invalid syntax`},
		{"unknown variable", nil, []string{"POSTERN_POLICYD_GREYLIST_DEALY=3m"}, "POSTERN_POLICYD_GREYLIST_DEALY: unknown variable: did you mean POSTERN_POLICYD_GREYLIST_DELAY?"},
		{"lower case variable", nil, []string{"POSTERN_POLICYD_deadline=3s"}, "POSTERN_POLICYD_deadline: unknown variable: did you mean POSTERN_POLICYD_DEADLINE?"},
		{"run flag in environment", nil, []string{"POSTERN_POLICYD_VERSION=true"}, "POSTERN_POLICYD_VERSION: unknown variable"},
		{"bad variable value", nil, []string{"POSTERN_POLICYD_DNSBL_THRESHOLD="}, `POSTERN_POLICYD_DNSBL_THRESHOLD: "" is not a whole number`},
		{"absent file", []string{"--config", dir + "/absent"}, nil, "--config: cannot read " + dir + "/absent: no such file or directory"},
		{"absent file in environment", nil, []string{"POSTERN_POLICYD_CONFIG=" + dir + "/absent"}, "POSTERN_POLICYD_CONFIG: cannot read " + dir + "/absent: no such file or directory"},
		{"directory", []string{"--config", dir}, nil, "--config: " + dir + " is a directory: name a file"},
		{"fifo", []string{"--config", fifo}, nil, "--config: " + fifo + " is not a regular file: a reload could not read it again"},
		{"too large", []string{"--config", big}, nil, "--config: " + big + " is larger than 1048576 bytes"},
		{"redacted", []string{"--store=redis://u:p@ss@h"}, nil, `--store: "redis://u:***@h" is not a store`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var c settings
			_, err := c.load("", tt.args, tt.env)
			if fmt.Sprint(err) != tt.want {
				t.Errorf("\n got %v\nwant %s", err, tt.want)
			}
			var e *Error
			if !errors.As(err, &e) {
				t.Errorf("%T is no *Error", err)
			}
		})
	}
}

// A lower level is checked although a higher one overrides it. All mistakes are
// reported together, each on a line, up to the bound.
func TestAllErrorsAreReported(t *testing.T) {
	var c settings
	_, err := c.load(write(t, "deadline = 1\nbogus = 2\n"), []string{"--deadline=9s"}, []string{"POSTERN_POLICYD_DEADLINE=x"})
	if lines := strings.Split(fmt.Sprint(err), "\n"); len(lines) != 3 {
		t.Errorf("got %q", lines)
	}
	var text strings.Builder
	for i := range 100 {
		fmt.Fprintf(&text, "bogus%d = 1\n", i)
	}
	_, err = c.load(write(t, text.String()), nil, nil)
	lines := strings.Split(fmt.Sprint(err), "\n")
	if len(lines) != maxErrors+1 || lines[maxErrors] != "and 80 more errors" {
		t.Errorf("got %q", lines)
	}
}

// A Service called postern-policyd puts these into every pod.
func TestKubernetesServiceLinksAreNoSettings(t *testing.T) {
	var c settings
	_, err := c.load("", nil, []string{
		"POSTERN_POLICYD_SERVICE_HOST=10.0.0.1", "POSTERN_POLICYD_SERVICE_PORT=10045", "POSTERN_POLICYD_SERVICE_PORT_POLICY=10045",
		"POSTERN_POLICYD_PORT=tcp://10.0.0.1:10045", "POSTERN_POLICYD_PORT_10045_TCP=tcp://10.0.0.1:10045",
		"POSTERN_POLICYD_PORT_10045_TCP_PROTO=tcp", "POSTERN_POLICYD_PORT_10045_TCP_PORT=10045", "POSTERN_POLICYD_PORT_10045_TCP_ADDR=10.0.0.1",
	})
	if err != nil {
		t.Error(err)
	}
}

func TestEmptyValues(t *testing.T) {
	var c settings
	_, err := c.load(write(t, `admin = "unix:/x"`), []string{"--checks=", "--metrics-listen="}, []string{"POSTERN_POLICYD_ADMIN=", "POSTERN_POLICYD_OWNERS="})
	if err != nil {
		t.Fatal(err)
	}
	if c.Admin != "" || c.MetricsListen != "" || len(c.checks) != 0 || len(c.owners) != 0 {
		t.Errorf("got %q %q %q %q", c.Admin, c.MetricsListen, c.checks, c.owners)
	}
}

func TestNoFile(t *testing.T) {
	broken := write(t, "broken")
	for _, none := range []string{"", os.DevNull} {
		var c settings
		s, err := c.load(broken, []string{"--config", none}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if s.File() != none {
			t.Errorf("File is %q", s.File())
		}
	}
}

func TestHelpVersionAndCheck(t *testing.T) {
	broken := write(t, "broken")
	var c settings
	s, err := c.load(broken, []string{"--help"}, nil)
	if !errors.Is(err, ErrHelp) {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := s.WriteUsage(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Usage: postern-policyd [flags]", "--owners-on-error defer|pass", "POSTERN_POLICYD_OWNERS", "--config", "(default 8s)"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if _, err := c.load(broken, []string{"--version"}, nil); !errors.Is(err, ErrVersion) {
		t.Error(err)
	}
	s, err = c.load("", []string{"--check-config"}, nil)
	if err != nil || !s.CheckOnly() {
		t.Error(s.CheckOnly(), err)
	}
}

// The output of --check-config is a file with the same settings.
func TestDescribeRoundTrip(t *testing.T) {
	var c settings
	file := write(t, `login-domain = "a\\b\"c"`+"\n")
	s, err := c.load(file, []string{"--owners=hash:/a", "--owners=inline:{ x=y, z=\t}", "--ports=1,2", "--checks="}, []string{"POSTERN_POLICYD_STORE=sqlite:/x"})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := s.Describe(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"deadline = \"8s\"  # default\n", "login-domain = \"a\\\\b\\\"c\"  # " + file + ":1\n", "socket-mode = \"0660\"  # default\n",
		"store = \"sqlite:/x\"  # POSTERN_POLICYD_STORE\n", "ports = [1, 2]  # --ports\n", "checks = []  # --checks\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	var again settings
	s2, err := again.load(write(t, out.String()), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprintf("%+v", c) != fmt.Sprintf("%+v", again) {
		t.Errorf("\n got %+v\nwant %+v", again, c)
	}
	var all []string
	s.settings(func(f *pflag.Flag) { all = append(all, f.Name) })
	if diff := s.ChangedFixed(s2, all...); len(diff) > 0 {
		t.Errorf("differ: %q", diff)
	}
}

func TestDescribeHidesSecrets(t *testing.T) {
	var c settings
	p := c.program("")
	p.Redact = func(s string) string { return strings.ReplaceAll(s, "dqskey", "***") }
	s, err := Load(p, []string{"--store=redis://u:hunter2@h/0", "--login-domain=dqskey.zen.dq.spamhaus.net"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := s.Describe(&out); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); strings.Contains(got, "hunter2") || strings.Contains(got, "dqskey") ||
		!strings.Contains(got, "redis://u:***@h/0") || !strings.Contains(got, `"***.zen.dq.spamhaus.net"`) {
		t.Error(got)
	}
	if err := s.Errorf("store", "cannot dial %s with dqskey", c.store).Error(); err != "--store: cannot dial redis://u:***@h/0 with ***" {
		t.Error(err)
	}
}

func TestErrorIsOneLine(t *testing.T) {
	var c settings
	s, err := c.load("", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	inner := fs.ErrNotExist
	e := s.Errorf("owners", "first\nsecond: %w", inner)
	if e.Error() != "--owners: first second: file does not exist" || !errors.Is(e, inner) {
		t.Error(e)
	}
	if e := s.Errorf("nonsense", "x"); e.Error() != "--nonsense: (no such flag) x" {
		t.Error(e)
	}
}

func TestHidePasswords(t *testing.T) {
	for in, want := range map[string]string{
		"memory:":                               "memory:",
		"redis://h:6379/0":                      "redis://h:6379/0",
		"redis://user@h":                        "redis://user@h",
		"redis://:pw@h/0":                       "redis://:***@h/0",
		"x redis://u:p@h rediss://u:p@h y":      "x redis://u:***@h rediss://u:***@h y",
		"redis://u:a@b@h":                       "redis://u:***@h",
		`"postgres://u:p@h/d?password=x" a:b@c`: `"postgres://u:***@h/d?password=***" a:b@c`,
		"u?a=1&password=x&b=2 PASSWORD=y":       "u?a=1&password=***&b=2 PASSWORD=y",
		"://":                                   "://",
	} {
		if got := hidePasswords(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestChangedFixed(t *testing.T) {
	var a, b settings
	old, err := a.load("", []string{"--owners=x", "--owners=y", "--user=postern"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	now, err := b.load("", []string{"--owners=x y", "--user=postern", "--admin="}, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := now.ChangedFixed(old, "user", "owners", "admin", "deadline", "nonsense")
	if !slices.Equal(got, []string{"owners", "admin"}) {
		t.Errorf("got %q", got)
	}
	for _, name := range a.Fixed() {
		if old.Lookup(name) == nil {
			t.Errorf("%s is no flag", name)
		}
	}
}

func TestTooManyResolvers(t *testing.T) {
	var c settings
	_, err := c.load("", slices.Repeat([]string{"--resolver=127.0.0.1"}, maxResolvers+1), nil)
	if fmt.Sprint(err) != "--resolver: 9 resolvers: at most 8 are used" {
		t.Error(err)
	}
}
