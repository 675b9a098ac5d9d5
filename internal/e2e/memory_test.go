package e2e

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// memoryGroup is a cgroup whose processes may use little memory.
type memoryGroup struct{ dir, kills string }

// newMemoryGroup makes a cgroup with a limit in octets, of version 1 or 2.
func newMemoryGroup(t *testing.T, limit int) memoryGroup {
	t.Helper()
	postfixtest.Require(t) // root
	for _, v := range []struct{ mount, limit, kills string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.oom_control"},
		{"/sys/fs/cgroup", "memory.max", "memory.events"},
	} {
		dir, err := os.MkdirTemp(v.mount, "postern-")
		if err != nil {
			continue
		}
		t.Cleanup(func() { _ = syscall.Rmdir(dir) })
		if err := os.WriteFile(filepath.Join(dir, v.limit), []byte(strconv.Itoa(limit)), 0o600); err == nil {
			return memoryGroup{dir, filepath.Join(dir, v.kills)}
		}
	}
	const cannot = "cannot make a cgroup that limits memory"
	if os.Getenv("CI") != "" {
		t.Fatal(cannot)
	}
	t.Skip(cannot)
	return memoryGroup{}
}

// command starts another command in the group.
func (g memoryGroup) command() []string {
	return []string{"sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(g.dir, "cgroup.procs")}
}

// killed returns how many processes were killed because the group has no memory left.
func (g memoryGroup) killed(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(g.kills)
	if err != nil {
		t.Fatal(err)
	}
	_, count, _ := strings.Cut(string(text), "oom_kill ")
	count, _, _ = strings.Cut(count, "\n")
	n, err := strconv.Atoi(count)
	if err != nil {
		t.Fatalf("no oom_kill in %q", text)
	}
	return n
}

// shipped returns the programs as they are in a release.
func shipped(t *testing.T) *postfixtest.Binaries {
	t.Helper()
	b, err := postfixtest.NewShipped()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// Clients of postern-milterd send as much as it keeps for a message, and do not end it.
// With the memory limit of a small machine it stays alive, and goes on with large mails.
func TestMilterdMemoryLimit(t *testing.T) {
	t.Parallel()
	const sessions, mails = 48, 50
	group := newMemoryGroup(t, 160<<20)
	dns, err := resolvertest.Start("away.example. 60 IN TXT \"v=spf1 -all\"\n")
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	l := startLoneOf(t, shipped(t), group.command(), "postern-milterd", "--listen-verify", "--resolver="+dns.Addr())

	flood := milterFlood()
	var floods errgroup.Group
	for range sessions {
		conn := openSession(t, l.socket)
		floods.Go(func() error { return flood.send(conn) })
	}
	if err := floods.Wait(); err != nil {
		t.Fatalf("%v; %d times no memory was left", err, group.killed(t))
	}

	mail := postfixtest.MilterMail{Sender: Stranger, Recipient: Alice, Message: "From: " + Stranger + "\r\nSubject: x\r\n" +
		"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=away.example; s=s; h=from; bh=AAAA; b=AAAA\r\n\r\n" +
		strings.Repeat(strings.Repeat("x", 78)+"\r\n", 1<<20/80)}
	var honest errgroup.Group
	for range mails {
		c, err := postfixtest.DialMilter(t.Context(), l.socket, postfixtest.MilterSession{Client: "192.0.2.7", Name: "mx.away.example", Helo: "mx.away.example", MTA: "mx.home.example"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		honest.Go(func() error {
			v, err := c.Send(mail)
			if err == nil && !strings.Contains(strings.Join(v.Fields, "\n"), "dkim=permerror") {
				err = fmt.Errorf("a mail got %q %s %q", v.Code, v.Reply, v.Fields)
			}
			return err
		})
	}
	if err := honest.Wait(); err != nil {
		t.Error(err)
	}
	if n := group.killed(t); n > 0 {
		t.Errorf("%d times no memory was left", n)
	}
}

// milterFlood is a message that does not end, with everything that there may be much of.
func milterFlood() flood {
	const recipients = 1000
	text := frame('D', "C"+strings.Repeat("j\x00"+strings.Repeat("m", 1000)+"\x00", 8)) +
		frame('C', "mx.away.example\x004\x00\x19192.0.2.7\x00") +
		frame('D', "H"+strings.Repeat("{tls_version}\x00"+strings.Repeat("v", 1000)+"\x00", 8)) +
		frame('H', "mx.away.example\x00") + frame('M', "<"+Stranger+">\x00") +
		strings.Repeat(frame('R', "<"+strings.Repeat("r", 4000)+"@home.example>\x00")+
			frame('R', "<r@home.example>\x00ORCPT="+strings.Repeat("r", 4000)+"\x00"), recipients/2) +
		strings.Repeat(frame('L', "References\x00"+strings.Repeat("\n "+strings.Repeat("<m@x>", 4), 5000)+"\x00"), 8)
	return flood{text + frame('U', "X"), 1 + recipients + 1}
}

func frame(command byte, payload string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(payload)+1))) + string(command) + payload
}

// flood is what a client sends, and how many replies it gets.
type flood struct {
	text    string
	replies int
}

func (f flood) send(conn net.Conn) error {
	var sending errgroup.Group
	sending.Go(func() error { _, err := io.WriteString(conn, f.text); return err })
	for i := range f.replies {
		if err := readFrame(conn, 'c'); err != nil {
			return fmt.Errorf("reply %d: %w", i, err)
		}
	}
	return sending.Wait()
}

// As many connections as postern-policyd allows have sent nearly the longest request. With
// a memory limit it stays alive, and answers all of them.
func TestPolicydMemoryLimit(t *testing.T) {
	t.Parallel()
	const conns = 1900
	group := newMemoryGroup(t, 320<<20)
	l := startLoneOf(t, shipped(t), group.command(), "postern-policyd", "--listen", "--checks=ownership", "--owners=inline:{ press@home.example=alice }")
	request := strings.TrimSuffix(loginRequest("press@home.example", "alice"), "\n")
	for i := range 4 {
		request += fmt.Sprintf("more%d=%s\n", i, strings.Repeat("x", 15<<10))
	}
	var all []net.Conn
	for range conns {
		all = append(all, l.dial(t))
		if _, err := io.WriteString(all[len(all)-1], request); err != nil {
			t.Fatalf("%v; %d times no memory was left", err, group.killed(t))
		}
	}
	for _, conn := range all {
		if err := ask(conn, "\n", "DUNNO"); err != nil {
			t.Fatalf("%v; %d times no memory was left", err, group.killed(t))
		}
	}
	if n := group.killed(t); n > 0 {
		t.Errorf("%d times no memory was left", n)
	}
}
