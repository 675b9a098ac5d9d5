package milter_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/milter"
	"github.com/postern-mail/postern/milter/wire/wiretest"
)

// What Postfix offers with milter_protocol = 2, 3 and 4.
var oldOffers = map[string][3]uint32{
	"2": {2, 0x3f, 0x7f},
	"3": {3, 0x3f, 0x17f},
	"4": {4, 0x3f, 0x37f},
}

// An MTA with an old protocol version waits for each reply, removes a space from
// every field and adds one to every field of ours.
func TestOldProtocols(t *testing.T) {
	for version, offer := range oldOffers {
		t.Run(version, func(t *testing.T) {
			var header []milter.Field
			h := &spy{finish: func(_ context.Context, m *milter.Message) (milter.Decision, error) {
				header = slices.Clone(m.Header)
				return milter.Decision{
					Insert:     []milter.Insertion{{Name: "X-Ours", Value: "one"}},
					Delete:     []milter.Position{{Name: "X-Theirs", Index: 1}},
					Quarantine: "because",
				}, nil
			}}
			path, books := start(t, h, milter.VerifyOnly)
			c := wiretest.Dial(t, "unix", path)
			n := c.NegotiateWith(offer[0], offer[1], offer[2])
			if n.Actions != 0x31 || n.Protocol&^offer[2] != 0 || len(n.Macros) != 0 {
				t.Errorf("negotiated %+v", n)
			}
			c.Macros('C', "j", "mx.example", "{daemon_name}", "smtpd")
			wantReply(t, "CONNECT", c.Connect("h", client), "continue")
			wantReply(t, "HELO", c.Helo("helo.example"), "continue")
			for range 2 {
				wantReply(t, "MAIL", c.Mail("<a@example.org>"), "continue")
				wantReply(t, "RCPT", c.Rcpt("<b@example.com>"), "continue")
				wantReply(t, "header", c.Header("Subject", "one"), "continue")
				c.Header("X-Two", " two")
				c.Header("X-Tab", "\ttab")
				c.Header("X-Fold", "\n fold")
				c.Header("X-Empty", "")
				wantReply(t, "end of header", c.EndOfHeader(), "continue")
				wantReply(t, "body", c.Body("x\r\n"), "continue")
				done := c.EndOfMessage()
				wantReply(t, "end", done, "accept")
				if fmt.Sprint(done.Changes) != "[m 1 X-Theirs: i 0 X-Ours:one]" || done.Quarantine != "because" {
					t.Errorf("modifications %v, %q", done.Changes, done.Quarantine)
				}
				var got []string
				for _, f := range header {
					got = append(got, f.Name+":"+f.Value)
				}
				want(t, "header", got, []string{"Subject: one", "X-Two:  two", "X-Tab:\ttab", "X-Fold:\r\n fold", "X-Empty:"})
				if r := books.next(); r.Err != nil {
					t.Errorf("record %+v", r)
				}
			}
			c.Quit()
		})
	}
}

// Actions that the MTA does not offer are left out, and the record has an error.
func TestActionsThatAreNotOffered(t *testing.T) {
	h := &spy{finish: func(context.Context, *milter.Message) (milter.Decision, error) {
		return milter.Decision{
			Insert:     []milter.Insertion{{Name: "X-Ours", Value: "one"}},
			Delete:     []milter.Position{{Name: "X-Theirs", Index: 1}},
			Quarantine: "because",
		}, nil
	}}
	path, books := start(t, h, milter.VerifyOnly)
	c := wiretest.Dial(t, "unix", path)
	c.NegotiateWith(2, 0, 0x7f)
	c.Connect("h", client)
	c.Helo("h")
	done := c.Send(mail("a@example.org", "<b@example.com>"))
	wantReply(t, "end", done, "accept")
	if len(done.Changes) != 0 || done.Quarantine != "" {
		t.Errorf("modifications %v", done.Changes)
	}
	r := books.next()
	for _, what := range []string{"add header", "delete header", "hold mail"} {
		if r.Err == nil || !strings.Contains(r.Err.Error(), what) {
			t.Errorf("%q is not in the error %v", what, r.Err)
		}
	}
}

// Sessions of an old protocol are counted each.
func TestOldProtocolsAreCounted(t *testing.T) {
	counted := make(chan uint32, 10)
	server := milter.New(milter.Options{Limited: func(version uint32) { counted <- version }}, milter.Settings{Verify: new(spy)})
	path := wiretest.Listen(t, func(ctx context.Context, conn net.Conn) { server.ServeConn(ctx, conn, milter.VerifyOnly) })
	for _, version := range []uint32{2, 2} {
		c := wiretest.Dial(t, "unix", path)
		c.NegotiateWith(version, 0x3f, 0x7f)
		c.Connect("h", client)
		c.Helo("h")
		passes(t, c)
		if got := <-counted; got != version {
			t.Errorf("version %d", got)
		}
	}
	passes(t, open(t, path))
	if len(counted) != 0 {
		t.Error("a session of version 6 is counted")
	}
}

// CONNECT, HELO and the end of the header may be missing; the message is the same.
func TestMissingCommands(t *testing.T) {
	var seen []milter.Session
	h := &spy{begin: func(s *milter.Session, _ *milter.Message) (milter.Answer, error) {
		seen = append(seen, *s)
		return milter.Answer{}, nil
	}}
	path, _ := start(t, h, milter.VerifyOnly)
	c := wiretest.Dial(t, "unix", path)
	c.Negotiate()
	send := func() {
		t.Helper()
		c.Macros('M', "{client_addr}", "192.0.2.7", "j", "mx.example")
		c.Mail("<a@example.org>")
		c.Rcpt("<b@example.com>")
		c.Header("From", " a@example.org")
		c.Body("x\r\n")
		wantReply(t, "end", c.EndOfMessage(), "accept")
		if told := h.take(); !slices.Contains(told, "headers 1") || !slices.Contains(told, "finish  to=1 body=3") {
			t.Errorf("told %q", told)
		}
	}
	send()
	c.Helo("helo.example")
	send()
	base := milter.Session{MTA: "mx.example", Client: netip.MustParseAddr("192.0.2.7")}
	helo := base
	helo.Helo = "helo.example"
	if !slices.Equal(seen, []milter.Session{base, base}) && !slices.Equal(seen, []milter.Session{base, helo}) {
		t.Errorf("sessions %+v", seen)
	}
	c.Quit()
}

// A refusal because of the header is sent at the end of the message if the end of the
// header did not come.
func TestRefusalWithoutEndOfHeader(t *testing.T) {
	h := &spy{headers: func(context.Context, *milter.Message) (milter.Answer, error) {
		return milter.Answer{Verdict: milter.Reject}, nil
	}}
	path, books := start(t, h, milter.VerifyOnly)
	c := open(t, path)
	for range 2 {
		c.Mail("<a@example.org>")
		c.Rcpt("<b@example.com>")
		c.Header("From", " a@example.org")
		c.Body("x\r\n")
		wantReply(t, "end", c.EndOfMessage(), "550 5.7.1 Message rejected")
		books.next()
	}
	books.none(t)
	c.Quit()
}

// After QUIT_NC the session of another client follows, without values of the first
// one.
func TestQuitForNewConnection(t *testing.T) {
	var seen []milter.Session
	h := &spy{begin: func(s *milter.Session, _ *milter.Message) (milter.Answer, error) {
		seen = append(seen, *s)
		return milter.Answer{}, nil
	}}
	path, _ := start(t, h, milter.VerifyOnly)
	c := open(t, path)
	c.Mail("<abandoned@example.org>")
	c.Packet('K', "")
	passes(t, c)
	c.Packet('K', "")
	c.Connect("second.example", netip.MustParseAddrPort("192.0.2.99:5"))
	c.Helo("h2")
	passes(t, c)
	if len(seen) != 3 || seen[1] != (milter.Session{}) || seen[2].Client.String() != "192.0.2.99" || seen[2].Helo != "h2" || seen[2].MTA != "" {
		t.Errorf("sessions %+v", seen)
	}
	c.Quit()
}

// cleanup(8) sends the null reverse path as an empty string. Such mail is judged
// like any other, and never refused or held.
func TestNullSenderOfCleanup(t *testing.T) {
	reject := milter.Answer{Verdict: milter.Reject, Reason: record.DMARCRejected}
	for name, h := range map[string]*spy{
		"at MAIL":   {begin: func(*milter.Session, *milter.Message) (milter.Answer, error) { return reject, nil }},
		"at RCPT":   {recipient: func(string) (milter.Answer, error) { return milter.Answer{Verdict: milter.Defer}, nil }},
		"at header": {headers: func(context.Context, *milter.Message) (milter.Answer, error) { return reject, nil }},
		"at end": {finish: func(context.Context, *milter.Message) (milter.Decision, error) {
			return milter.Decision{Answer: reject}, nil
		}},
		"held": {finish: func(context.Context, *milter.Message) (milter.Decision, error) {
			return milter.Decision{Quarantine: "because"}, nil
		}},
		"passes": {},
	} {
		t.Run(name, func(t *testing.T) {
			path, books := start(t, h, milter.VerifyOnly)
			c := open(t, path)
			reply := c.Mail("")
			for _, next := range []func() wiretest.Reply{
				func() wiretest.Reply { return c.Rcpt("<b@example.com>") },
				func() wiretest.Reply { return c.Header("From", " a@example.org") },
				c.EndOfHeader,
				func() wiretest.Reply {
					done := c.EndOfMessage()
					if done.Quarantine != "" {
						t.Errorf("quarantine %q", done.Quarantine)
					}
					return done.Reply
				},
			} {
				if reply.Continues() {
					reply = next()
				}
			}
			wantReply(t, "the message", reply, "accept")
			if r := books.next(); r.Sender != "<>" || r.Verdict != "pass" {
				t.Errorf("record %+v", r)
			}
			books.none(t)
			c.Quit()
		})
	}
}
