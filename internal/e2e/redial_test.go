package e2e

import (
	"bufio"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/store/redistest"
)

// TestLimitRedial kills policyd when it has counted a request and Postfix does not have
// the answer. Postfix connects again and repeats the request, which counts once.
func TestLimitRedial(t *testing.T) {
	t.Parallel()
	for _, store := range []struct {
		name  string
		flags func(*testing.T) []string
		cuts  []policyCut
	}{
		{"sqlite", func(t *testing.T) []string {
			return []string{"--limit-store", "sqlite:" + filepath.Join(t.TempDir(), "limits.db")}
		}, []policyCut{
			{login: Alice, at: "recipient=" + Alice, stored: true},
			{login: Bob, at: "recipient=" + Alice, reserved: true},
			{login: Alice, at: "protocol_state=END-OF-MESSAGE", stored: true},
		}},
		{"redis", func(t *testing.T) []string {
			return []string{"--limit-store", "redis://" + redistest.Start(t).Addr}
		}, []policyCut{
			{login: Alice, at: "recipient=" + Alice},
			{login: Bob, at: "protocol_state=END-OF-MESSAGE", reserved: true},
		}},
	} {
		t.Run(store.name, func(t *testing.T) {
			t.Parallel()
			relay := newPolicyRelay(t)
			relay.site = newSite(t, SiteConfig{
				Policyd: append(store.flags(t), "--checks", "ownership,limit", "--limit", "login.recipients=50/1h", "--limit", "login.messages=50/1h"),
				Postfix: func(c *postfixtest.Config) { c.Submission = LimitHooks("inet:" + relay.Addr().String()) },
			})
			for _, cut := range store.cuts {
				relay.try(t, &cut)
			}
		})
	}
}

// policyCut is a request whose answer does not arrive.
type policyCut struct {
	login    string
	at       string // is in the request
	stored   bool   // the count is on disk
	reserved bool   // the daemon knows that Postfix asks at the end of mails
	done     bool
}

// try sends a mail and checks that its three recipients count once.
func (p *policyRelay) try(t *testing.T, cut *policyCut) {
	if cut.reserved {
		expect(t, p.site, postfixtest.Submission, As(Alice, "", Dora), 250)
	}
	before := p.site.usedAll(t, cut.login)
	p.mu.Lock()
	p.cut = cut
	p.mu.Unlock()
	expect(t, p.site, postfixtest.Submission, As(cut.login, "", limitRecipients(3)...), 250)
	used := p.site.usedAll(t, cut.login)
	if !cut.done || used[0] != before[0]+3 || used[1] != before[1]+1 {
		t.Errorf("%+v: used %d, before %d", *cut, used, before)
	}
}

// usedAll returns how many recipients and mails a login has used.
func (s *Site) usedAll(t *testing.T, login string) (used [2]int64) {
	t.Helper()
	for i, u := range s.uses(t, "login", login) {
		used[i] = u.Used
	}
	return used
}

// policyRelay is between Postfix and policyd. It passes each request on a connection of
// its own. Instead of passing one answer, it kills policyd and starts it again.
type policyRelay struct {
	net.Listener
	t    *testing.T
	site *Site

	mu  sync.Mutex // is held while a request is passed
	cut *policyCut
}

func newPolicyRelay(t *testing.T) *policyRelay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &policyRelay{Listener: l, t: t}
	var done sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); done.Wait() })
	done.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			done.Go(func() {
				p.serve(conn)
				_ = conn.Close()
			})
		}
	})
	return p
}

// serve passes requests and answers until one side has ended.
func (p *policyRelay) serve(conn net.Conn) {
	requests := bufio.NewReader(conn)
	for {
		request, err := untilEmptyLine(requests)
		if err != nil {
			return
		}
		if answer := p.pass(request); answer == "" {
			return
		} else if _, err := conn.Write([]byte(answer)); err != nil {
			return
		}
	}
}

// pass returns the answer to a request, or "" if there is none.
func (p *policyRelay) pass(request string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	conn, err := net.Dial("tcp", p.site.PolicyAddr)
	if err != nil {
		p.t.Error(err)
		return ""
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte(request)); err != nil {
		p.t.Error(err)
		return ""
	}
	answer, err := untilEmptyLine(bufio.NewReader(conn))
	if err != nil {
		p.t.Error(err)
		return ""
	}
	if c := p.cut; c != nil && !c.done && strings.Contains(request, "\n"+c.at+"\n") {
		c.done = true
		p.restart(c.stored)
		return ""
	}
	return answer
}

// restart kills policyd and starts it again. A block is on disk when it is set, with all
// that was counted before.
func (p *policyRelay) restart(stored bool) {
	if stored {
		p.site.postern(p.t, "limits", "block", Press, "1h")
	}
	p.site.Policyd.Kill()
	if err := p.site.StartPolicyd(p.t.Context()); err != nil {
		p.t.Error(err)
	}
}

func untilEmptyLine(r *bufio.Reader) (string, error) {
	var text strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		if text.WriteString(line); line == "\n" {
			return text.String(), nil
		}
	}
}
