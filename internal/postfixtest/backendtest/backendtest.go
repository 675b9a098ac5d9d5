// Package backendtest runs private databases and directories for tests: MariaDB,
// PostgreSQL and slapd, each with its own data folder below one temporary
// directory, on a port of 127.0.0.1 and a Unix socket.
//
// A server can be killed, restarted on the same address with the same data, paused and
// resumed. It ends with its test. If a server is not installed, the test is skipped
// with a message. With CI set, the test fails.
package backendtest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// Server is one running database or directory.
type Server struct {
	tb      testing.TB
	Dir     string // of all its files
	Socket  string // its Unix socket
	Addr    string // 127.0.0.1:port
	command func() *exec.Cmd
	ready   func(context.Context) error
	process *postfixtest.Server
}

// Host returns the host in Addr.
func (s *Server) Host() string { host, _, _ := net.SplitHostPort(s.Addr); return host }

// Port returns the port in Addr.
func (s *Server) Port() string { _, port, _ := net.SplitHostPort(s.Addr); return port }

// Start starts the server, which must not run.
func (s *Server) Start() {
	s.tb.Helper()
	process, err := postfixtest.StartServer(s.tb.Context(), s.command(), s.ready)
	if err != nil {
		s.tb.Fatal(err)
	}
	s.process = process
}

// Kill ends the server like a crash.
func (s *Server) Kill() {
	if s.process != nil {
		s.process.Kill()
		s.process = nil
	}
}

// Pause stops the server: it keeps its connections but does not answer.
func (s *Server) Pause() {
	s.tb.Helper()
	if err := s.process.Pause(); err != nil {
		s.tb.Fatal(err)
	}
}

// Resume ends a pause.
func (s *Server) Resume() {
	s.tb.Helper()
	if err := s.process.Resume(); err != nil {
		s.tb.Fatal(err)
	}
}

// newServer chooses a port and makes the directory, which the servers' accounts may
// enter.
func newServer(tb testing.TB, owner string) *Server {
	tb.Helper()
	dir, err := os.MkdirTemp("", "postern-db-")
	if err != nil {
		tb.Fatal(err)
	}
	s := &Server{tb: tb, Dir: dir}
	tb.Cleanup(func() {
		s.Kill()
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	if owner != "" {
		uid, gid := account(tb, owner)
		if err := os.Chown(dir, int(uid), int(gid)); err != nil {
			tb.Fatal(err)
		}
	}
	if s.Addr, err = postfixtest.FreeAddr(); err != nil {
		tb.Fatal(err)
	}
	return s
}

// account returns the ids of a system account.
func account(tb testing.TB, name string) (uid, gid uint32) {
	tb.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		missing(tb, "account "+name)
	}
	id := func(text string) uint32 {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			tb.Fatal(err)
		}
		return uint32(n)
	}
	return id(u.Uid), id(u.Gid)
}

// as runs a command under an account.
func as(tb testing.TB, name string, cmd *exec.Cmd) *exec.Cmd {
	tb.Helper()
	uid, gid := account(tb, name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	return cmd
}

// tool returns the path of a program. It skips the test in short mode (go test -short),
// without root, and if the program is not installed.
func tool(tb testing.TB, patterns ...string) string {
	tb.Helper()
	if testing.Short() {
		tb.Skipf("needs one of %v, and the tests run without servers (-short)", patterns)
	}
	if os.Geteuid() != 0 {
		missing(tb, "root, to run servers under their own accounts")
	}
	for _, pattern := range patterns {
		found, err := filepath.Glob(pattern)
		if err != nil {
			tb.Fatal(err)
		}
		if len(found) > 0 {
			return found[len(found)-1] // the newest
		}
	}
	missing(tb, fmt.Sprintf("none of %v (.ci/setup installs them)", patterns))
	return ""
}

func missing(tb testing.TB, what string) {
	tb.Helper()
	if os.Getenv("CI") != "" {
		tb.Fatal("missing: " + what)
	}
	tb.Skip("missing: " + what)
}

// run runs a command, and fails the test if the command fails.
func run(tb testing.TB, cmd *exec.Cmd) {
	tb.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("%s: %v\n%s", cmd, err, out)
	}
}
