package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/milter"
)

// milterScript is a milter handler for a real Postfix: what it does with a
// message, the local part of the sender says. It keeps what it was told.
type milterScript struct {
	mu      sync.Mutex
	begun   []milter.Session
	ended   []milter.Message // those that came to their end
	bodies  []string
	closed  int
	records []record.Record
	changed chan struct{} // closed and replaced at every news
}

func newMilterScript() *milterScript { return &milterScript{changed: make(chan struct{})} }

func (s *milterScript) news(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.changed)
	s.changed = make(chan struct{})
}

// wait returns when what it looks at has come true.
func (s *milterScript) wait(t *testing.T, what string, looks func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		s.mu.Lock()
		ok, changed := looks(), s.changed
		s.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func (s *milterScript) Record(r *record.Record, _ time.Time) {
	s.news(func() { s.records = append(s.records, *r) })
}

func (s *milterScript) Begin(_ context.Context, session *milter.Session, m *milter.Message) (milter.Work, milter.Answer, error) {
	s.news(func() { s.begun = append(s.begun, *session) })
	w := &milterScriptWork{script: s, m: m}
	switch m.Sender.Local {
	case "reject-mail":
		return w, milter.Answer{Verdict: milter.Reject, Reply: milter.Reply{Text: "no mail"}}, nil
	case "accept-mail":
		return w, milter.Answer{Verdict: milter.Accept}, nil
	}
	return w, milter.Answer{}, nil
}

type milterScriptWork struct {
	script *milterScript
	m      *milter.Message
	body   strings.Builder
}

func (w *milterScriptWork) Recipient(_ context.Context, to mailaddr.Address) (milter.Answer, error) {
	if strings.HasPrefix(to.Local, "refused") {
		return milter.Answer{Verdict: milter.Reject, Reply: milter.Reply{Text: "not this one"}}, nil
	}
	return milter.Answer{}, nil
}

func (w *milterScriptWork) Headers(context.Context) (milter.Answer, error) {
	switch w.m.Sender.Local {
	case "reject-header":
		return milter.Answer{Verdict: milter.Reject, Reply: milter.Reply{Code: 554, Status: "5.6.0", Text: "100% no\nsecond line"}}, nil
	case "accept-header":
		return milter.Answer{Verdict: milter.Accept}, nil
	}
	return milter.Answer{}, nil
}

func (w *milterScriptWork) Body(chunk []byte) error {
	w.body.Write(chunk)
	return nil
}

func (w *milterScriptWork) Finish(context.Context) (milter.Decision, error) {
	w.script.news(func() {
		w.script.ended = append(w.script.ended, *w.m)
		w.script.bodies = append(w.script.bodies, w.body.String())
	})
	var d milter.Decision
	switch w.m.Sender.Local {
	case "defer-end":
		d.Verdict, d.Reply = milter.Defer, milter.Reply{Text: "later"}
	case "hold":
		d.Quarantine = "a test"
	case "modify":
		d.Change = []milter.Replacement{{Position: milter.Position{Name: "subject", Index: 1}, Value: "changed;\r\n folded"}}
		d.Delete = []milter.Position{{Name: "X-Forged", Index: 1}, {Name: "X-Forged", Index: 3}}
		d.Insert = []milter.Insertion{
			{Name: "X-Top", Value: "first;\r\n\tfolded"}, {Name: "X-Next", Value: "second"}, {Index: 1, Name: "X-Below", Value: "third"},
		}
	case "fail":
		return d, errors.New("no answer")
	}
	return d, nil
}

func (w *milterScriptWork) Close() { w.script.news(func() { w.script.closed++ }) }

// serveMilter serves script as the daemon does. stop drains it.
func serveMilter(t *testing.T, script *milterScript, kind milter.Listen) (addr string, stop func() error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := milter.New(milter.Options{Records: script, DrainTimeout: time.Hour}, milter.Settings{
		Sign: script, Verify: script, Originating: []string{"ORIGINATING"},
	})
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		served <- daemon.Serve(ctx, []daemon.Listener{{Listener: ln}}, daemon.ServeOptions{
			DrainTimeout: time.Minute,
			Handler: func(ctx context.Context, conn *daemon.Conn) {
				server.ServeConn(ctx, conn, kind)
			},
		})
	}()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-served
	})
	t.Cleanup(func() { _ = stop() })
	return ln.Addr().String(), stop
}

// milterPostfix is a Postfix that asks script, and shouts when it cannot.
func milterPostfix(t *testing.T, kind milter.Listen) (p *postfixtest.Postfix, script *milterScript, addr string, stop func() error) {
	script = newMilterScript()
	addr, stop = serveMilter(t, script, kind)
	p = postfixtest.New(t, postfixtest.Config{
		TLS:        true,
		Users:      map[string]string{"alice@home.example": "secret"},
		Main:       []string{"smtpd_milters = inet:" + addr, "milter_default_action = tempfail", "smtpd_delay_reject = no"},
		Submission: []string{"milter_macro_daemon_name=ORIGINATING"},
	})
	return p, script, addr, stop
}

// dialMX opens an SMTP session that has said EHLO.
func dialMX(t *testing.T, p *postfixtest.Postfix) *postfixtest.Client {
	t.Helper()
	c, err := p.Dial(t.Context(), postfixtest.MX)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Hello("client.example"); err != nil {
		t.Fatal(err)
	}
	return c
}

// smtp sends a command and wants a reply that begins so.
func smtp(t *testing.T, c *postfixtest.Client, command, want string) {
	t.Helper()
	r, err := c.Cmd("%s", command)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%d %s", r.Code, strings.Join(r.Lines, "|")); !strings.HasPrefix(got, want) {
		t.Errorf("%s: %q, want %q", command, got, want)
	}
}

// smtpData sends a message and wants a reply that begins so.
func smtpData(t *testing.T, c *postfixtest.Client, message, want string) {
	t.Helper()
	r, err := c.Data(message)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%d %s", r.Code, strings.Join(r.Lines, "|")); !strings.HasPrefix(got, want) {
		t.Errorf("message: %q, want %q", got, want)
	}
}

const milterMail = "From: <a@away.example>\r\nSubject:  two spaces\r\nX-Tab:\tvalue\r\nX-Fold: one\r\n\ttwo\r\n  three\r\n" +
	"X-Empty:\r\nX-Tight:value\r\n\r\n.dot\r\n\r\nlast\r\n"

func transaction(t *testing.T, c *postfixtest.Client, from, want string) {
	t.Helper()
	smtp(t, c, "MAIL FROM:<"+from+">", "250")
	smtp(t, c, "RCPT TO:<bob@home.example>", "250")
	smtpData(t, c, milterMail, want)
}

// transactions sends a message for each answer that a milter may give.
func transactions(t *testing.T, c *postfixtest.Client) {
	t.Helper()
	transaction(t, c, "one@away.example", "250")
	smtp(t, c, "MAIL FROM:<reject-mail@away.example>", "550 5.7.1 no mail")
	transaction(t, c, "two@away.example", "250")
	transaction(t, c, "reject-header@away.example", "554 5.6.0 100% no|5.6.0 second line")
	transaction(t, c, "accept-header@away.example", "250")
	transaction(t, c, "accept-mail@away.example", "250")
	transaction(t, c, "defer-end@away.example", "451 4.7.1 later")
}

func TestMilterSessions(t *testing.T) {
	t.Parallel()
	p, script, addr, stop := milterPostfix(t, milter.BySession)

	t.Run("several messages", func(t *testing.T) {
		c := dialMX(t, p)
		transactions(t, c)
		transaction(t, c, "fail@away.example", "250")
		transaction(t, c, "three@away.example", "250")
		if err := c.Quit(); err != nil {
			t.Error(err)
		}
		checkHeldState(t, script)
	})
	t.Run("what the message is", func(t *testing.T) { checkMessage(t, p, script) })
	t.Run("rejected recipient", func(t *testing.T) {
		c := dialMX(t, p)
		for range 2 {
			smtp(t, c, "MAIL FROM:<rcpt@away.example>", "250")
			smtp(t, c, "RCPT TO:<refused1@home.example>", "550 5.7.1 not this one")
			smtp(t, c, "RCPT TO:<carol@home.example>", "250")
			smtp(t, c, "RCPT TO:<refused2@home.example>", "550 5.7.1 not this one")
			smtpData(t, c, milterMail, "250")
			m := lastEnded(t, script, "rcpt")
			if m.RecipientCount != 1 || m.Recipient.Raw != "carol@home.example" {
				t.Errorf("recipients %+v", m.Recipient)
			}
		}
	})
	t.Run("STARTTLS with a second HELO", func(t *testing.T) {
		c := dialMX(t, p)
		if err := c.StartTLS(p.TLSConfig()); err != nil {
			t.Fatal(err)
		}
		if err := c.Hello("tls.example"); err != nil {
			t.Fatal(err)
		}
		transaction(t, c, "tls@away.example", "250")
		if err := c.Hello("again.example"); err != nil {
			t.Fatal(err)
		}
		transaction(t, c, "tls@away.example", "250")
		script.mu.Lock()
		defer script.mu.Unlock()
		last := script.begun[len(script.begun)-2:]
		if last[0].Helo != "tls.example" || !strings.HasPrefix(last[0].TLSVersion, "TLS") || last[1].Helo != "again.example" ||
			last[1].Client.String() != "127.0.0.1" || last[1].Port == 0 {
			t.Errorf("sessions %+v", last)
		}
	})
	t.Run("RSET", func(t *testing.T) {
		c := dialMX(t, p)
		for range 2 {
			smtp(t, c, "MAIL FROM:<reset@away.example>", "250")
			smtp(t, c, "RCPT TO:<refused@home.example>", "550")
			smtp(t, c, "RSET", "250")
			smtp(t, c, "MAIL FROM:<reset@away.example>", "250")
			smtp(t, c, "RCPT TO:<bob@home.example>", "250")
			smtp(t, c, "RSET", "250")
			transaction(t, c, "reset@away.example", "250")
			if m := lastEnded(t, script, "reset"); m.RecipientCount != 1 {
				t.Errorf("recipients %+v", m.Recipient)
			}
		}
	})
	t.Run("roles", func(t *testing.T) { checkRoles(t, p, script) })
	t.Run("modifications", func(t *testing.T) { checkModified(t, p) })
	t.Run("quarantine", func(t *testing.T) {
		transaction(t, dialMX(t, p), "hold@away.example", "250")
		queue, err := p.Queue(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		held := func(q postfixtest.Queued) bool {
			return q.QueueName == "hold" && q.Sender == "hold@away.example"
		}
		if !slices.ContainsFunc(queue, held) {
			t.Errorf("queue %+v", queue)
		}
	})
	t.Run("disconnects", func(t *testing.T) { checkDisconnects(t, p, script) })
	t.Run("drain", func(t *testing.T) { checkDrain(t, p, addr, stop) })
}

// Postfix waits for two replies a message from a listener that only signs, and does with
// it what it does with replies to each command.
func TestSignOnlySessions(t *testing.T) {
	t.Parallel()
	p, script, addr, stop := milterPostfix(t, milter.SignOnly)
	c := dialMX(t, p)
	transactions(t, c)
	smtp(t, c, "MAIL FROM:<reset@away.example>", "250")
	smtp(t, c, "RCPT TO:<refused@home.example>", "250")
	smtp(t, c, "RSET", "250")
	smtp(t, c, "MAIL FROM:<reset@away.example>", "250")
	smtp(t, c, "RCPT TO:<bob@home.example>", "250")
	smtp(t, c, "RCPT TO:<carol@home.example>", "250")
	smtpData(t, c, milterMail, "250")
	if m := lastEnded(t, script, "reset"); m.RecipientCount != 2 || m.QueueID == "" {
		t.Errorf("message %+v", m)
	}
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
	checkMessage(t, p, script)
	checkModified(t, p)
	checkDrain(t, p, addr, stop)
}

// lastEnded gives the latest message that came to its end, of that sender.
func lastEnded(t *testing.T, script *milterScript, local string) milter.Message {
	t.Helper()
	script.mu.Lock()
	defer script.mu.Unlock()
	for _, m := range slices.Backward(script.ended) {
		if m.Sender.Local == local {
			return m
		}
	}
	t.Fatalf("no message of %s came to its end", local)
	return milter.Message{}
}

// checkHeldState looks at the first session: what CONNECT told holds for all of
// its messages.
func checkHeldState(t *testing.T, script *milterScript) {
	script.mu.Lock()
	defer script.mu.Unlock()
	if len(script.begun) != 9 {
		t.Errorf("%d messages", len(script.begun))
	}
	for _, s := range script.begun {
		if s != script.begun[0] || s.Helo != "client.example" || s.Client.String() != "127.0.0.1" || s.MTA != "mail.home.example" {
			t.Errorf("session %+v", s)
		}
	}
	var verdicts []string
	for _, r := range script.records {
		verdicts = append(verdicts, r.Verdict)
		if r.Verdict == "error" && r.Err == nil {
			t.Errorf("record %+v", r)
		}
	}
	if got := strings.Join(verdicts, " "); got != "pass reject pass reject pass pass defer error pass" {
		t.Errorf("verdicts %s", got)
	}
}

// checkMessage compares what Postfix delivers with what the milter saw, octet by
// octet.
func checkMessage(t *testing.T, p *postfixtest.Postfix, script *milterScript) {
	c := dialMX(t, p)
	smtp(t, c, "MAIL FROM:<exact@away.example> BODY=8BITMIME SMTPUTF8 SIZE=300", "250")
	smtp(t, c, "RCPT TO:<exact@home.example>", "250")
	smtpData(t, c, milterMail, "250")
	m := lastEnded(t, script, "exact")
	_, utf8 := m.Param("SMTPUTF8")
	if body, _ := m.Param("BODY"); body != "8BITMIME" || !utf8 || m.QueueID == "" {
		t.Errorf("message %+v", m)
	}
	var seen strings.Builder
	for _, f := range m.Header {
		seen.WriteString(f.Name + ":" + f.Value + "\r\n")
	}
	script.mu.Lock()
	seen.WriteString("\r\n" + script.bodies[len(script.bodies)-1])
	script.mu.Unlock()
	d, err := p.Delivered(t.Context(), "exact@home.example")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(string(d.Data), seen.String()) || !strings.Contains(seen.String(), "\r\nX-Tight:value\r\n") {
		t.Errorf("seen\n%q\ndelivered\n%q", seen.String(), d.Data)
	}
}

func checkRoles(t *testing.T, p *postfixtest.Postfix, script *milterScript) {
	r, err := p.Send(t.Context(), postfixtest.Submission, postfixtest.Mail{
		Login: "alice@home.example", Password: "secret",
		From: "role@home.example", To: []string{"bob@home.example"},
	})
	if err != nil || r.Final().Code != 250 {
		t.Fatalf("%v, %v", r.Final(), err)
	}
	m := lastEnded(t, script, "role")
	if m.Role != milter.Sign || m.Login != "alice@home.example" || m.AuthType != "PLAIN" {
		t.Errorf("message %+v", m)
	}
	script.mu.Lock()
	daemonName := script.begun[len(script.begun)-1].Daemon
	script.mu.Unlock()
	if daemonName != "ORIGINATING" {
		t.Errorf("daemon name %q", daemonName)
	}
	r, err = p.Send(t.Context(), postfixtest.MX, postfixtest.Mail{
		Client: "2001:db8::7", Name: "mx.away.example", From: "role@away.example", To: []string{"bob@home.example"},
	})
	if err != nil || r.Final().Code != 250 {
		t.Fatalf("%v, %v", r.Final(), err)
	}
	if m := lastEnded(t, script, "role"); m.Role != milter.Verify || m.Authenticated() {
		t.Errorf("message %+v", m)
	}
	script.mu.Lock()
	defer script.mu.Unlock()
	if s := script.begun[len(script.begun)-1]; s.Client.String() != "2001:db8::7" || s.Name != "mx.away.example" {
		t.Errorf("session %+v", s)
	}
}

func checkModified(t *testing.T, p *postfixtest.Postfix) {
	c := dialMX(t, p)
	smtp(t, c, "MAIL FROM:<modify@away.example>", "250")
	smtp(t, c, "RCPT TO:<modified@home.example>", "250")
	smtpData(t, c, "X-Forged: 1\r\nFrom: a@away.example\r\nX-Forged: 2\r\nSubject: old\r\nX-Forged: 3\r\n\r\nbody\r\n", "250")
	d, err := p.Delivered(t.Context(), "modified@home.example")
	if err != nil {
		t.Fatal(err)
	}
	text := string(d.Data)
	if got := d.Headers("X-Forged"); !slices.Equal(got, []string{"2"}) {
		t.Errorf("X-Forged left: %q", got)
	}
	if !strings.Contains(text, "\r\nsubject: changed;\r\n folded\r\n") || strings.Contains(text, "Subject: old") {
		t.Errorf("subject in %q", text)
	}
	top, next := strings.Index(text, "X-Top: first;\r\n\tfolded\r\n"), strings.Index(text, "X-Next: second\r\n")
	received, below := strings.Index(text, "Received: from client.example"), strings.Index(text, "X-Below: third\r\n")
	if top < 0 || top > next || next > received || received > below {
		t.Errorf("order in %q", text)
	}
}

// checkDisconnects leaves at every stage; the milter's work ends each time.
func checkDisconnects(t *testing.T, p *postfixtest.Postfix, script *milterScript) {
	steps := []string{"MAIL FROM:<gone@away.example>", "RCPT TO:<bob@home.example>", "DATA"}
	for n := range len(steps) + 2 {
		script.mu.Lock()
		begun, closed := len(script.begun), script.closed
		script.mu.Unlock()
		c := dialMX(t, p)
		for _, command := range steps[:min(n, len(steps))] {
			smtp(t, c, command, map[bool]string{true: "354", false: "250"}[command == "DATA"])
		}
		if n > len(steps) {
			if _, err := c.Write([]byte("Subject: half\r\n\r\nhalf a bo")); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			script.wait(t, "the end of abandoned work", func() bool {
				return len(script.begun) == begun+1 && script.closed == closed+1
			})
		}
		transaction(t, dialMX(t, p), "after@away.example", "250")
	}
}

// checkDrain stops the milter under a session that Postfix holds: its next
// messages must pass, and the milter ends with it.
func checkDrain(t *testing.T, p *postfixtest.Postfix, addr string, stop func() error) {
	c := dialMX(t, p)
	transaction(t, c, "drain@away.example", "250")
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	for { // until it accepts no more
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			break
		}
		_ = conn.Close()
	}
	transaction(t, c, "drain@away.example", "250")
	transaction(t, c, "drain@away.example", "250")
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
