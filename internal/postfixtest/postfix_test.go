package postfixtest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var users = map[string]string{"alice@home.example": "secret"}

func TestDeliveryAndRefusal(t *testing.T) {
	t.Parallel()
	p := New(t, Config{Users: users, TLS: true, Mailboxes: []string{"alice@home.example"}})
	tests := []struct {
		name    string
		service string
		mail    Mail
		want    int
	}{
		{"inbound", MX, Mail{From: "bob@away.example", To: []string{"alice@home.example"}}, 250},
		{"inbound with extension", MX, Mail{From: "bob@away.example", To: []string{"alice+x@home.example"}}, 250},
		{"inbound, no such mailbox", MX, Mail{From: "bob@away.example", To: []string{"nobody@home.example"}}, 550},
		{"inbound, relaying", MX, Mail{From: "bob@away.example", To: []string{"eve@elsewhere.example"}}, 454},
		{"inbound from a presented client", MX, Mail{From: "bob@away.example", To: []string{"alice@home.example"}, Client: "192.0.2.9", Name: "mx.away.example"}, 250},
		{"inbound over IPv6", MX, Mail{From: "", To: []string{"alice@home.example"}, Client: "2001:db8::9"}, 250},
		{"submission outbound", Submission, Mail{Login: "alice@home.example", Password: "secret", From: "alice@home.example", To: []string{"eve@elsewhere.example"}}, 250},
		{"submission over TLS", Submission, Mail{TLS: p.TLSConfig(), Login: "alice@home.example", Password: "secret", From: "alice@home.example", To: []string{"eve2@elsewhere.example"}}, 250},
		{"submission without login", Submission, Mail{From: "alice@home.example", To: []string{"eve@elsewhere.example"}}, 454},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r, err := p.Send(t.Context(), test.service, test.mail)
			if err != nil {
				t.Fatal(err)
			}
			if r.Final().Code != test.want {
				t.Fatalf("got %s, want %d", r.Final(), test.want)
			}
			if test.want != 250 {
				return
			}
			d, err := p.Delivered(t.Context(), test.mail.To[0])
			if err != nil {
				t.Fatal(err)
			}
			if d.Sender != test.mail.From || d.Header("subject") != "a test" {
				t.Errorf("delivered %q from %q", d.Data, d.Sender)
			}
			if test.mail.Client != "" && !strings.Contains(d.Header("Received"), test.mail.Client) {
				t.Errorf("Received %q does not name %s", d.Header("Received"), test.mail.Client)
			}
		})
	}
	if left := p.Deliveries(); len(left) != 0 {
		t.Errorf("delivered more than was accepted: %v", left)
	}
}

func TestWrongPassword(t *testing.T) {
	t.Parallel()
	p := New(t, Config{Users: users})
	_, err := p.Send(t.Context(), Submission, Mail{Login: "alice@home.example", Password: "guess", To: []string{"x@home.example"}})
	refused := new(ReplyError)
	if !errors.As(err, &refused) || refused.Reply.Code != 535 {
		t.Fatalf("got %v, want a 535", err)
	}
	if strings.Contains(err.Error(), "guess") {
		t.Errorf("the error %q holds the password", err)
	}
}

func TestRawSession(t *testing.T) {
	t.Parallel()
	p := New(t, Config{Main: []string{"smtpd_helo_required = yes"}})
	c, err := p.Dial(t.Context(), MX)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Hello("client.example"); err != nil {
		t.Fatal(err)
	}
	replies, err := c.Pipeline("MAIL FROM:<a@away.example>", "RCPT TO:<one@home.example>", "RCPT TO:<two@elsewhere.example>", "RSET", "NOOP")
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, r := range replies {
		got = append(got, r.Code)
	}
	if want := []int{250, 250, 454, 250, 250}; !slices.Equal(got, want) {
		t.Errorf("pipelined replies %v, want %v", got, want)
	}
	if err := c.Quit(); err != nil {
		t.Fatal(err)
	}
}

func TestLogAndQueue(t *testing.T) {
	t.Parallel()
	p := New(t, Config{Main: []string{"defer_transports = lmtp"}, More: []Service{{Name: "third", Options: []string{"smtpd_helo_restrictions=reject"}}}})
	if _, err := p.Send(t.Context(), MX, Mail{From: "a@away.example", To: []string{"b@home.example"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.WaitLog(t.Context(), func(l string) bool { return strings.Contains(l, "status=deferred") }); err != nil {
		t.Fatal(err)
	}
	q, err := p.Queue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(q) != 1 || q[0].Sender != "a@away.example" || q[0].Recipients[0].Address != "b@home.example" {
		t.Errorf("queue is %+v", q)
	}
	r, err := p.Send(t.Context(), "third", Mail{From: "a@away.example", To: []string{"b@home.example"}})
	if err != nil || r.Final().Code != 554 {
		t.Errorf("third service: %v, %v, want 554", r.Final(), err)
	}
	if _, err := p.WaitLog(t.Context(), func(l string) bool {
		return strings.Contains(l, "postfix/third/smtpd") && strings.Contains(l, "reject")
	}); err != nil {
		t.Error(err)
	}
}

func TestSendmail(t *testing.T) {
	t.Parallel()
	p := New(t, Config{})
	if err := p.Sendmail(t.Context(), "Subject: cron\n\n.\nwork\n", "-f", "root@home.example", "--", "admin@home.example"); err != nil {
		t.Fatal(err)
	}
	d, err := p.Delivered(t.Context(), "admin@home.example")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(string(d.Data), "\r\n\r\n.\r\nwork\r\n") {
		t.Errorf("delivered %q", d.Data)
	}
}

// TestStartFails asserts that a configuration Postfix refuses is an error with
// its reason, and leaves neither processes nor files.
func TestStartFails(t *testing.T) {
	Require(t)
	if _, err := FreeAddr(); err != nil { // its file stays
		t.Fatal(err)
	}
	tmp, err := os.MkdirTemp("", "pt-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(tmp) })
	if err := os.Chmod(tmp, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", tmp)
	tests := []struct {
		name, want string
		config     Config
	}{
		{"broken main.cf", "inet_protocols", Config{Users: users, Main: []string{"inet_protocols = ipv9"}}},
		{"line break", "line break", Config{Main: []string{"a = b\nc = d"}}},
		{"service twice", `"mx"`, Config{More: []Service{{Name: "mx"}}}},
		{"login with colon", "login", Config{Users: map[string]string{"a:b": "c"}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p, err := Start(t.Context(), test.config)
			if err == nil {
				t.Fatal("started", p.Stop())
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q does not hold %q", err, test.want)
			}
			if left, _ := filepath.Glob(filepath.Join(tmp, "*")); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
			if running := processesNaming(t, tmp); len(running) != 0 {
				t.Errorf("still running: %q", running)
			}
		})
	}
}

// processesNaming returns the command lines that hold text.
func processesNaming(t *testing.T, text string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, f := range files {
		// Processes come and go meanwhile.
		if line, err := os.ReadFile(f); err == nil && strings.Contains(string(line), text) {
			found = append(found, string(line))
		}
	}
	return found
}

func TestStartCancelled(t *testing.T) {
	Require(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if p, err := Start(ctx, Config{}); err == nil {
		t.Fatal("started", p.Stop())
	}
}
