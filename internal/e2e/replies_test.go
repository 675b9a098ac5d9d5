package e2e

import (
	"bufio"
	"context"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/policy"
)

// replyRow is one reply that Postfix takes otherwise than it was meant, and the
// nearest thing that a check of ours could ask for.
type replyRow struct {
	name string
	raw  string // what the scripted server sends; "" closes the connection
	// what Postfix makes of it
	code int
	text string
	// what a check would have to return to get near it, and what the client
	// reads instead; a zero ours is a row that no verdict comes near
	verdict policy.Verdict
	ours    postfixtest.Reply
	stalls  bool // Postfix waits for more
}

// The recipient's local part shows the servers which row is meant.
var replyRows = map[string]replyRow{
	"barecode": {
		name: "a code without a text is taken for OK", raw: "action=450\n\n", code: 250,
		verdict: policy.Verdict{Kind: policy.Defer, Code: policy.CodeTemporary}, ours: postfixtest.Reply{Code: 451, Lines: []string{"4.3.0 "}},
	},
	"empty": {
		name: "an empty action is taken for OK", raw: "action=\n\n", code: 250,
		verdict: policy.Verdict{Kind: policy.Reject, Text: "\n"}, ours: postfixtest.Reply{Code: 550, Lines: []string{"5.7.1 "}},
	},
	"notext": {
		name: "a code with a status and no text", raw: "action=450 4.7.1\n\n", code: 450, text: "4.7.1",
		verdict: policy.Verdict{Kind: policy.Reject, Text: "  "}, ours: postfixtest.Reply{Code: 550, Lines: []string{"Rejected by policy"}},
	},
	"crlf": {
		name: "CR before LF stalls and ends in 451", raw: "action=DUNNO\r\n\r\n", code: 451, text: "4.3.5", stalls: true,
		verdict: policy.Verdict{Kind: policy.Defer, Text: "later\r\n\r\n"}, ours: postfixtest.Reply{Code: 450, Lines: []string{"later"}},
	},
	"utf8": {
		name: "bytes that are no UTF-8 end in 451", raw: "action=550 5.7.1 \xff\xfe\n\n", code: 451, text: "4.3.5",
		verdict: policy.Verdict{Kind: policy.Reject, Text: "\xff\xfe"}, ours: postfixtest.Reply{Code: 550, Lines: []string{"??"}},
	},
	"verb": {
		name: "an unknown verb ends in 451", raw: "action=REFUSE no\n\n", code: 451, text: "4.3.5",
		verdict: policy.Verdict{Kind: policy.Reject, Text: "REFUSE no"}, ours: postfixtest.Reply{Code: 550, Lines: []string{"REFUSE no"}},
	},
	"twoactions": {
		name: "of two actions the first wins", raw: "action=DUNNO\naction=REJECT\n\n", code: 250,
		verdict: policy.Verdict{Kind: policy.Reject, Text: "no\naction=OK\n"}, ours: postfixtest.Reply{Code: 550, Lines: []string{"no?action=OK"}},
	},
	"noreply": {
		name: "a connection closed without a reply is tried again and ends in 451", raw: "", code: 451, text: "4.3.5",
		// A check without an answer still gets a reply.
		ours: postfixtest.Reply{Code: 451, Lines: []string{"4.3.0"}},
	},
	"slow": {
		name: "a reply behind smtpd_policy_service_timeout ends in 451", raw: "never", code: 451, text: "4.3.5", stalls: true,
		// A check that hangs is cut off at the deadline.
		ours: postfixtest.Reply{Code: 451, Lines: []string{"4.3.0"}},
	},
	"permit": {
		name: "DEFER_IF_PERMIT", raw: "action=DEFER_IF_PERMIT later\n\n", code: 450, text: "later",
		verdict: policy.Verdict{Kind: policy.Defer, Text: "later"}, ours: postfixtest.Reply{Code: 450, Lines: []string{"later"}},
	},
}

// impatient is a service that waits for a reply for a second only. The MX waits as long as
// Postfix does by default, so that no reply is late on a busy machine.
const impatient = "impatient"

// policyDeadline is when our server gives up a check that hangs.
const policyDeadline = 250 * time.Millisecond

// repliesPostfix is a Postfix whose MX asks address.
func repliesPostfix(t *testing.T, address string) *postfixtest.Postfix {
	ask := func(attributes string) string {
		return "smtpd_recipient_restrictions=" + CheckPolicy("inet:"+address, attributes)
	}
	return postfixtest.New(t, postfixtest.Config{
		MX:   []string{ask("")},
		More: []postfixtest.Service{{Name: impatient, Options: []string{ask("timeout=1s")}}},
	})
}

// TestRepliesThatPostfixMisreads sends each of them to a real Postfix, from a
// scripted server, so that a Postfix that reads them otherwise is noticed.
func TestRepliesThatPostfixMisreads(t *testing.T) {
	p := repliesPostfix(t, serveScript(t, new(atomic.Int64)))
	for to, row := range replyRows {
		t.Run(row.name, func(t *testing.T) {
			service := postfixtest.MX
			if row.stalls {
				service = impatient
			}
			got := mailTo(t, p, service, to)
			if got.Code != row.code || !strings.Contains(got.String(), row.text) {
				t.Errorf("Postfix answers %s, want %d %s", got, row.code, row.text)
			}
		})
	}
}

// TestRepliesOfOurs asks for the same of our server, whose replies come through
// the one file that spells them.
func TestRepliesOfOurs(t *testing.T) {
	p := repliesPostfix(t, servePolicy(t, new(atomic.Int64)))
	for to, row := range replyRows {
		t.Run(row.name, func(t *testing.T) {
			got := mailTo(t, p, postfixtest.MX, to)
			if got.Code != row.ours.Code || !strings.Contains(got.String(), row.ours.Lines[0]) {
				t.Errorf("Postfix answers %s, want %d %s", got, row.ours.Code, row.ours.Lines[0])
			}
			if row.code != row.ours.Code {
				return
			}
			if strings.Contains(got.String(), "Server configuration") {
				t.Errorf("Postfix has replaced our reply: %s", got)
			}
		})
	}
}

// A server that closes after its reply costs the next request of the session a
// second; ours keeps the connection.
func TestConnectionIsKept(t *testing.T) {
	var closing, ours atomic.Int64
	for _, server := range []struct {
		name    string
		address string
		opened  *atomic.Int64
		want    int64
	}{
		{"closes after each reply", serveScript(t, &closing), &closing, 3},
		{"ours", servePolicy(t, &ours), &ours, 1},
	} {
		t.Run(server.name, func(t *testing.T) {
			p := repliesPostfix(t, server.address)
			c, err := p.Dial(t.Context(), postfixtest.MX)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.Hello("client.example"); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if r, err := c.Send(postfixtest.Mail{From: Stranger, To: []string{"closing@home.example"}}); err != nil || !r.Final().OK() {
					t.Fatalf("%v, %v", r, err)
				}
			}
			if got := server.opened.Load(); got != server.want {
				t.Errorf("%d connections for 3 requests, want %d", got, server.want)
			}
		})
	}
}

// PREPEND for two recipients puts the header into the message twice, and
// DEFER_IF_PERMIT concerns the one recipient only. Which is why a check that
// wants a header once has to remember the instance.
func TestRepliesForTwoRecipients(t *testing.T) {
	for name, address := range map[string]string{
		"scripted": serveScript(t, new(atomic.Int64)),
		"ours":     servePolicy(t, new(atomic.Int64)),
	} {
		t.Run(name, func(t *testing.T) {
			p := repliesPostfix(t, address)
			r, err := p.Send(t.Context(), postfixtest.MX, postfixtest.Mail{From: Stranger, To: []string{"header1@home.example", "header2@home.example", "permit@home.example"}})
			if err != nil {
				t.Fatal(err)
			}
			if r.Rcpt[0].Code != 250 || r.Rcpt[1].Code != 250 || r.Rcpt[2].Code != 450 {
				t.Errorf("recipients: %v", r.Rcpt)
			}
			d, err := p.Delivered(t.Context(), "header1@home.example")
			if err != nil {
				t.Fatal(err)
			}
			if got := d.Headers("X-Row"); !slices.Equal(got, []string{"header1", "header2"}) {
				t.Errorf("headers %q", got)
			}
		})
	}
}

func mailTo(t *testing.T, p *postfixtest.Postfix, service, local string) postfixtest.Reply {
	t.Helper()
	r, err := p.Send(t.Context(), service, postfixtest.Mail{From: Stranger, To: []string{local + "@home.example"}})
	if err != nil {
		t.Fatal(err)
	}
	return r.Final()
}

// serveScript answers requests with the raw replies, and counts connections.
func serveScript(t *testing.T, opened *atomic.Int64) string {
	return serve(t, opened, func(conn net.Conn) {
		lines := bufio.NewReader(conn)
		for {
			local, err := readRecipient(lines)
			if err != nil {
				return
			}
			raw := replyRows[local].raw
			if strings.HasPrefix(local, "header") {
				raw = "action=PREPEND X-Row: " + local + "\n\n"
			}
			switch {
			case local == "closing":
				_, _ = io.WriteString(conn, "action=DUNNO\n\n")
				return
			case raw == "":
				return
			case raw == "never":
				_, _ = lines.ReadByte() // until Postfix gives up
				return
			}
			if _, err := io.WriteString(conn, raw); err != nil {
				return
			}
		}
	})
}

func readRecipient(r *bufio.Reader) (local string, err error) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		if rest, ok := strings.CutPrefix(line, "recipient="); ok {
			local, _, _ = strings.Cut(rest, "@")
		}
		if line == "\n" {
			return local, nil
		}
	}
}

// serve accepts until the test ends.
func serve(t *testing.T, opened *atomic.Int64, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			opened.Add(1)
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			wg.Go(func() {
				defer conn.Close()
				handle(conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// rowCheck wants what the row of the recipient says.
type rowCheck struct{}

func (rowCheck) Name() string { return "row" }

func (rowCheck) Check(ctx context.Context, r *policy.Request, _ policy.Signals) (policy.Verdict, error) {
	local := r.Recipient.Local
	switch {
	case strings.HasPrefix(local, "header"):
		return policy.Verdict{Kind: policy.Pass, Header: "X-Row: " + local}, nil
	case local == "closing":
		return policy.Verdict{Kind: policy.Pass}, nil
	case local == "noreply":
		return policy.Verdict{}, io.ErrUnexpectedEOF
	case local == "slow":
		<-ctx.Done()
		return policy.Verdict{}, ctx.Err()
	}
	return replyRows[mailaddr.Fold(local)].verdict, nil
}

type rowHooks struct{}

func (rowHooks) Hook(string, []string) (policy.Hook, error) {
	return policy.Hook{
		Chain:    policy.Chain{{Check: rowCheck{}, OnError: policy.ErrorDefer}},
		Deadline: policyDeadline,
		Release:  func() {},
	}, nil
}

type noLoad struct{}

func (noLoad) RequestStarted() {}
func (noLoad) RequestDone()    {}

// undrained is a connection that no one drains.
type undrained struct{ net.Conn }

func (undrained) Idle() bool { return true }
func (undrained) Busy() bool { return true }

func servePolicy(t *testing.T, opened *atomic.Int64) string {
	server := &policy.Server{Hooks: rowHooks{}, Report: policy.Reporter{Records: record.Sinks{}, Load: noLoad{}}}
	return serve(t, opened, func(conn net.Conn) { server.ServeConn(undrained{conn}, nil) })
}
