package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
	"github.com/postern-mail/postern/internal/store/redistest"
)

// noDescriptors leaves a daemon the descriptors that it has open. It gets no new ones, not
// even when it closes one.
func (l *lone) noDescriptors(t *testing.T) (restore func()) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Prlimit(l.PID(), unix.RLIMIT_NOFILE, nil, &before); err != nil {
		t.Fatal(err)
	}
	set := func(limit unix.Rlimit) {
		t.Helper()
		if err := unix.Prlimit(l.PID(), unix.RLIMIT_NOFILE, &limit, nil); err != nil {
			t.Fatal(err)
		}
	}
	set(unix.Rlimit{Cur: 0, Max: before.Max})
	return func() { set(before) }
}

// wantLogged ends the daemon and requires that its log names the reason of the failures.
func (l *lone) wantLogged(t *testing.T, text string) {
	t.Helper()
	if err := l.Stop(); err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(l.log)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(log), text) {
		t.Errorf("the log does not say %q:\n%s", text, log)
	}
}

const outOfDescriptors = "too many open files"

// A daemon that can open no connection to its tables and its store answers with temporary
// failures, says why, and asks again when it can.
func TestPolicydWithoutDescriptors(t *testing.T) {
	t.Parallel()
	table := startOwners(t)
	redis := redistest.Start(t)
	l := startLoneDaemon(t, nil, "postern-policyd", "--listen", "--checks=ownership,greylist", "--owners="+table, "--owners-cache-ttl=0", "--owners-cache-negative-ttl=0", "--owners-last-known=0",
		"--greylist-store=redis://"+redis.Addr, "--greylist-on-error=defer")
	conn := l.dial(t)
	owned := loginRequest("press@home.example", "alice")
	unknown := func(i int) string {
		return fmt.Sprintf("request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=203.0.113.1\nsender=x%d@other.example\nrecipient=alice@home.example\n\n", i)
	}
	if err := ask(conn, owned, "DUNNO"); err != nil {
		t.Fatal(err)
	}
	restore := l.noDescriptors(t) // first: the daemon connects again by itself
	redis.Kill()                  // and with it the connections to it
	redis.Restart()
	for what, request := range map[string]string{"a table": owned, "the store": unknown(0)} {
		if err := ask(conn, request, "451"); err == nil || !strings.Contains(err.Error(), `"action=451 4.3.`) {
			t.Errorf("%s cannot be asked: %v", what, err)
		}
	}
	restore()
	eventually(t, func() bool { return ask(conn, owned, "DUNNO") == nil })
	i := 0
	eventually(t, func() bool {
		i++
		err := ask(conn, unknown(i), "")
		return strings.Contains(err.Error(), "Greylisted")
	})
	l.wantLogged(t, outOfDescriptors)
}

// startOwners starts a table that closes each connection after one answer, and returns its
// name. It lists one sender, of alice.
func startOwners(t *testing.T) string {
	t.Helper()
	path := filepath.Join(openDir(t), "table")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() { // ends with the listener
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			question := make([]byte, 1000)
			n, _ := conn.Read(question)
			answer := "9:NOTFOUND ,"
			if strings.Contains(string(question[:n]), "press@home.example") {
				answer = "8:OK alice,"
			}
			_, _ = conn.Write([]byte(answer))
			_ = conn.Close()
		}
	}()
	return "socketmap:unix:" + path + ":owners"
}

// The same of DNS, which postern-milterd asks.
func TestMilterdWithoutDescriptors(t *testing.T) {
	t.Parallel()
	dns, err := resolvertest.Start("away.example. 60 IN TXT \"v=spf1 ip4:192.0.2.7 -all\"\nother.example. 60 IN TXT \"v=spf1 ip4:192.0.2.7 -all\"\n")
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	l := startLoneDaemon(t, nil, "postern-milterd", "--listen-verify", "--resolver="+dns.Addr())
	c, err := postfixtest.DialMilter(t.Context(), l.socket, postfixtest.MilterSession{Client: "192.0.2.7", Name: "mx.away.example", Helo: "mx.away.example", MTA: "mx.home.example"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	results := func(sender string) string {
		t.Helper()
		v, err := c.Send(postfixtest.MilterMail{Sender: sender, Recipient: Alice, Message: "From: " + sender + "\r\nSubject: x\r\n\r\nHello.\r\n"})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%c %s %q", v.Code, v.Reply, v.Fields)
	}
	if got := results("x@away.example"); !strings.Contains(got, "spf=pass") {
		t.Fatal(got)
	}
	restore := l.noDescriptors(t)
	if got := results("x@other.example"); strings.Contains(got, "spf=pass") || !strings.Contains(got, "temperror") && !strings.Contains(got, "451") {
		t.Errorf("without descriptors: %s", got)
	}
	restore()
	eventually(t, func() bool { return strings.Contains(results("x@other.example"), "spf=pass") })
	c.Close()
	l.wantLogged(t, outOfDescriptors)
}
