// Package redistest runs private Redis servers for tests: a single one, a
// master with a replica and three Sentinels, or a Cluster of six, all on
// 127.0.0.1 and below one temporary directory.
//
// Invariants: every server ends with its test, and with the test's process. Waiting
// ends with a line in a server's log, with the server's end, or with the test.
package redistest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/postern-mail/postern/internal/freeport"
	"github.com/postern-mail/postern/internal/store/redistest/tied"
)

// Server is a running redis-server.
type Server struct {
	Addr string

	tb   testing.TB
	cmd  *exec.Cmd
	done chan struct{}

	mu    sync.Mutex
	lines []string
	news  chan struct{} // replaced and closed with every line
}

// maxLines bounds the log that is kept of a server.
const maxLines = 10_000

// Require skips the test in short mode (go test -short), and when redis-server is
// not installed. With CI set, a missing server is a failure.
func Require(tb testing.TB) {
	tb.Helper()
	requireProgram(tb, "redis-server")
	requireProgram(tb, "redis-cli")
}

func requireProgram(tb testing.TB, program string) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("needs " + program + ", and the tests run without servers (-short)")
	}
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("CI") != "" {
			tb.Fatalf("%v: install the packages redis-server, redis-sentinel and redis-tools", err)
		}
		tb.Skipf("%v", err)
	}
}

// Start runs one server with further arguments: settings of redis.conf, with --.
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	Require(tb)
	return start(tb, freePort(tb), args...)
}

// Restart runs a new, empty server at the address of one that has ended.
func (s *Server) Restart(args ...string) *Server {
	s.tb.Helper()
	_, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		s.tb.Fatal(err)
	}
	return start(s.tb, port, args...)
}

func start(tb testing.TB, port string, args ...string) *Server {
	tb.Helper()
	dir := tb.TempDir()
	// A master waits 5 seconds for more replicas before it sends its data, unless it is
	// told not to.
	all := append([]string{"--port", port, "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--daemonize", "no", "--logfile", "",
		"--repl-diskless-sync-delay", "0"}, args...)
	s := run(tb, "127.0.0.1:"+port, "redis-server", all...)
	s.Await("Ready to accept connections")
	return s
}

// StartFile runs redis-server or redis-sentinel with a configuration file that sets
// its address. The log must go to standard output.
func StartFile(tb testing.TB, program, addr, file string) *Server {
	tb.Helper()
	requireProgram(tb, program)
	return run(tb, addr, program, file, "--daemonize", "no", "--logfile", "")
}

// run starts a program that ends with us. Its log is its standard output.
func run(tb testing.TB, addr, program string, args ...string) *Server {
	tb.Helper()
	s := &Server{Addr: addr, tb: tb, cmd: exec.Command(program, args...), done: make(chan struct{}), news: make(chan struct{})}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := tied.Start(s.cmd); err != nil {
		tb.Fatal(err)
	}
	go func() {
		s.read(out)
		_ = s.cmd.Wait() // how it ended does not matter
		close(s.done)
	}()
	tb.Cleanup(s.Kill)
	return s
}

func (s *Server) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		s.mu.Lock()
		if len(s.lines) < maxLines {
			s.lines = append(s.lines, lines.Text())
		}
		close(s.news)
		s.news = make(chan struct{})
		s.mu.Unlock()
	}
}

// Await waits until a line of the log holds text.
func (s *Server) Await(text string) {
	s.tb.Helper()
	if err := s.await(s.tb.Context(), text); err != nil {
		s.tb.Fatal(err)
	}
}

func (s *Server) await(ctx context.Context, text string) error {
	for from := 0; ; {
		s.mu.Lock()
		lines, news := s.lines[from:], s.news
		s.mu.Unlock()
		for _, line := range lines {
			if strings.Contains(line, text) {
				return nil
			}
		}
		from += len(lines)
		select {
		case <-news:
		case <-s.done:
			s.mu.Lock()
			defer s.mu.Unlock()
			return fmt.Errorf("%s has ended before it said %q:\n%s", s.Addr, text, strings.Join(s.lines, "\n"))
		case <-ctx.Done():
			return fmt.Errorf("%s has not said %q: %w", s.Addr, text, context.Cause(ctx))
		}
	}
}

// Command runs redis-cli and returns its output. An error that the server replies with
// does not end the test, unless the first argument is "-e".
func (s *Server) Command(args ...string) string {
	s.tb.Helper()
	out, err := exec.CommandContext(s.tb.Context(), "redis-cli", append([]string{"-u", "redis://" + s.Addr}, args...)...).CombinedOutput()
	if err != nil {
		s.tb.Fatalf("redis-cli: %v: %s", err, out)
	}
	return string(out)
}

// Kill ends the server as a crash would, even while it is paused.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.done
}

// Pause stops the server: connections are accepted and nothing is answered.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume ends a pause.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.tb.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.tb.Fatal(err)
	}
}

// Sentinels are a master and a replica that three Sentinels watch.
type Sentinels struct {
	Master, Replica *Server
	Watchers        []*Server
	Name            string // of the master
	tls             *certificates
}

// StartSentinels runs five servers. The master counts as dead after a second.
func StartSentinels(tb testing.TB) *Sentinels {
	tb.Helper()
	requireProgram(tb, "redis-sentinel")
	return startSentinels(tb, nil)
}

func startSentinels(tb testing.TB, tls *certificates) *Sentinels {
	tb.Helper()
	s := &Sentinels{Name: "greylist", Master: tls.start(tb), tls: tls}
	_, port, _ := net.SplitHostPort(s.Master.Addr)
	s.Replica = tls.start(tb, "--replicaof", "127.0.0.1", port)
	s.Replica.Await("Finished with success")
	for range 3 {
		s.Watchers = append(s.Watchers, s.watcher(tb, port))
	}
	for _, w := range s.Watchers {
		w.Await("+slave ")
		w.AwaitCount("+sentinel sentinel", 2)
	}
	return s
}

func (s *Sentinels) watcher(tb testing.TB, masterPort string) *Server {
	tb.Helper()
	port := freePort(tb)
	file := filepath.Join(tb.TempDir(), "sentinel.conf")
	conf := fmt.Sprintf("port %s\nbind 127.0.0.1\ndir %s\nsentinel monitor %s 127.0.0.1 %s 2\n"+
		"sentinel down-after-milliseconds %s 1000\nsentinel failover-timeout %s 5000\n",
		port, filepath.Dir(file), s.Name, masterPort, s.Name, s.Name) + s.tls.lines(port)
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		tb.Fatal(err)
	}
	w := run(tb, "127.0.0.1:"+port, "redis-sentinel", file)
	w.Await("+monitor master")
	return w
}

// AwaitCount waits for the nth line that holds text.
func (s *Server) AwaitCount(text string, n int) {
	s.tb.Helper()
	for {
		s.mu.Lock()
		found, news := 0, s.news
		for _, line := range s.lines {
			if strings.Contains(line, text) {
				found++
			}
		}
		s.mu.Unlock()
		if found >= n {
			return
		}
		select {
		case <-news:
		case <-s.done:
			s.tb.Fatalf("%s has ended", s.Addr)
		case <-s.tb.Context().Done():
			s.tb.Fatalf("%s has not said %q %d times", s.Addr, text, n)
		}
	}
}

// URL is the address for a store.
func (s *Sentinels) URL() string {
	return s.tls.scheme("redis+sentinel") + "://" + strings.Join(addrs(s.Watchers), ",") + "/" + s.Name + s.tls.query()
}

// Cluster is three masters, each with a replica.
type Cluster struct {
	Nodes []*Server
	tls   *certificates
}

// StartCluster runs six servers. A master counts as dead after a second.
func StartCluster(tb testing.TB) *Cluster {
	tb.Helper()
	Require(tb)
	return startCluster(tb, nil)
}

func startCluster(tb testing.TB, tls *certificates) *Cluster {
	tb.Helper()
	c := &Cluster{tls: tls}
	settings := []string{"--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no"}
	var args []string
	if tls != nil {
		settings = append(settings, "--tls-cluster", "yes")
		args = []string{"--tls", "--cacert", tls.ca}
	}
	for range 6 {
		c.Nodes = append(c.Nodes, tls.start(tb, settings...))
	}
	args = append(append(args, "--cluster", "create"), addrs(c.Nodes)...)
	args = append(args, "--cluster-replicas", "1", "--cluster-yes")
	cmd := exec.CommandContext(tb.Context(), "redis-cli", args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("redis-cli --cluster create: %v\n%s", err, out)
	}
	for _, n := range c.Nodes {
		n.Await("Cluster state changed: ok")
	}
	return c
}

// URL is the address for a store.
func (c *Cluster) URL() string {
	return c.tls.scheme("redis+cluster") + "://" + strings.Join(addrs(c.Nodes), ",") + c.tls.query()
}

// Find returns the node at an address.
func (c *Cluster) Find(addr string) *Server {
	for _, n := range c.Nodes {
		if n.Addr == addr {
			return n
		}
	}
	return nil
}

func addrs(servers []*Server) []string {
	var all []string
	for _, s := range servers {
		all = append(all, s.Addr)
	}
	return all
}

// freePort returns a port that no other server of a test gets.
func freePort(tb testing.TB) string {
	tb.Helper()
	port, err := freeport.RedisPort()
	if err != nil {
		tb.Fatal(err)
	}
	return port
}
