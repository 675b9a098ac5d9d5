package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// debianPackages are in the tree beside what every Debian has.
const debianPackages = "systemd-sysv,dbus,procps,postfix,dovecot-core,make,jq,iproute2"

// debianTree returns the folder of a fresh Debian 12. It is kept in the user's cache
// and made from the mirror that apt is set to on this machine.
func debianTree(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(cache, "postern-test", fmt.Sprintf("debian12-%x", sha256.Sum256([]byte(debianPackages)))[:24])
	if _, err := os.Stat(tree); err == nil {
		return tree
	}
	if err := os.MkdirAll(filepath.Dir(tree), 0o700); err != nil {
		t.Fatal(err)
	}
	half, err := os.MkdirTemp(filepath.Dir(tree), "half-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(half) })
	t.Log("making a Debian 12 tree; it is kept in " + tree)
	command(t, "mmdebstrap", "--quiet", "--variant=minbase", "--include="+debianPackages,
		"--dpkgopt=force-unsafe-io", "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
		"bookworm", filepath.Join(half, "tree"), debianMirror(t))
	if err := os.Rename(filepath.Join(half, "tree"), tree); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	return tree
}

// debianMirror is where apt gets Debian 12 from on this machine.
func debianMirror(t *testing.T) string {
	t.Helper()
	out := command(t, "apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)", "Created-By: Packages")
	for line := range strings.Lines(out) {
		if words := strings.Fields(line); len(words) == 3 && words[1] == "bookworm" && words[2] == "main" {
			return words[0]
		}
	}
	t.Fatalf("apt has no source of Debian 12 (bookworm main):\n%s", out)
	return ""
}

// command runs a program of this machine and returns what it printed.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", name, err, out, &stderr)
	}
	return string(out)
}

// machine is a Debian that has been booted from a tree. The tree itself stays as it
// is: what the machine writes is lost when it ends.
type machine struct {
	init int // the process that is 1 inside
}

// fromHere is what a machine has of this one.
type fromHere struct{ repository, goroot, modules, cache string }

func thisMachine(t *testing.T) fromHere {
	t.Helper()
	repository, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	env := strings.Fields(command(t, "go", "env", "GOROOT", "GOMODCACHE", "GOCACHE"))
	return fromHere{repository, env[0], env[1], env[2]}
}

// startDebian starts a machine that has the project's source in /root/postern, and
// the Go of this machine. It has no network but its own loopback. Where no systemd
// can run, its daemons are started by hand; make test says so at its end.
func startDebian(t *testing.T, tree string) *machine {
	t.Helper()
	here := thisMachine(t)
	if os.Getenv("POSTERN_TEST_BY_HAND") == "" {
		m, err := bootDebian(t, tree, here)
		if err == nil {
			return m
		}
		t.Log(err)
	}
	const byHand = "the guide for Debian and the life of its package ran in a chroot, daemons started by hand, and no upgrade restarted any: systemd cannot be booted here"
	note(t, byHand)
	return startByHand(t, tree, here)
}

// note has make test print a line at its end.
func note(t *testing.T, line string) {
	t.Helper()
	t.Log(line)
	name := os.Getenv("POSTERN_TEST_NOTES")
	if name == "" {
		return
	}
	file, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
	if err == nil {
		_, err = file.WriteString(line + "\n")
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		t.Error(err)
	}
}

// bootDebian boots the machine with systemd-nspawn.
func bootDebian(t *testing.T, tree string, here fromHere) (*machine, error) {
	t.Helper()
	ready := newReadiness(t)
	upper := t.TempDir()
	console, err := os.Create(filepath.Join(t.TempDir(), "console"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = console.Close() })
	nspawn := exec.Command("systemd-nspawn", "--quiet", "--boot", "--directory="+tree, "--volatile=overlay", "--register=no", "--keep-unit",
		"--private-network", "--notify-ready=yes", "--machine="+filepath.Base(filepath.Dir(ready.path)), "--console=pipe", "--hostname=mail",
		"--overlay="+here.repository+":"+upper+":/root/postern",
		"--bind-ro="+here.goroot+":/usr/local/go", "--bind-ro="+here.modules+":/root/go/pkg/mod", "--bind="+here.cache+":/root/.cache/go-build")
	// The lock is left out, because several machines share the tree and none writes to it.
	nspawn.Env = append(os.Environ(), "NOTIFY_SOCKET="+ready.path, "SYSTEMD_NSPAWN_LOCK=0")
	nspawn.Stdout, nspawn.Stderr = console, console
	if err := nspawn.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- nspawn.Wait(); ready.close() }()
	t.Cleanup(func() {
		_ = nspawn.Process.Signal(unix.SIGTERM) // powers the machine off
		<-ended
	})
	leader, err := ready.wait()
	if err != nil {
		said, _ := os.ReadFile(console.Name())
		return nil, fmt.Errorf("systemd-nspawn: %w\n%s", err, said)
	}
	go ready.drain()
	return &machine{leader}, nil
}

// startByHand makes the machine in namespaces of its own, without systemd. Stand-ins
// for systemctl and journalctl start the daemons and print their logs.
func startByHand(t *testing.T, tree string, here fromHere) *machine {
	t.Helper()
	standIns, err := filepath.Abs("testdata/firstday")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork",
		filepath.Join(standIns, "init"), tree, t.TempDir(), here.repository, here.goroot, here.modules, here.cache, standIns)
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	leader := 0
	t.Cleanup(func() {
		if leader != 0 {
			_ = unix.Kill(leader, unix.SIGKILL) // and with it all that runs inside
		} else {
			_ = cmd.Process.Kill()
		}
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("no namespaces: %q, %v", line, err)
	}
	leader = childOf(t, cmd.Process.Pid)
	return &machine{leader}
}

// childOf returns the only child of a process.
func childOf(t *testing.T, pid int) int {
	t.Helper()
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(children)))
	if err != nil {
		t.Fatal(err)
	}
	return child
}

// readiness is the socket on which systemd-nspawn says that the machine is up.
type readiness struct {
	path string
	conn *net.UnixConn
}

func newReadiness(t *testing.T) *readiness {
	t.Helper()
	dir, err := postfixtest.MakeDir() // a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	return &readiness{path, conn}
}

func (r *readiness) close() { _ = r.conn.Close() }

// drain reads what systemd-nspawn says after that, until close. Otherwise systemd-nspawn
// blocks once the socket's queue is full, and never ends.
func (r *readiness) drain() {
	for buffer := make([]byte, 4096); ; {
		if _, err := r.conn.Read(buffer); err != nil {
			return
		}
	}
}

// wait returns the process that is 1 in the machine, once it is up.
func (r *readiness) wait() (leader int, err error) {
	buffer := make([]byte, 4096)
	for {
		n, err := r.conn.Read(buffer)
		if err != nil {
			return 0, errors.New("the machine ended before it was up")
		}
		up := false
		for line := range strings.Lines(string(buffer[:n])) {
			line = strings.TrimSpace(line)
			if pid, ok := strings.CutPrefix(line, "X_NSPAWN_LEADER_PID="); ok {
				if leader, err = strconv.Atoi(pid); err != nil {
					return 0, err
				}
			}
			up = up || line == "READY=1"
		}
		if up {
			return leader, nil
		}
	}
}

// path is where a file of the machine is for this one.
func (m *machine) path(name string) string { return fmt.Sprintf("/proc/%d/root%s", m.init, name) }

// shell is a root shell of a machine. What one command sets, the next ones have.
type shell struct {
	in  io.WriteCloser
	out *bufio.Reader
}

// endOfCommand ends what a command prints; the exit status follows.
const endOfCommand = "\x01end of command "

func (m *machine) shell(t *testing.T) *shell {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "nsenter", "--target="+strconv.Itoa(m.init), "--all", "--root", "--wdns=/root/postern",
		"env", "-i", "HOME=/root", "LANG=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/go/bin",
		"GOTOOLCHAIN=local", "GOPROXY=off", "bash", "--noprofile", "--norc")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe() // not cmd's own: what runs in the background inside holds it
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		cancel()
		_ = cmd.Wait()
		_ = r.Close()
	})
	return &shell{in, bufio.NewReader(r)}
}

// run runs one command, with whatever lines it has, and returns what it printed.
func (s *shell) run(text string) (out string, status int, err error) {
	if _, err := fmt.Fprintf(s.in, "{\n%s\n} </dev/null\nprintf '%s%%d\\n' $?\n", text, endOfCommand); err != nil {
		return "", 0, err
	}
	var said strings.Builder
	for {
		line, err := s.out.ReadString('\n')
		before, number, ended := strings.Cut(line, endOfCommand)
		said.WriteString(before)
		if ended {
			status, err = strconv.Atoi(strings.TrimSpace(number))
			return said.String(), status, err
		}
		if err != nil {
			return said.String(), 0, err
		}
	}
}

// must runs a command that has to succeed.
func (s *shell) must(t *testing.T, text string) string {
	t.Helper()
	out, status, err := s.run(text)
	if err != nil || status != 0 {
		t.Fatalf("%s\nexit status %d, %v:\n%s", text, status, err, out)
	}
	return out
}

// dial connects to a port of the machine. The connection comes from the address that
// it goes to.
func (m *machine) dial(ctx context.Context, addr string) (c *postfixtest.Client, err error) {
	err = m.inNetwork(func() (err error) {
		c, err = postfixtest.Dial(ctx, addr)
		return err
	})
	return c, err
}

// inNetwork calls f where it has the network of the machine.
func (m *machine) inNetwork(f func() error) (err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the thread ends with the goroutine: it stays in the machine
		var ns *os.File
		if ns, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", m.init)); err != nil {
			return
		}
		defer ns.Close()
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
			err = f()
		}
	}()
	<-done
	return err
}

// transaction sends one mail in a session of its own.
func (m *machine) transaction(ctx context.Context, addr string, mail postfixtest.Mail) (string, error) {
	c, err := m.dial(ctx, addr)
	if err != nil {
		return "", err
	}
	var r postfixtest.Replies
	if err = c.Open(mail); err == nil {
		r, err = c.Send(mail)
	}
	return r.Final().String(), errors.Join(err, c.Quit())
}
