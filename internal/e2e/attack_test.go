package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// lone is a daemon without a Postfix.
type lone struct {
	*postfixtest.Daemon
	socket, log, metrics string
}

func startLone(t *testing.T, args ...string) *lone {
	t.Helper()
	return startLoneBelow(t, nil, args...)
}

// startLoneBelow starts it by another command, which is given the program.
func startLoneBelow(t *testing.T, command []string, args ...string) *lone {
	t.Helper()
	return startLoneDaemon(t, command, "postern-policyd", "--listen", append([]string{"--checks=ownership"}, args...)...)
}

// startLoneDaemon starts a daemon. listen is the flag of its socket.
func startLoneDaemon(t *testing.T, command []string, name, listen string, args ...string) *lone {
	t.Helper()
	return startLoneOf(t, binaries, command, name, listen, args...)
}

func startLoneOf(t *testing.T, programs *postfixtest.Binaries, command []string, name, listen string, args ...string) *lone {
	t.Helper()
	path, err := programs.Path(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := postfixtest.MakeDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l := &lone{socket: filepath.Join(dir, "s"), log: filepath.Join(dir, "log"), metrics: filepath.Join(dir, "metrics")}
	line := append(slices.Clone(command), path, "--config=", listen+"=unix:"+l.socket, "--admin=", "--metrics-listen=unix:"+l.metrics, "--log-file="+l.log)
	line = append(line, args...)
	l.Daemon, err = postfixtest.StartDaemon(t.Context(), postfixtest.DaemonConfig{Path: line[0], Args: line[1:]})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.StopUnlessEnded(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func (l *lone) dial(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", l.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// records counts the records in the log, by reason.
func (l *lone) records(t *testing.T) map[string]int {
	t.Helper()
	text, err := os.ReadFile(l.log)
	if err != nil {
		t.Fatal(err)
	}
	reasons := map[string]int{}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, `"msg":"decision"`) {
			_, rest, _ := strings.Cut(line, `"reason":"`)
			reason, _, _ := strings.Cut(rest, `"`)
			reasons[reason]++
		}
	}
	return reasons
}

// peak is the most memory that the daemon has had in RAM, in octets.
func (l *lone) peak(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.PID()))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(status), "VmHWM:")
	if !ok {
		t.Fatalf("no VmHWM in %s", status)
	}
	kB, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kB << 10
}

func loginRequest(sender, login string) string {
	return "request=smtpd_access_policy\nprotocol_state=RCPT\nsender=" + sender + "\nsasl_username=" + login + "\n\n"
}

// ask sends one request and wants that action.
func ask(conn net.Conn, request, want string) error {
	if _, err := io.WriteString(conn, request); err != nil {
		return err
	}
	replies := bufio.NewReader(conn) // nothing follows a reply that was not asked for
	action, err := replies.ReadString('\n')
	if err != nil {
		return err
	}
	if end, err := replies.ReadString('\n'); end != "\n" || err != nil {
		return fmt.Errorf("the reply ends in %q, %v", end, err)
	}
	if action != "action="+want+"\n" {
		return fmt.Errorf("the reply is %q, want %q", action, want)
	}
	return nil
}

// endless reads as a text that goes on and on, up to a gigabyte.
func endless(piece string) io.Reader {
	const gigabyte = 1 << 30
	return io.LimitReader(repeat(piece), gigabyte)
}

type repeat string

func (r repeat) Read(p []byte) (int, error) {
	n := 0
	for n+len(r) <= len(p) {
		n += copy(p[n:], r)
	}
	return n, nil
}

// attackers is how many connections make each attack at a time.
const attackers = 8

// maxUnderAttack bounds the daemon's memory in octets; the race detector takes
// most of it. Without bounds the attacks would fill gigabytes.
const maxUnderAttack = 320 << 20

// Whoever breaks the protocol is cut off and recorded once. Other clients get
// their answers meanwhile, and memory stays bounded.
func TestAttacks(t *testing.T) {
	t.Parallel()
	attacks := map[string]func() io.Reader{
		"a line without end":      func() io.Reader { return endless("x") },
		"a request without end":   func() io.Reader { return endless("name=value\n") },
		"10,000 attributes":       func() io.Reader { return strings.NewReader(strings.Repeat("a=b\n", 10_000) + "\n") },
		"NULs":                    func() io.Reader { return endless("\x00") },
		"an attribute twice":      func() io.Reader { return strings.NewReader("request=smtpd_access_policy\nsender=a@b\nsender=c@d\n\n") },
		"CR LF":                   func() io.Reader { return strings.NewReader("request=smtpd_access_policy\r\n\r\n\n") },
		"an unknown request type": func() io.Reader { return strings.NewReader("request=junk\n\n") },
		"no name":                 func() io.Reader { return strings.NewReader("=value\n\n") },
		"an empty request":        func() io.Reader { return strings.NewReader("\n") },
		"HTTP":                    func() io.Reader { return strings.NewReader("GET / HTTP/1.1\r\nHost: x\r\n\r\n\n\n") },
	}
	l := startLone(t, "--owners=inline:{ press@home.example=alice }")

	var honest errgroup.Group
	stop := make(chan struct{})
	answered := 0
	slow := l.dial(t) // one octet for each answer to somebody else
	honest.Go(func() error {
		conn := l.dial(t)
		request := loginRequest("press@home.example", "alice")
		for ; ; answered++ {
			select {
			case <-stop:
				return nil
			default:
			}
			if err := ask(conn, request, "DUNNO"); err != nil {
				return fmt.Errorf("after %d answers: %w", answered, err)
			}
			if answered < len(request)-1 {
				if _, err := io.WriteString(slow, request[answered:answered+1]); err != nil {
					return fmt.Errorf("the slow client: %w", err)
				}
			}
		}
	})
	var group errgroup.Group
	for name, attack := range attacks {
		for range attackers {
			conn := l.dial(t)
			group.Go(func() error { return cutOff(conn, name, attack()) })
		}
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	close(stop)
	if err := honest.Wait(); err != nil {
		t.Error(err)
	}
	rest := loginRequest("press@home.example", "alice")
	if err := ask(slow, rest[min(answered, len(rest)-1):], "DUNNO"); err != nil {
		t.Errorf("the slow client: %v", err)
	}
	hostile := loginRequest("press@home.example", "\xff\r\x00mallory")
	if err := ask(l.dial(t), hostile, "553 5.7.1 not owned by user ???mallory"); err != nil {
		t.Error(err)
	}
	if got := l.peak(t); got > maxUnderAttack {
		t.Errorf("%d MiB of memory", got>>20)
	}
	if err := l.Stop(); err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"bad_request": len(attacks) * attackers, "owned": answered + 1, "not_owned": 1}
	if got := l.records(t); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("records %v, want %v", got, want)
	}
}

// cutOff makes an attack and wants the connection closed without an answer.
func cutOff(conn net.Conn, name string, attack io.Reader) error {
	if n, err := io.CopyBuffer(struct{ io.Writer }{conn}, struct{ io.Reader }{attack}, make([]byte, 64<<10)); err == nil && n >= 1<<30 {
		return fmt.Errorf("%s: the daemon took it all", name)
	}
	var reply bytes.Buffer
	_, err := reply.ReadFrom(conn)
	if reply.Len() > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
		return fmt.Errorf("%s: answered with %q, %w", name, &reply, err)
	}
	return nil
}

// manyConns are more than a busy Postfix has smtpd processes.
const manyConns = 500

// Every smtpd process keeps a connection of its own.
func TestManyConnections(t *testing.T) {
	t.Parallel()
	l := startLone(t, "--owners=inline:{ press@home.example=alice }")
	var conns []net.Conn
	for range manyConns {
		conns = append(conns, l.dial(t))
	}
	for range 3 {
		var group errgroup.Group
		for i, conn := range conns {
			login, want := "alice", "DUNNO"
			if i%2 == 1 {
				login, want = fmt.Sprint("user", i), fmt.Sprint("553 5.7.1 not owned by user user", i)
			}
			group.Go(func() error { return ask(conn, loginRequest("press@home.example", login), want) })
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Stop(); err != nil {
		t.Error(err)
	}
	if got := l.records(t); got["owned"] != 3*manyConns/2 || got["not_owned"] != 3*manyConns/2 {
		t.Errorf("records %v", got)
	}
}

// slowConns are more than the daemon holds at a time (--max-connections).
const slowConns = 10_000

// slow makes many connections that send a text and stay open until the test ends. It calls
// beside again and again on the way.
func (l *lone) slow(t *testing.T, text func(i int) string, beside func()) {
	t.Helper()
	for i := range slowConns {
		conn := l.dial(t)
		if _, err := io.WriteString(conn, text(i)); err != nil && !errors.Is(err, syscall.EPIPE) {
			t.Fatal(err)
		}
		if i%500 == 0 {
			beside()
		}
	}
}

// Ten thousand connections with half a request each keep no one out: the ones that have
// waited longest make room. Connections that Postfix has used and keeps stay open. With
// few file descriptors it is the same.
func TestSlowConnections(t *testing.T) {
	t.Parallel()
	for name, command := range map[string][]string{"as started": nil, "64 descriptors": {"prlimit", "--nofile=64:64"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := startLoneBelow(t, command, "--owners=inline:{ press@home.example=alice }")
			var used []net.Conn
			for range 16 {
				used = append(used, l.dial(t))
				if err := ask(used[len(used)-1], loginRequest("press@home.example", "alice"), "DUNNO"); err != nil {
					t.Fatal(err)
				}
			}
			half := func(int) string { return "request=smtpd_access_policy\nsender=" }
			l.slow(t, half, func() {
				if err := askAsPostfix(l, loginRequest("press@home.example", "alice"), "DUNNO"); err != nil {
					t.Fatal(err)
				}
			})
			if err := askAsPostfix(l, loginRequest("press@home.example", "mallory"), "553 5.7.1 not owned by user mallory"); err != nil {
				t.Fatal(err)
			}
			for _, conn := range used {
				if err := ask(conn, loginRequest("press@home.example", "alice"), "DUNNO"); err != nil {
					t.Fatalf("a connection that was used before: %v", err)
				}
			}
		})
	}
}

// Ten thousand milter sessions that do not end their negotiation keep no one out, and none
// is lost that Postfix has begun, or in which its client has not named a mail so far.
func TestSlowSessions(t *testing.T) {
	t.Parallel()
	l := startLoneDaemon(t, nil, "postern-milterd", "--listen-verify", "--resolver="+noDNS)
	session := postfixtest.MilterSession{Client: "192.0.2.7", Name: "mx.away.example", Helo: "mx.away.example", MTA: "mx.home.example"}
	mail := postfixtest.MilterMail{Sender: Stranger, Recipient: Alice, Message: "From: " + Stranger + "\r\nSubject: x\r\n\r\nHello.\r\n"}
	open := func() *postfixtest.MilterClient {
		t.Helper()
		c, err := postfixtest.DialMilter(t.Context(), l.socket, session)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	send := func(c *postfixtest.MilterClient) {
		t.Helper()
		if _, err := c.Send(mail); err != nil {
			t.Fatal(err)
		}
	}
	begun, greeted := open(), open()
	defer begun.Close()
	defer greeted.Close()
	send(begun)
	part := func(i int) string { return "\x00\x00\x00\x0dO\x00"[:i%7] }
	began := time.Now()
	l.slow(t, part, func() {
		c := open()
		send(c)
		c.Close()
	})
	send(begun)
	send(greeted)
	values, err := postfixtest.Scrape(t.Context(), l.metrics)
	if err != nil {
		t.Fatal(err)
	}
	if closed, refused := values[`postern_connections_over_limit_total{action="closed"}`], values[`postern_connections_over_limit_total{action="refused"}`]; closed == 0 || refused != 0 {
		t.Errorf("%v closed, %v refused", closed, refused)
	}
	text, err := os.ReadFile(l.log)
	if err != nil {
		t.Fatal(err)
	}
	// It is said once a minute.
	if n := strings.Count(string(text), "connection limit reached"); n < 1 || n > 1+int(time.Since(began)/time.Minute) || !strings.Contains(string(text), `"unused":19`) {
		t.Errorf("%d lines about the bound, or without the unused sessions", n)
	}
	if got := l.records(t); got["bad_request"] != 0 {
		t.Errorf("records %v", got)
	}
}

// askAsPostfix asks over a new connection, and over another one if it is closed.
func askAsPostfix(l *lone, request, want string) (err error) {
	for range 2 {
		var conn net.Conn
		if conn, err = net.Dial("unix", l.socket); err != nil {
			return err
		}
		err = ask(conn, request, want)
		_ = conn.Close()
		if err == nil {
			return nil
		}
	}
	return err
}

// A request that waits for a table when SIGTERM comes is answered; the daemon
// ends then, with its record written.
func TestStopWithARequestInHand(t *testing.T) {
	t.Parallel()
	dir, err := postfixtest.MakeDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	table, err := net.Listen("unix", filepath.Join(dir, "table"))
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	l := startLone(t, "--owners=socketmap:unix:"+filepath.Join(dir, "table")+":owners", "--owners-timeout=1m", "--deadline=90s", "--drain-timeout=2m")
	conn, idle := l.dial(t), l.dial(t)
	if _, err := io.WriteString(conn, loginRequest("press@home.example", "alice")); err != nil {
		t.Fatal(err)
	}
	question, err := table.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer question.Close()
	if _, err := bufio.NewReader(question).ReadString(','); err != nil { // a netstring ends in a comma
		t.Fatal(err)
	}
	if err := l.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if n, err := idle.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("the idle connection: %d octets, %v", n, err)
	}
	if _, err := io.WriteString(question, "8:OK alice,"); err != nil {
		t.Fatal(err)
	}
	if reply, err := io.ReadAll(conn); string(reply) != "action=DUNNO\n\n" || err != nil {
		t.Errorf("the request in hand is answered with %q, %v", reply, err)
	}
	if code, err := l.Wait(t.Context()); code != 0 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	if got := l.records(t); got["owned"] != 1 {
		t.Errorf("records %v", got)
	}
}
