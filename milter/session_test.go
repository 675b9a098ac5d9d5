package milter_test

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/milter"
	"github.com/postern-mail/postern/milter/wire/wiretest"
)

func TestNegotiation(t *testing.T) {
	path, _ := start(t, new(spy), milter.BySession)
	n := wiretest.Dial(t, "unix", path).Negotiate()
	// ADDHDRS, CHGHDRS, QUARANTINE, SETSYMLIST; no replies to header fields and their
	// end, body chunks, CONNECT and HELO, no UNKNOWN, no DATA, and leading space.
	if n.Version != 2 || n.Actions != 0x131 || n.Protocol != 0x1c3380 {
		t.Errorf("negotiated %+v", n)
	}
	lists := map[uint32]string{
		0: "j {daemon_name} {client_addr} {client_ptr}", 1: "{tls_version}",
		2: "i {auth_type} {auth_authen}", 3: "i", 4: "i", 5: "i", 6: "i",
	}
	for stage, list := range lists {
		if n.Macros[stage] != list {
			t.Errorf("macros of stage %d: %q, want %q", stage, n.Macros[stage], list)
		}
	}
}

// CONNECT and HELO apply to every message of a session, however the previous one
// ended.
func TestManyMessagesOnOneSession(t *testing.T) {
	reject := milter.Answer{Verdict: milter.Reject}
	h := &spy{
		begin: func(_ *milter.Session, m *milter.Message) (milter.Answer, error) {
			if m.Sender.Local == "bad" {
				return reject, nil
			}
			return milter.Answer{}, nil
		},
		finish: func(_ context.Context, m *milter.Message) (milter.Decision, error) {
			if m.Sender.Local == "late" {
				return milter.Decision{Answer: reject}, nil
			}
			return milter.Decision{}, nil
		},
	}
	path, _ := start(t, h, milter.VerifyOnly)
	c := open(t, path)
	const begun = "verify 192.0.2.1 helo=helo.example from="
	steps := []struct {
		from, reply string
		abort       bool // as Postfix does after some messages
		told        []string
	}{
		{"one@x.example", "accept", false, []string{"headers 4", "finish 4XQUEUEID to=1 body=7", "close"}},
		{"two@x.example", "accept", true, []string{"headers 4", "finish 4XQUEUEID to=1 body=7", "close"}},
		{"bad@x.example", "550 5.7.1 Message rejected", false, []string{"close"}},
		{"three@x.example", "accept", false, []string{"headers 4", "finish 4XQUEUEID to=1 body=7", "close"}},
		{"late@x.example", "550 5.7.1 Message rejected", true, []string{"headers 4", "finish 4XQUEUEID to=1 body=7", "close"}},
		{"four@x.example", "accept", false, []string{"headers 4", "finish 4XQUEUEID to=1 body=7", "close"}},
	}
	for _, s := range steps {
		wantReply(t, s.from, c.Send(mail(s.from, "<b@example.com>")), s.reply)
		if s.abort {
			c.Abort()
		}
		want(t, s.from, h.take(), append([]string{begun + s.from}, s.told...))
	}
	c.Quit()
}

func TestRejectedRecipient(t *testing.T) {
	h := &spy{recipient: func(to string) (milter.Answer, error) {
		switch {
		case strings.HasPrefix(to, "no"):
			return milter.Answer{Verdict: milter.Reject, Reply: milter.Reply{Text: "not here"}}, nil
		case strings.HasPrefix(to, "later"):
			return milter.Answer{Verdict: milter.Defer}, nil
		case strings.HasPrefix(to, "fine"):
			return milter.Answer{Verdict: milter.Accept}, nil
		}
		return milter.Answer{}, nil
	}}
	path, books := start(t, h, milter.VerifyOnly)
	c := open(t, path)
	for range 2 {
		c.Mail("<a@example.org>")
		for _, to := range []struct{ addr, reply string }{
			{"no@example.com", "550 5.7.1 not here"},
			{"yes@example.com", "continue"},
			{"later@example.com", "451 4.7.1 Try again later"},
			{"fine@example.com", "continue"},
			{"no2@example.com", "550 5.7.1 not here"},
		} {
			c.Macros('R', "i", "4XQUEUE")
			wantReply(t, to.addr, c.Rcpt("<"+to.addr+">"), to.reply)
			if to.reply != "continue" {
				r := books.next()
				if r.Recipient != to.addr || r.Action != to.reply || r.QueueID != "4XQUEUE" {
					t.Errorf("record %+v", r)
				}
			}
		}
		c.Header("From", " x")
		c.EndOfHeader()
		wantReply(t, "end", c.EndOfMessage(), "accept")
		if told := h.take(); !slices.Contains(told, "finish 4XQUEUE to=2 body=0") {
			t.Errorf("told %q", told)
		}
		if r := books.next(); r.Recipient != "yes@example.com" {
			t.Errorf("record %+v", r)
		}
	}
	books.none(t)
}

// After STARTTLS, Postfix sends HELO again and then aborts the previous message.
func TestSecondHelo(t *testing.T) {
	var seen []milter.Session
	h := &spy{begin: func(s *milter.Session, _ *milter.Message) (milter.Answer, error) {
		seen = append(seen, *s)
		return milter.Answer{}, nil
	}}
	path, _ := start(t, h, milter.VerifyOnly)
	c := wiretest.Dial(t, "unix", path)
	c.Negotiate()
	c.Macros('C', "j", "mx.example", "{daemon_name}", "smtpd", "{client_addr}", "2001:db8::5", "{client_ptr}", "ptr.example")
	c.Connect("name.example", netip.MustParseAddrPort("[::ffff:192.0.2.9]:99"))
	c.Helo("plain.example")
	c.Abort()
	c.Macros('H', "{tls_version}", "TLSv1.3")
	c.Helo("tls.example")
	c.Abort()
	passes(t, c)
	c.Mail("<abandoned@example.org>")
	c.Helo("third.example")
	c.Abort()
	passes(t, c)
	base := milter.Session{
		MTA: "mx.example", Daemon: "smtpd", Client: netip.MustParseAddr("2001:db8::5"), Port: 99,
		Name: "name.example", Reverse: "ptr.example", Helo: "tls.example", TLSVersion: "TLSv1.3",
	}
	third := base
	third.Helo, third.TLSVersion = "third.example", ""
	if !slices.Equal(seen, []milter.Session{base, base, third}) {
		t.Errorf("sessions\n%+v", seen)
	}
}

func TestMessageValues(t *testing.T) {
	var got milter.Message
	h := &spy{finish: func(_ context.Context, m *milter.Message) (milter.Decision, error) {
		got = *m
		return milter.Decision{}, nil
	}}
	path, _ := start(t, h, milter.BySession)
	c := open(t, path)
	c.Send(wiretest.Mail{
		From: `<"a b"@Example.ORG>`, Params: []string{"SIZE=120", "BODY=8BITMIME", "smtputf8"},
		To:     []string{"<one@example.com>", "<two@example.com>"},
		Macros: []string{"{auth_authen}", "alice", "{auth_type}", "PLAIN"}, Message: message,
	})
	body, _ := got.Param("body")
	_, utf8 := got.Param("SMTPUTF8")
	if got.Sender.Local != "a b" || got.Sender.Domain != "example.org" || body != "8BITMIME" || !utf8 {
		t.Errorf("envelope %+v", got)
	}
	if _, ok := got.Param("RET"); ok {
		t.Error("a parameter that was not given")
	}
	if got.Role != milter.Sign || got.Login != "alice" || got.AuthType != "PLAIN" || !got.Authenticated() {
		t.Errorf("login %+v", got)
	}
	if got.Recipient.Raw != "one@example.com" {
		t.Errorf("recipient %+v", got.Recipient)
	}
	var header strings.Builder
	for _, f := range got.Header {
		header.WriteString(f.Name + ":" + f.Value + "\r\n")
	}
	if h, _, _ := strings.Cut(message, "\r\n\r\n"); header.String() != h+"\r\n" {
		t.Errorf("header %q", header.String())
	}
	if got.Get("message-id") != "<1@example.org>" || got.Get("X-None") != "" {
		t.Errorf("Get: %q", got.Get("message-id"))
	}
	// The next message has no macros and no parameters of this one.
	passes(t, c)
	if got.Login != "" || got.AuthType != "" || got.Role != milter.Verify || len(got.Params) != 0 || got.RecipientCount != 1 {
		t.Errorf("second message %+v", got)
	}
}

func TestMacrosAreNotStale(t *testing.T) {
	var logins, ids []string
	h := &spy{finish: func(_ context.Context, m *milter.Message) (milter.Decision, error) {
		logins, ids = append(logins, m.Login), append(ids, m.QueueID)
		return milter.Decision{}, nil
	}}
	path, _ := start(t, h, milter.BySession)
	c := open(t, path)
	for _, login := range []string{"alice", ""} {
		if login != "" {
			c.Macros('M', "{auth_authen}", login, "i", "STALE")
		}
		c.Mail("<a@example.org>")
		c.Rcpt("<b@example.com>")
		c.Header("A", " b")
		c.EndOfHeader()
		c.EndOfMessage()
	}
	if !slices.Equal(logins, []string{"alice", ""}) || !slices.Equal(ids, []string{"STALE", ""}) {
		t.Errorf("logins %q, queue ids %q", logins, ids)
	}
}

func TestRoles(t *testing.T) {
	tests := []struct {
		name    string
		kind    milter.Listen
		client  string
		connect []string
		mail    []string
		want    milter.Role
	}{
		{"a stranger", milter.BySession, "192.0.2.1", nil, nil, milter.Verify},
		{"a login", milter.BySession, "192.0.2.1", nil, []string{"{auth_authen}", "alice"}, milter.Sign},
		{"a mechanism", milter.BySession, "192.0.2.1", nil, []string{"{auth_type}", "EXTERNAL"}, milter.Sign},
		{"empty login", milter.BySession, "192.0.2.1", nil, []string{"{auth_authen}", "", "{auth_type}", ""}, milter.Verify},
		{"submission", milter.BySession, "192.0.2.1", []string{"{daemon_name}", "Originating"}, nil, milter.Sign},
		{"other daemon", milter.BySession, "192.0.2.1", []string{"{daemon_name}", "mx"}, nil, milter.Verify},
		{"no daemon", milter.BySession, "192.0.2.1", []string{"{daemon_name}", ""}, nil, milter.Verify},
		{"our network", milter.BySession, "10.1.2.3", nil, nil, milter.Sign},
		{"loopback is no proof", milter.BySession, "127.0.0.1", nil, nil, milter.Verify},
		{"sign listener", milter.SignOnly, "192.0.2.1", nil, nil, milter.Sign},
		{"verify listener", milter.VerifyOnly, "10.1.2.3", []string{"{daemon_name}", "ORIGINATING"},
			[]string{"{auth_authen}", "alice"}, milter.Verify},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var role milter.Role
			h := &spy{begin: func(_ *milter.Session, m *milter.Message) (milter.Answer, error) {
				role = m.Role
				return milter.Answer{}, nil
			}}
			path, books := start(t, h, tt.kind, func(s *milter.Settings) {
				s.Originating = []string{"ORIGINATING", ""}
				s.InternalNetworks = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
			})
			c := wiretest.Dial(t, "unix", path)
			c.Open(wiretest.Session{Client: netip.AddrPortFrom(netip.MustParseAddr(tt.client), 1), Helo: "h", Macros: tt.connect})
			c.Send(wiretest.Mail{From: "<a@example.org>", Macros: tt.mail, Message: message})
			if role != tt.want {
				t.Errorf("role %v, want %v", role, tt.want)
			}
			if r := books.next(); r.Check != tt.want.String() {
				t.Errorf("record %+v", r)
			}
		})
	}
}

func TestUnknownClient(t *testing.T) {
	h := new(spy)
	path, books := start(t, h, milter.BySession, func(s *milter.Settings) {
		s.InternalNetworks = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	})
	c := wiretest.Dial(t, "unix", path)
	c.Open(wiretest.Session{Name: "unknown", Helo: "h"})
	passes(t, c)
	if r := books.next(); r.Check != "verify" || r.ClientAddress != "" || r.ClientName != "unknown" || r.ClientPort != "" {
		t.Errorf("record %+v", r)
	}
}

func TestEarlyAnswers(t *testing.T) {
	deferral := milter.Answer{Verdict: milter.Defer, Reply: milter.Reply{Code: 450, Status: "4.7.23", Text: "SPF"}, Reason: record.Verified}
	tests := []struct {
		name   string
		h      *spy
		action string
		told   []string
	}{
		{"accept at MAIL", &spy{begin: func(*milter.Session, *milter.Message) (milter.Answer, error) {
			return milter.Answer{Verdict: milter.Accept}, nil
		}}, "accept", []string{"close"}},
		{"defer at MAIL", &spy{begin: func(*milter.Session, *milter.Message) (milter.Answer, error) { return deferral, nil }},
			"450 4.7.23 SPF", []string{"close"}},
		{"accept after the header", &spy{headers: func(context.Context, *milter.Message) (milter.Answer, error) {
			return milter.Answer{Verdict: milter.Accept}, nil
		}}, "accept", []string{"headers 4", "close"}},
		{"defer after the header", &spy{headers: func(context.Context, *milter.Message) (milter.Answer, error) { return deferral, nil }},
			"450 4.7.23 SPF", []string{"headers 4", "close"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path, books := start(t, tt.h, milter.VerifyOnly)
			c := open(t, path)
			for range 2 {
				wantReply(t, tt.name, c.Send(mail("a@example.org", "<b@example.com>")), tt.action)
				want(t, tt.name, tt.h.take()[1:], tt.told)
				if r := books.next(); r.Action != tt.action {
					t.Errorf("record %+v", r)
				}
			}
			books.none(t)
		})
	}
}

// An MTA that continues a settled message gets the same reply again.
func TestSettledMessageStaysSettled(t *testing.T) {
	h := &spy{begin: func(*milter.Session, *milter.Message) (milter.Answer, error) {
		return milter.Answer{Verdict: milter.Reject, Reply: milter.Reply{Text: "no"}}, nil
	}}
	path, books := start(t, h, milter.VerifyOnly)
	c := open(t, path)
	wantReply(t, "MAIL", c.Mail("<a@example.org>"), "550 5.7.1 no")
	wantReply(t, "RCPT", c.Rcpt("<b@example.com>"), "550 5.7.1 no")
	c.Header("From", " x")
	wantReply(t, "end of header", c.EndOfHeader(), "none")
	c.Body("x")
	wantReply(t, "end", c.EndOfMessage(), "550 5.7.1 no")
	books.next()
	books.none(t)
}

func TestNoHandler(t *testing.T) {
	path, books := start(t, nil, milter.VerifyOnly, func(s *milter.Settings) { s.Sign, s.Verify = nil, nil })
	c := open(t, path)
	for range 2 {
		wantReply(t, "MAIL", c.Send(mail("a@example.org")), "accept")
		if r := books.next(); r.Verdict != "none" || r.Reason != record.NotApplicable {
			t.Errorf("record %+v", r)
		}
	}
}

// pins returns the current settings, and counts their users.
type pins struct {
	now  *milter.Settings
	used map[*milter.Settings]int
}

func (p *pins) Pin() (*milter.Settings, func()) {
	s := p.now
	p.used[s]++
	return s, func() { p.used[s]-- }
}

// A message keeps the settings of its MAIL, and releases them when it is over.
func TestMessagePinsItsSettings(t *testing.T) {
	reject := &spy{begin: func(*milter.Session, *milter.Message) (milter.Answer, error) {
		return milter.Answer{Verdict: milter.Reject}, nil
	}}
	before, after := &milter.Settings{Verify: new(spy)}, &milter.Settings{Verify: reject}
	source := &pins{now: before, used: make(map[*milter.Settings]int)}
	server := milter.New(milter.Options{}, source)
	ended := make(chan struct{})
	path := wiretest.Listen(t, func(ctx context.Context, conn net.Conn) {
		server.ServeConn(ctx, conn, milter.VerifyOnly)
		close(ended)
	})
	c := open(t, path)
	passes(t, c)
	wantReply(t, "MAIL", c.Mail("<a@example.org>"), "continue")
	if n := source.used[before]; n != 1 {
		t.Errorf("%d users of the settings of a message", n)
	}
	source.now = after
	wantReply(t, "RCPT of the old message", c.Rcpt("<b@example.com>"), "continue")
	if n := source.used[before]; n != 1 {
		t.Errorf("%d users of the settings of a message under way", n)
	}
	wantReply(t, "next MAIL", c.Mail("<a@example.org>"), "550 5.7.1 Message rejected")
	if source.used[before] != 0 || source.used[after] != 0 {
		t.Errorf("%v are in use after their messages", source.used)
	}
	source.now = before
	wantReply(t, "MAIL", c.Mail("<a@example.org>"), "continue")
	c.Close()
	<-ended
	if source.used[before] != 0 {
		t.Error("the settings are in use after the session")
	}
}

// A disconnect at any stage ends only the work of that message.
func TestDisconnectAtEveryStage(t *testing.T) {
	stages := []struct {
		name string
		play func(*wiretest.Client)
		told int // notes of the handler, "close" included
	}{
		{"at once", func(*wiretest.Client) {}, 0},
		{"after negotiation", func(c *wiretest.Client) { c.Negotiate() }, 0},
		{"after CONNECT", func(c *wiretest.Client) { c.Negotiate(); c.Connect("h", client) }, 0},
		{"after HELO", func(c *wiretest.Client) { c.Open(wiretest.Session{Client: client, Helo: "h"}) }, 0},
		{"after MAIL", func(c *wiretest.Client) { begin(c) }, 2},
		{"after RCPT", func(c *wiretest.Client) { begin(c); c.Rcpt("<b@example.com>") }, 2},
		{"in the header", func(c *wiretest.Client) { begin(c); c.Header("A", " b") }, 2},
		{"after the header", func(c *wiretest.Client) { begin(c); c.EndOfHeader() }, 3},
		{"in the body", func(c *wiretest.Client) { begin(c); c.EndOfHeader(); c.Body("x") }, 3},
		{"after the end", func(c *wiretest.Client) { begin(c); c.EndOfHeader(); c.EndOfMessage() }, 4},
		{"after ABORT", func(c *wiretest.Client) { begin(c); c.EndOfHeader(); c.Abort() }, 3},
	}
	for _, s := range stages {
		t.Run(s.name, func(t *testing.T) {
			h := new(spy)
			server := milter.New(milter.Options{}, milter.Settings{Verify: h})
			ended := make(chan struct{}, 2)
			path := wiretest.Listen(t, func(ctx context.Context, conn net.Conn) {
				server.ServeConn(ctx, conn, milter.VerifyOnly)
				ended <- struct{}{}
			})
			c := wiretest.Dial(t, "unix", path)
			s.play(c)
			c.Close()
			<-ended
			told := h.take()
			if len(told) != s.told || (s.told > 0 && told[len(told)-1] != "close") {
				t.Errorf("told %q", told)
			}
			passes(t, open(t, path))
		})
	}
}

func begin(c *wiretest.Client) {
	c.Open(wiretest.Session{Client: client, Helo: "h"})
	c.Mail("<a@example.org>")
}

func TestProtocolViolationIsReported(t *testing.T) {
	path, books := start(t, new(spy), milter.VerifyOnly)
	c := open(t, path)
	c.Mail("<a@example.org>")
	c.Packet('L', "A\x00b\x00c\x00")
	if err := c.Closed(); err != nil {
		t.Error(err)
	}
	r := books.next()
	if r.Reason != record.BadRequest || r.Verdict != "error" || r.Sender != "a@example.org" ||
		r.ClientAddress != "192.0.2.1" || r.Err == nil || r.Action != "none, connection closed" {
		t.Errorf("record %+v", r)
	}
	// A protocol that is too old gets no answer.
	c = wiretest.Dial(t, "unix", path)
	c.Packet('O', "\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00")
	if err := c.Closed(); err != nil {
		t.Error(err)
	}
	if r := books.next(); r.Reason != record.BadRequest || !strings.Contains(r.Err.Error(), "version 1") {
		t.Errorf("record %+v", r)
	}
	// Octets after the start of a frame, then the end.
	c = wiretest.Dial(t, "unix", path)
	c.Raw([]byte("\x00\x00"))
	c.Close()
	if r := books.next(); r.Reason != record.ConnectionLost {
		t.Errorf("record %+v", r)
	}
	passes(t, open(t, path))
}
