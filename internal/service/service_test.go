package service

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/daemon"
)

// gate is a daemon that answers each line with the word of its settings. The
// line "hold" is answered when the test lets it.
type gate struct {
	current *Current[*gateState]
	defect  atomic.Bool   // the handler panics
	held    chan struct{} // gets a token when a line is held
	release chan struct{}
	files   []string // that a state names for the watcher
	// Build takes two tokens, one when it begins and one when it ends; nil: none.
	building chan struct{}

	mu    sync.Mutex
	ended []string // words of the states
}

func newGate() *gate {
	return &gate{held: make(chan struct{}), release: make(chan struct{})}
}

func (*gate) Name() string   { return "gated" }
func (*gate) Daemon() string { return "gate" }

type gateSettings struct {
	common config.Common
	set    *config.Set
	gate   *gate
	listen string
	word   string
	broken bool
}

func (g *gate) Configure(args, environ []string) (Settings[*gateState], error) {
	s := &gateSettings{gate: g}
	var err error
	s.set, err = config.Load(config.Program{Name: g.Name(), EnvPrefix: "GATED_", Bind: func(fs *pflag.FlagSet) {
		fs.StringVar(&s.listen, "listen", "", "`endpoint`")
		fs.StringVar(&s.word, "word", "hello", "the answer")
		fs.BoolVar(&s.broken, "broken", false, "cannot be built")
		s.common.Bind(fs, config.CommonDefaults{})
	}}, args, environ)
	if err == nil && s.word == "" {
		err = errors.Join(s.set.Errorf("word", "empty"), s.set.Errorf("listen", "nothing to say"))
	}
	return s, err
}

func (g *gate) Start(_ Runtime, current *Current[*gateState]) Traffic {
	g.current = current
	return Traffic{
		Handler: g.serve,
		Ask:     g.ask,
		Commands: map[string]admin.Handler{
			"word": admin.Typed(func(context.Context, struct{}, func(any)) (any, error) { return g.word(), nil }),
		},
	}
}

func (g *gate) serve(_ context.Context, conn *daemon.Conn) {
	lines := bufio.NewScanner(conn)
	for conn.Idle() && lines.Scan() && conn.Busy() {
		if lines.Text() == "hold" {
			g.held <- struct{}{}
			<-g.release
		}
		if g.defect.Load() {
			panic("the gate is unhinged")
		}
		fmt.Fprintln(conn, g.word())
	}
}

// ask is the gate's question to itself.
func (g *gate) ask(conn net.Conn) error {
	if _, err := io.WriteString(conn, "self\n"); err != nil {
		return err
	}
	_, err := bufio.NewReader(conn).ReadString('\n')
	return err
}

func (g *gate) word() string {
	s, release := g.current.Acquire()
	defer release()
	return s.word
}

func (s *gateSettings) Set() *config.Set       { return s.set }
func (s *gateSettings) Common() *config.Common { return &s.common }
func (*gateSettings) Fixed() []string          { return []string{"listen"} }

func (s *gateSettings) Sockets() ([]daemon.Socket, error) {
	socket, err := Socket(s, "--listen", s.listen)
	return []daemon.Socket{socket}, err
}

func (s *gateSettings) Build(l *Life, _ Runtime) (*gateState, error) {
	if s.gate.building != nil {
		<-s.gate.building
		<-s.gate.building
	}
	if s.broken {
		return nil, s.set.Errorf("broken", "the gate is broken: fix it")
	}
	l.Watch(s.gate.files...)
	l.OnEnd(func() error {
		s.gate.mu.Lock()
		defer s.gate.mu.Unlock()
		s.gate.ended = append(s.gate.ended, s.word)
		if s.word == "lossy" {
			return errors.New("two words were not said")
		}
		return nil
	})
	return &gateState{s.word}, nil
}

type gateState struct{ word string }

// process is a daemon that runs in the test.
type process struct {
	gate    *gate
	dir     string
	args    []string
	signals chan os.Signal
	states  chan string // first words of what the service manager hears
	status  chan int

	watchdog time.Duration

	wrote chan struct{} // has a token when something was written to the log

	mu  sync.Mutex
	log bytes.Buffer
}

// Write is the daemon's standard error.
func (p *process) Write(line []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case p.wrote <- struct{}{}:
	default:
	}
	return p.log.Write(line)
}

func (p *process) logged() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

func (p *process) path(name string) string { return filepath.Join(p.dir, name) }

// newProcess has a configuration file that says word = "file".
func newProcess(t *testing.T, args ...string) *process {
	t.Helper()
	dir, err := os.MkdirTemp("", "gate") // short: a unix socket's path has 107 octets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &process{
		gate:    newGate(),
		dir:     dir,
		signals: make(chan os.Signal, 8),
		states:  make(chan string, 64),
		status:  make(chan int, 1),
		wrote:   make(chan struct{}, 1),
	}
	p.args = append([]string{
		"--config=" + p.path("conf"), "--listen=unix:" + p.path("sock"),
		"--metrics-listen=unix:" + p.path("metrics"), "--admin=unix:" + p.path("admin"),
	}, args...)
	p.configure(t, `word = "file"`)
	return p
}

func (p *process) configure(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(p.path("new"), []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(p.path("new"), p.path("conf")); err != nil {
		t.Fatal(err)
	}
}

// start returns when the daemon says that it serves.
func (p *process) start(t *testing.T) {
	t.Helper()
	go p.main()
	p.hears(t, "READY=1")
}

// main runs the daemon to its end.
func (p *process) main() {
	p.status <- Main(p.gate, Process{
		Args: p.args, Stdout: io.Discard, Stderr: p, Signals: p.signals,
		Notifier: daemon.Notifier{Watchdog: p.watchdog, Send: func(state string) error {
			first, _, _ := strings.Cut(state, "\n")
			p.states <- first
			return nil
		}},
	})
}

// hears waits for the next word to the service manager.
func (p *process) hears(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-p.states:
		if got != want {
			t.Fatalf("the service manager hears %q, want %q\n%s", got, want, p.logged())
		}
	case status := <-p.status:
		t.Fatalf("ended with %d before %q\n%s", status, want, p.logged())
	}
}

// reload sends SIGHUP and returns when it has been dealt with.
func (p *process) reload(t *testing.T) {
	t.Helper()
	p.signals <- syscall.SIGHUP
	p.hears(t, "RELOADING=1")
	p.hears(t, "READY=1")
}

// stop ends the daemon.
func (p *process) stop(t *testing.T) {
	t.Helper()
	p.signals <- syscall.SIGTERM
	for state := range p.states {
		if state == "STOPPING=1" {
			break
		}
	}
	if status := <-p.status; status != daemon.ExitOK {
		t.Errorf("exit status %d\n%s", status, p.logged())
	}
}

func (p *process) dial(t *testing.T) *bufio.ReadWriter {
	t.Helper()
	conn, err := net.Dial("unix", p.path("sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
}

func say(t *testing.T, conn *bufio.ReadWriter, line string) {
	t.Helper()
	fmt.Fprintln(conn, line)
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
}

func answer(t *testing.T, conn *bufio.ReadWriter) string {
	t.Helper()
	line, err := conn.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(line, "\n")
}

// dialling goes to a unix socket whatever the address is.
func dialling(path string) *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}
}

// get asks the metrics server.
func (p *process) get(t *testing.T, path string) (status int, body string) {
	t.Helper()
	transport := dialling(p.path("metrics"))
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Get("http://gate" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

func (p *process) adminWord(ctx context.Context) (word string, err error) {
	err = admin.Client{Path: p.path("admin"), Daemon: "gated"}.Call(ctx, "word", nil, &word, nil)
	return word, err
}

func (p *process) adminReady(ctx context.Context) (answer api.ReadyResult, err error) {
	err = admin.Client{Path: p.path("admin"), Daemon: "gated"}.Call(ctx, api.Ready, nil, &answer, nil)
	return answer, err
}

func TestMainPrints(t *testing.T) {
	tests := []struct {
		name           string
		args           []string
		status         int
		stdout, stderr []string // parts
	}{
		{name: "help", args: []string{"--help"}, stdout: []string{"--listen", "--word", "--drain-timeout", "--check-config"}},
		{name: "version", args: []string{"--version"}, stdout: []string{"gated " + version}},
		{name: "check-config", args: []string{"--check-config", "--listen=unix:/run/x", "--word=hi"},
			stdout: []string{`word = "hi"  # --word`, `listen = "unix:/run/x"`, `drain-timeout = "30s"  # default`}},
		{name: "unknown flag", args: []string{"--wrod=hi"}, status: config.ExitConfig, stderr: []string{"gated: --wrod", "did you mean --word"}},
		{name: "each mistake has its line", args: []string{"--word=", "--listen=unix:/run/x"}, status: config.ExitConfig,
			stderr: []string{"gated: --word: empty\ngated: --listen: nothing to say\n"}},
		{name: "an endpoint that is none", args: []string{"--listen=tcp:1"}, status: config.ExitConfig, stderr: []string{"gated: --listen: "}},
		{name: "checked like run", args: []string{"--check-config", "--listen=tcp:1"}, status: config.ExitConfig, stderr: []string{"gated: --listen: "}},
		{name: "words behind a common endpoint", args: []string{"--check-config", "--listen=unix:/run/x", "--admin=unix:/run/a=word"}, status: config.ExitConfig,
			stderr: []string{"gated: --admin: unix:/run/a=word: nothing may follow the address\n"}},
		{name: "a state that cannot be built", args: []string{"--check-config", "--listen=unix:/run/x", "--broken"}, status: config.ExitConfig,
			stderr: []string{"gated: --broken: the gate is broken: fix it\n"}},
		{name: "an unknown user", args: []string{"--check-config", "--listen=unix:/run/x", "--user=no-such-user"}, status: config.ExitConfig,
			stderr: []string{"gated: --user: "}},
		{name: "a folder that is not there", args: []string{"--listen=unix:/nowhere/x"}, status: daemon.ExitTransient, stderr: []string{"/nowhere"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := Main(newGate(), Process{Args: tt.args, Stdout: &stdout, Stderr: &stderr})
			if status != tt.status || (status == 0) != (stderr.Len() == 0) {
				t.Errorf("exit status %d, want %d; standard error: %s", status, tt.status, &stderr)
			}
			for _, want := range tt.stdout {
				if !strings.Contains(stdout.String(), want) {
					t.Errorf("%q is missing in:\n%s", want, &stdout)
				}
			}
			for _, want := range tt.stderr {
				if !strings.Contains(stderr.String(), want) {
					t.Errorf("%q is missing in:\n%s", want, &stderr)
				}
			}
		})
	}
}

// A start that fails for a path which the unit hides says how to show it.
func TestHiddenPath(t *testing.T) {
	for _, tt := range []struct {
		file, environ string
		want          bool
	}{
		{"/home/nobody/gate.log", "INVOCATION_ID=4f6e", true},
		{"/home/nobody/gate.log", "HOME=/root", false},
		{"/nowhere/gate.log", "INVOCATION_ID=4f6e", false},
	} {
		var stderr bytes.Buffer
		args := []string{"--listen=unix:" + filepath.Join(t.TempDir(), "s"), "--metrics-listen=", "--admin=", "--log-file=" + tt.file}
		Main(newGate(), Process{Args: args, Environ: []string{tt.environ}, Stdout: io.Discard, Stderr: &stderr})
		if !strings.Contains(stderr.String(), tt.file) || strings.Contains(stderr.String(), "BindReadOnlyPaths=FOLDER") != tt.want {
			t.Errorf("%s, %s: %s", tt.file, tt.environ, &stderr)
		}
	}
}

func TestPrintingFails(t *testing.T) {
	for _, arg := range []string{"--help", "--version", "--check-config"} {
		status := Main(newGate(), Process{Args: []string{arg, "--listen=unix:/run/x"}, Stdout: full{}, Stderr: io.Discard})
		if status != daemon.ExitFailed {
			t.Errorf("%s: exit status %d", arg, status)
		}
	}
}

// full is a disk.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestCheckReleasesItsState(t *testing.T) {
	g := newGate()
	Main(g, Process{Args: []string{"--check-config", "--listen=unix:/run/x"}, Stdout: io.Discard, Stderr: io.Discard})
	if len(g.ended) != 1 || g.current != nil {
		t.Errorf("ended %q, in force %v", g.ended, g.current)
	}
}

// A daemon that cannot start leaves nothing behind, and prints the fix.
func TestStartFailsWhole(t *testing.T) {
	tests := []struct {
		name   string
		args   []string
		status int
		want   string
	}{
		{"a state that cannot be built", []string{"--broken"}, config.ExitConfig, "gated: --broken: the gate is broken: fix it\n"},
		{"a log that cannot be opened", []string{"--log-file=/"}, config.ExitConfig, "gated: --log-file: open log: open /: "},
		{"a log whose folder is not there yet", []string{"--log-file=/nowhere/log"}, daemon.ExitTransient, "gated: --log-file: open log: open /nowhere/log: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newProcess(t, tt.args...)
			status := Main(p.gate, Process{Args: p.args, Stdout: io.Discard, Stderr: p})
			if status != tt.status || !strings.Contains(p.logged(), tt.want) {
				t.Errorf("exit status %d: %s", status, p.logged())
			}
			for _, name := range []string{"sock", "metrics", "admin"} {
				if _, err := os.Stat(p.path(name)); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("socket %s is left: %v", name, err)
				}
			}
		})
	}
}

// The mode and group of Postfix's socket do not apply to the admin socket.
func TestAdminSocketHasItsOwnMode(t *testing.T) {
	group, gid := "nogroup", os.Getegid()
	if os.Getuid() != 0 {
		group = strconv.Itoa(gid)
	}
	for _, tt := range []struct {
		args []string
		mode os.FileMode
	}{
		{[]string{"--socket-mode=0666", "--socket-group=" + group}, 0o660},
		{[]string{"--socket-mode=0666", "--admin-mode=0600", "--admin-group=" + strconv.Itoa(gid)}, 0o600},
	} {
		p := newProcess(t, tt.args...)
		p.start(t)
		if info, err := os.Stat(p.path("sock")); err != nil || info.Mode().Perm() != 0o666 {
			t.Errorf("%v: Postfix's socket: %v, %v", tt.args, info, err)
		}
		info, err := os.Stat(p.path("admin"))
		if err != nil {
			t.Fatal(err)
		}
		if got := int(info.Sys().(*syscall.Stat_t).Gid); info.Mode().Perm() != tt.mode || got != gid {
			t.Errorf("%v: the admin socket has mode %v and group %d", tt.args, info.Mode(), got)
		}
		p.stop(t)
	}
}

func TestAddressInUse(t *testing.T) {
	first := newProcess(t)
	first.start(t)
	defer first.stop(t)
	second := newProcess(t, "--listen=unix:"+first.path("sock"))
	if status := Main(second.gate, Process{Args: second.args, Stdout: io.Discard, Stderr: second}); status != daemon.ExitTransient {
		t.Errorf("exit status %d", status)
	}
	if log := second.logged(); !strings.Contains(log, "--listen") || strings.Count(log, "\n") != 1 {
		t.Errorf("printed %q", log)
	}
	conn := first.dial(t)
	say(t, conn, "are you still there?")
	if got := answer(t, conn); got != "file" {
		t.Errorf("the first one answers %q", got)
	}
}

func TestReload(t *testing.T) {
	p := newProcess(t)
	p.start(t)
	conn := p.dial(t)
	ask := func(want string) {
		t.Helper()
		say(t, conn, "")
		if got := answer(t, conn); got != want {
			t.Errorf("answers %q, want %q", got, want)
		}
	}
	ask("file")

	p.configure(t, `word = "second"`)
	p.reload(t)
	ask("second")
	if got, err := p.adminWord(t.Context()); got != "second" || err != nil {
		t.Errorf("the admin socket answers %q, %v", got, err)
	}
	p.wantMetric(t, "postern_config_reload_failed 0")

	for _, text := range []string{`wrod = "third"`, "word = \"third\"\nbroken = true", `word = `} {
		p.configure(t, text)
		p.reload(t)
		ask("second")
		p.wantMetric(t, "postern_config_reload_failed 1")
	}

	p.configure(t, `word = "fourth"`)
	p.reload(t)
	ask("fourth")
	p.wantMetric(t, "postern_config_reload_failed 0")
	p.stop(t)
	for _, want := range []string{"conf:1: unknown key wrod", "conf:2: broken: the gate is broken: fix it"} {
		if !strings.Contains(p.logged(), want) {
			t.Errorf("%q is not in the log:\n%s", want, p.logged())
		}
	}
}

func (p *process) wantMetric(t *testing.T, line string) {
	t.Helper()
	if _, text := p.get(t, "/metrics"); !strings.Contains(text, line+"\n") {
		t.Errorf("/metrics has no line %q", line)
	}
}

// Settings that a reload cannot change are named as long as the file and the
// daemon differ, and no longer.
func TestReloadNamesWhatIsFixed(t *testing.T) {
	p := newProcess(t)
	p.args = p.args[:2] // without those of metrics and admin
	p.configure(t, `drain-timeout = "30s"`)
	p.start(t)
	for _, text := range []string{
		"drain-timeout = \"10s\"\nlog-format = \"console\"",
		"drain-timeout = \"10s\"\nword = \"new\"",
		"drain-timeout = \"30s\"",
	} {
		p.configure(t, text)
		p.reload(t)
	}
	p.stop(t)
	var warned []string
	for line := range strings.Lines(p.logged()) {
		if _, list, ok := strings.Cut(line, `"msg":"settings that need a restart were changed","settings":`); ok {
			warned = append(warned, strings.TrimSpace(list))
		}
	}
	want := []string{`["log-format","drain-timeout"]}`, `["drain-timeout"]}`}
	if !slices.Equal(warned, want) {
		t.Errorf("warned of %q, want %q\n%s", warned, want, p.logged())
	}
}

// The settings in force can be asked, beside those that are configured and are
// not: what needs a restart, and what a refused reload left out. The log lists
// what a reload changed.
func TestSettingsCanBeAsked(t *testing.T) {
	p := newProcess(t)
	p.start(t)
	ask := func() map[string]api.Setting {
		t.Helper()
		var answer api.ConfigResult
		if err := (admin.Client{Path: p.path("admin"), Daemon: "gated"}).Call(t.Context(), api.Config, struct{}{}, &answer, nil); err != nil {
			t.Fatal(err)
		}
		all := map[string]api.Setting{"refused": {Value: answer.Refused}}
		for _, s := range answer.Settings {
			all[s.Name] = s
		}
		return all
	}
	want := func(all map[string]api.Setting, s api.Setting) {
		t.Helper()
		if all[s.Name] != s {
			t.Errorf("%+v, want %+v", all[s.Name], s)
		}
	}
	at := func(line int) string { return fmt.Sprintf("%s:%d", p.path("conf"), line) }
	all := ask()
	want(all, api.Setting{Name: "word", Value: `"file"`, Origin: at(1)})
	want(all, api.Setting{Name: "broken", Value: "false", Origin: "default"})

	p.configure(t, "drain-timeout = \"10s\"\nword = \"second\"")
	want(ask(), api.Setting{Name: "word", Value: `"file"`, Origin: at(1), Pending: `"second"`, PendingOrigin: at(2)})
	p.reload(t)
	all = ask()
	want(all, api.Setting{Name: "word", Value: `"second"`, Origin: at(2)})
	want(all, api.Setting{Name: "drain-timeout", Value: `"30s"`, Origin: "default", Pending: `"10s"`, PendingOrigin: at(1), Restart: true})

	p.configure(t, "word = \"third\"\nbroken = true")
	p.reload(t)
	all = ask()
	want(all, api.Setting{Name: "word", Value: `"second"`, Origin: at(2), Pending: `"third"`, PendingOrigin: at(1)})
	if !strings.Contains(all["refused"].Value, "the gate is broken") {
		t.Errorf("refused %q", all["refused"].Value)
	}
	p.configure(t, `wrod = "third"`)
	if got := ask()["refused"].Value; !strings.Contains(got, "unknown key wrod") {
		t.Errorf("refused %q", got)
	}
	p.stop(t)
	if !strings.Contains(p.logged(), `"settings":["word: \"file\" → \"second\" (`+at(2)+`)","drain-timeout: `) {
		t.Errorf("the log does not list what was changed:\n%s", p.logged())
	}
}

// A setting of the file that a flag overrides is reported, at start and by
// --check-config.
func TestOverriddenSettingIsLogged(t *testing.T) {
	p := newProcess(t)
	p.configure(t, "word = \"file\"\nlisten = \"unix:/run/other\"")
	text := p.path("conf") + ":2: listen has no effect: --listen beats it"
	p.start(t)
	p.stop(t)
	if strings.Count(p.logged(), text) != 1 {
		t.Errorf("the log does not say so:\n%s", p.logged())
	}
	var stderr bytes.Buffer
	if status := Main(p.gate, Process{Args: append(p.args, "--check-config"), Stdout: io.Discard, Stderr: &stderr}); status != daemon.ExitOK || !strings.Contains(stderr.String(), text) {
		t.Errorf("exit status %d: %s", status, &stderr)
	}
	p.args[1] = "--listen=systemd:gate" // as a unit has it: where that is, only the daemon knows
	stderr.Reset()
	if status := Main(p.gate, Process{Args: append(p.args, "--check-config"), Stdout: io.Discard, Stderr: &stderr}); status != daemon.ExitOK || strings.Contains(stderr.String(), "has no effect") {
		t.Errorf("exit status %d: %s", status, &stderr)
	}
}

// A file that every user may change is reported, at start and by --check-config.
func TestExposedFileIsLogged(t *testing.T) {
	p := newProcess(t)
	p.configure(t, "word = \"file\"")
	if err := os.Chmod(p.path("conf"), 0o666); err != nil {
		t.Fatal(err)
	}
	text := p.path("conf") + " has mode 0666; chmod o-w " + p.path("conf")
	p.start(t)
	p.stop(t)
	if strings.Count(p.logged(), text) != 1 {
		t.Errorf("the log does not say so:\n%s", p.logged())
	}
	var stderr bytes.Buffer
	if status := Main(p.gate, Process{Args: append(p.args, "--check-config"), Stdout: io.Discard, Stderr: &stderr}); status != daemon.ExitOK || !strings.Contains(stderr.String(), text) {
		t.Errorf("exit status %d: %s", status, &stderr)
	}
}

// A file that was read is followed; the reload is that of SIGHUP. (The file is
// so new that the watcher may take it for changed since the start.)
func TestFileChange(t *testing.T) {
	p := newProcess(t)
	p.gate.files = []string{p.path("conf")}
	p.start(t)
	conn := p.dial(t)
	p.configure(t, `word = "changed"`)
	for got := ""; got != "changed"; {
		p.hears(t, "RELOADING=1")
		p.hears(t, "READY=1")
		say(t, conn, "")
		got = answer(t, conn)
	}
	p.stop(t)
	if !strings.Contains(p.logged(), `"cause":"file change"`) {
		t.Errorf("the log does not say why:\n%s", p.logged())
	}
}

// More files than can be watched are logged, and are no reason to refuse mail.
// SIGHUP still works.
func TestFilesThatCannotBeWatched(t *testing.T) {
	p := newProcess(t)
	for i := range 2000 {
		p.gate.files = append(p.gate.files, p.path(fmt.Sprint("table", i)))
	}
	p.start(t)
	p.configure(t, `word = "changed"`)
	p.reload(t)
	conn := p.dial(t)
	say(t, conn, "")
	if got := answer(t, conn); got != "changed" {
		t.Errorf("answers %q", got)
	}
	p.stop(t)
	if !strings.Contains(p.logged(), "files are not watched, reload with SIGHUP after a change") {
		t.Errorf("the log does not say so:\n%s", p.logged())
	}
}

func TestLogIsReopened(t *testing.T) {
	p := newProcess(t)
	p.args = append(p.args, "--log-file="+p.path("log"))
	p.start(t)
	if err := os.Rename(p.path("log"), p.path("log.1")); err != nil {
		t.Fatal(err)
	}
	p.reload(t)
	p.stop(t)
	rotated, current := read(t, p.path("log.1")), read(t, p.path("log"))
	if !strings.Contains(rotated, `"msg":"started"`) || strings.Contains(current, `"msg":"started"`) {
		t.Errorf("the rotated file:\n%s", rotated)
	}
	if !strings.Contains(current, `"cause":"SIGHUP"`) {
		t.Errorf("the new file:\n%s", current)
	}
	if p.logged() != "" {
		t.Errorf("standard error: %s", p.logged())
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// On SIGTERM the request in hand is answered, idle connections are closed, and
// metrics and admin can be asked until the traffic has ended.
func TestDrain(t *testing.T) {
	p := newProcess(t)
	p.start(t)
	if status, text := p.get(t, "/readyz"); status != http.StatusOK {
		t.Errorf("before: %d %s", status, text)
	}
	if answer, err := p.adminReady(t.Context()); err != nil || !answer.Ready {
		t.Errorf("before, the admin socket says: %+v, %v", answer, err)
	}
	idle, busy := p.dial(t), p.dial(t)
	say(t, idle, "")
	answer(t, idle)
	say(t, busy, "hold")
	<-p.gate.held

	p.signals <- syscall.SIGTERM
	p.hears(t, "STOPPING=1")
	if line, err := idle.ReadString('\n'); !errors.Is(err, io.EOF) {
		t.Errorf("the idle connection gets %q, %v", line, err)
	}
	if _, err := net.Dial("unix", p.path("sock")); err == nil {
		t.Error("a new connection is accepted")
	}
	for {
		status, _ := p.get(t, "/readyz")
		if status == http.StatusServiceUnavailable {
			break
		}
	}
	if answer, err := p.adminReady(t.Context()); err != nil || answer.Ready || !strings.Contains(answer.Report, "not draining: failing\n") {
		t.Errorf("while draining the admin socket says: %+v, %v", answer, err)
	}
	if got, err := p.adminWord(t.Context()); got != "file" || err != nil {
		t.Errorf("while draining the admin socket answers %q, %v", got, err)
	}
	select {
	case status := <-p.status:
		t.Fatalf("ended with %d before the request in hand was answered", status)
	default:
	}

	p.gate.release <- struct{}{}
	if got := answer(t, busy); got != "file" {
		t.Errorf("the request in hand is answered with %q", got)
	}
	if status := <-p.status; status != daemon.ExitOK {
		t.Errorf("exit status %d\n%s", status, p.logged())
	}
	for _, name := range []string{"sock", "metrics", "admin"} {
		if _, err := os.Stat(p.path(name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("socket %s is left: %v", name, err)
		}
	}
}

// A request that never ends is cut when the drain time is over.
func TestDrainTimesOut(t *testing.T) {
	p := newProcess(t, "--drain-timeout=10ms")
	p.start(t)
	conn := p.dial(t)
	say(t, conn, "hold")
	<-p.gate.held
	p.signals <- syscall.SIGTERM
	p.hears(t, "STOPPING=1")
	if _, err := conn.ReadString('\n'); err == nil {
		t.Error("the connection is still open")
	}
	close(p.gate.release) // the handler returns once its connection is cut
	if status := <-p.status; status != daemon.ExitOK {
		t.Errorf("exit status %d\n%s", status, p.logged())
	}
	if !strings.Contains(p.logged(), `"connections":1`) {
		t.Errorf("the log does not say that a connection was cut:\n%s", p.logged())
	}
}

// The state in force is closed at the end, and each one before it when it was
// replaced. What the last one loses shows in the exit status.
func TestLastStateIsClosed(t *testing.T) {
	p := newProcess(t)
	p.start(t)
	p.configure(t, `word = "lossy"`)
	p.reload(t)
	p.signals <- syscall.SIGTERM
	if status := <-p.status; status != daemon.ExitFailed {
		t.Errorf("exit status %d", status)
	}
	if want := []string{"file", "lossy"}; !slices.Equal(p.gate.ended, want) {
		t.Errorf("ended %q, want %q", p.gate.ended, want)
	}
	if !strings.Contains(p.logged(), `"error":"two words were not said"`) {
		t.Errorf("the log does not say what was lost:\n%s", p.logged())
	}
}

// A handler that panics ends its connection, not the daemon.
func TestPanicIsReported(t *testing.T) {
	p := newProcess(t)
	p.start(t)
	p.gate.defect.Store(true)
	conn := p.dial(t)
	say(t, conn, "")
	if line, err := conn.ReadString('\n'); !errors.Is(err, io.EOF) {
		t.Errorf("got %q, %v", line, err)
	}
	p.gate.defect.Store(false)
	p.reload(t)
	conn = p.dial(t)
	say(t, conn, "")
	if got := answer(t, conn); got != "file" {
		t.Errorf("answers %q", got)
	}
	p.stop(t)
	if !strings.Contains(p.logged(), `"stack":"`) {
		t.Errorf("no stack in the log:\n%s", p.logged())
	}
}

// The watchdog question takes the way of the clients: a bug there is noticed, but
// a full server still answers.
func TestWatchdogAsksTheHandler(t *testing.T) {
	const most = 16
	p := newProcess(t, "--max-connections="+strconv.Itoa(most))
	p.watchdog = 20 * time.Millisecond
	p.start(t)
	var busy []*bufio.ReadWriter
	for range most {
		busy = append(busy, p.dial(t))
		say(t, busy[len(busy)-1], "hold")
		<-p.gate.held
	}
	for range 3 {
		p.hears(t, "WATCHDOG=1")
	}
	if _, body := p.get(t, "/metrics"); !strings.Contains(body, fmt.Sprintf("\npostern_connections %d\n", most)) {
		t.Error("the daemon counts its own connections")
	}
	p.gate.defect.Store(true)
	for !strings.Contains(p.logged(), "the daemon does not answer itself") {
		select {
		case <-p.states: // sent before
		case <-p.wrote:
		}
	}
	p.gate.defect.Store(false)
	for !strings.Contains(p.logged(), "the daemon answers itself again") {
		p.hears(t, "WATCHDOG=1")
	}
	for range most {
		p.gate.release <- struct{}{}
	}
	for _, conn := range busy {
		answer(t, conn)
	}
	p.stop(t)
}
