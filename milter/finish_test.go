package milter_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/milter"
	"github.com/postern-mail/postern/milter/wire"
	"github.com/postern-mail/postern/milter/wire/wiretest"
)

func TestModifications(t *testing.T) {
	decision := milter.Decision{
		Answer: milter.Answer{Reason: record.Verified, Details: milter.Details{
			From: "example.org", SPF: "pass", DKIM: "pass", ARC: "none", DMARC: "pass",
			Disposition: "none", SignedBy: "example.org/s1", Steps: []record.Step{{Check: "spf"}},
		}},
		Change: []milter.Replacement{{Position: milter.Position{Name: "subject", Index: 1}, Value: "changed"}},
		Delete: []milter.Position{{"A-R", 1}, {"A-R", 3}, {"X", 1}, {"a-r", 3}},
		Insert: []milter.Insertion{
			{Index: 0, Name: "First", Value: " one;\r\n\ttwo"},
			{Index: 0, Name: "Second", Value: "x"},
			{Index: 1, Name: "Third", Value: "\ty"},
		},
		Quarantine: "dmarc\r\nfail",
	}
	h := &spy{finish: func(context.Context, *milter.Message) (milter.Decision, error) { return decision, nil }}
	path, books := start(t, h, milter.VerifyOnly)
	c := open(t, path)
	text := "A-R: 1\r\nX: x\r\nA-R: 2\r\nA-R: 3\r\nSubject: old\r\n\r\nbody\r\n"
	for range 2 {
		m := mail("a@example.org", "<b@example.com>", "<c@example.com>")
		m.Message = text
		r := c.Send(m)
		wantReply(t, "end", r, "accept")
		var got []string
		for _, ch := range r.Changes {
			got = append(got, ch.String())
		}
		want(t, "changes", got, []string{
			"m 1 subject: changed", "m 3 A-R:", "m 1 A-R:", "m 1 X:",
			"i 1 Third:\ty", "i 0 Second: x", "i 0 First: one;\n\ttwo",
		})
		if r.Quarantine != "dmarcfail" {
			t.Errorf("quarantine %q", r.Quarantine)
		}
		applied := "First: one;\r\n\ttwo\r\nSecond: x\r\nThird:\ty\r\nA-R: 2\r\nsubject: changed\r\n\r\nbody\r\n"
		if got := r.Apply(text); got != applied {
			t.Errorf("delivered\n%q\nwant\n%q", got, applied)
		}
		rec := books.next()
		action := "accept, change subject[1], delete A-R[1], delete A-R[3], delete X[1], delete a-r[3], " +
			"insert First, insert Second, insert Third, quarantine"
		if rec.Action != action || rec.Verdict != "pass" || rec.Reason != record.Verified || rec.Err != nil {
			t.Errorf("record %+v", rec)
		}
		if rec.Daemon != "milterd" || rec.Check != "verify" || rec.QueueID != "4XQUEUEID" || rec.Sender != "a@example.org" ||
			rec.Recipient != "b@example.com" || rec.ClientAddress != "192.0.2.1" || rec.ClientPort != "4567" ||
			rec.ClientName != "client.example" || rec.Helo != "helo.example" {
			t.Errorf("record %+v", rec)
		}
		if rec.Mode != "enforce" || rec.From != "example.org" || rec.SPF != "pass" || rec.DKIM != "pass" || rec.ARC != "none" ||
			rec.DMARC != "pass" || rec.Disposition != "none" || rec.SignedBy != "example.org/s1" || len(rec.Steps) != 1 {
			t.Errorf("details %+v", rec)
		}
	}
	books.none(t)
}

func TestRecordOfNullSenderAndLogin(t *testing.T) {
	path, books := start(t, new(spy), milter.BySession)
	c := open(t, path)
	c.Send(wiretest.Mail{Macros: []string{"{auth_authen}", "alice"}, Message: message})
	r := books.next()
	if r.Sender != "<>" || r.SASLUsername != "alice" || r.Recipient != "" || r.MessageID != "<1@example.org>" || r.Check != "sign" {
		t.Errorf("record %+v", r)
	}
}

// Modifications of a refused message are not sent. Invalid ones are left out and
// recorded.
func TestModificationsThatCannotBe(t *testing.T) {
	var decision milter.Decision
	h := &spy{finish: func(context.Context, *milter.Message) (milter.Decision, error) { return decision, nil }}
	path, books := start(t, h, milter.VerifyOnly)
	c := open(t, path)

	decision = milter.Decision{Insert: []milter.Insertion{{Name: "X", Value: "y"}}, Quarantine: "q"}
	decision.Verdict, decision.Reply = milter.Reject, milter.Reply{Text: "100% sure"}
	r := c.Send(mail("a@example.org"))
	wantReply(t, "end", r, "550 5.7.1 100%% sure")
	if len(r.Changes) > 0 || r.Quarantine != "" {
		t.Errorf("changes %v, quarantine %q", r.Changes, r.Quarantine)
	}
	if rec := books.next(); rec.Action != "550 5.7.1 100% sure" || rec.Verdict != "reject" {
		t.Errorf("record %+v", rec)
	}

	decision = milter.Decision{
		Change: []milter.Replacement{{Position: milter.Position{Name: "", Index: 1}}},
		Delete: []milter.Position{{"X", 0}, {"X:", 1}},
		Insert: []milter.Insertion{
			{Name: "Bad Name", Value: "x"}, {Name: "X", Index: -1}, {Name: "Long", Value: strings.Repeat("x", 200_000)},
			{Name: "Good", Value: "x\r\nInjected: y\r\n\r\nbody"},
		},
	}
	r = c.Send(mail("a@example.org"))
	if len(r.Changes) != 1 || r.Changes[0].String() != "i 0 Good: xInjected: ybody" {
		t.Errorf("changes %q", r.Changes)
	}
	rec := books.next()
	for _, problem := range []string{"\"\" is no header", "no index 0", "\"X:\" is no", "\"Bad Name\" is no", "be at -1", "too long"} {
		if rec.Err == nil || !strings.Contains(rec.Err.Error(), problem) {
			t.Errorf("record's error %v, want %q", rec.Err, problem)
		}
	}
}

// counted counts the writes of a connection.
type counted struct {
	net.Conn
	writes *[]string
}

func (c counted) Write(p []byte) (int, error) {
	*c.writes = append(*c.writes, string(p))
	return c.Conn.Write(p)
}

func TestModificationsAndVerdictLeaveInOneWrite(t *testing.T) {
	h := &spy{finish: func(context.Context, *milter.Message) (milter.Decision, error) {
		return milter.Decision{
			Delete: []milter.Position{{"From", 1}, {"From", 2}},
			Insert: []milter.Insertion{{Name: "A", Value: strings.Repeat("long ", 2000)}, {Name: "B", Value: "y"}},
		}, nil
	}}
	server := milter.New(milter.Options{}, milter.Settings{Verify: h})
	var writes []string
	path := wiretest.Listen(t, func(ctx context.Context, conn net.Conn) {
		server.ServeConn(ctx, counted{conn, &writes}, milter.VerifyOnly)
	})
	c := open(t, path)
	passes(t, c)
	c.Quit()
	if len(writes) != 4 { // negotiation, MAIL, RCPT, end
		t.Errorf("%d writes", len(writes))
	}
	last := writes[len(writes)-1]
	if !strings.Contains(last, "A\x00 long") || !strings.Contains(last, "From\x00\x00") || !strings.HasSuffix(last, "\x00\x00\x00\x01a") {
		t.Errorf("last write of %d octets: %.80q", len(last), last)
	}
}

func TestHandlerErrors(t *testing.T) {
	spies := map[string]*spy{
		"begin": {begin: func(*milter.Session, *milter.Message) (milter.Answer, error) { return milter.Answer{}, errBoom }},
		"headers": {headers: func(context.Context, *milter.Message) (milter.Answer, error) {
			return milter.Answer{Verdict: milter.Reject}, errBoom
		}},
		"body": {body: func([]byte) error { return errBoom }},
		"finish": {finish: func(context.Context, *milter.Message) (milter.Decision, error) {
			return milter.Decision{Insert: []milter.Insertion{{Name: "X"}}, Quarantine: "q"}, errBoom
		}},
	}
	for name, h := range spies {
		for _, deferring := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s %v", name, deferring), func(t *testing.T) {
				path, books := start(t, h, milter.VerifyOnly, func(s *milter.Settings) { s.DeferOnError = deferring })
				c := open(t, path)
				reply, verdict := "accept", "error"
				if deferring {
					reply, verdict = "451 4.3.0 Temporary failure, try again later", "defer"
				}
				for range 2 {
					r := c.Send(mail("a@example.org", "<b@example.com>"))
					wantReply(t, name, r, reply)
					if len(r.Changes) > 0 || r.Quarantine != "" {
						t.Errorf("modified: %v %q", r.Changes, r.Quarantine)
					}
					rec := books.next()
					if rec.Verdict != verdict || rec.Reason != record.CheckFailed || !errors.Is(rec.Err, errBoom) {
						t.Errorf("record %+v", rec)
					}
				}
			})
		}
	}
}

func TestRecipientError(t *testing.T) {
	h := &spy{recipient: func(string) (milter.Answer, error) { return milter.Answer{}, errBoom }}
	path, books := start(t, h, milter.VerifyOnly)
	c := open(t, path)
	c.Mail("<a@example.org>")
	wantReply(t, "RCPT", c.Rcpt("<b@example.com>"), "continue")
	if r := books.next(); r.Verdict != "error" || !errors.Is(r.Err, errBoom) || r.Recipient != "b@example.com" {
		t.Errorf("record %+v", r)
	}
	path, _ = start(t, h, milter.VerifyOnly, func(s *milter.Settings) { s.DeferOnError = true })
	c = open(t, path)
	c.Mail("<a@example.org>")
	wantReply(t, "RCPT", c.Rcpt("<b@example.com>"), "451 4.3.0 Temporary failure, try again later")
}

func TestPanics(t *testing.T) {
	boom := func() { panic("boom") }
	spies := map[string]*spy{
		"begin":     {begin: func(*milter.Session, *milter.Message) (milter.Answer, error) { boom(); return milter.Answer{}, nil }},
		"recipient": {recipient: func(string) (milter.Answer, error) { boom(); return milter.Answer{}, nil }},
		"headers":   {headers: func(context.Context, *milter.Message) (milter.Answer, error) { boom(); return milter.Answer{}, nil }},
		"body":      {body: func([]byte) error { boom(); return nil }},
		"finish":    {finish: func(context.Context, *milter.Message) (milter.Decision, error) { boom(); return milter.Decision{}, nil }},
		"close":     {close: boom},
	}
	for name, h := range spies {
		t.Run(name, func(t *testing.T) {
			path, books := start(t, h, milter.VerifyOnly)
			c := open(t, path)
			// All at once: frames after the panic must not be served.
			c.Packet('M', "<a@example.org>\x00")
			c.Packet('R', "<b@example.com>\x00")
			c.Packet('N', "")
			c.Packet('B', "x")
			c.Packet('E', "")
			waitClosed(t, c)
			if name == "close" { // the decision has its record already
				books.next()
			}
			r := books.next()
			if r.Reason != record.Panicked || r.Verdict != "error" || !strings.Contains(r.Err.Error(), "boom") {
				t.Errorf("record %+v", r)
			}
			if c := open(t, path); c.Err() != nil {
				t.Errorf("another session: %v", c.Err())
			}
			books.none(t)
		})
	}
}

// waitClosed reads replies until the milter closes the connection.
func waitClosed(t *testing.T, c *wiretest.Client) {
	t.Helper()
	for range 10 {
		if c.Closed() == nil {
			return
		}
	}
	t.Error("the connection stayed open")
}

// A panic during the cleanup of a session that lost its MTA affects nothing else.
func TestPanicAtTheEnd(t *testing.T) {
	path, books := start(t, &spy{close: func() { panic("boom") }}, milter.VerifyOnly)
	c := open(t, path)
	c.Mail("<a@example.org>")
	c.Close()
	if r := books.next(); r.Reason != record.Panicked {
		t.Errorf("record %+v", r)
	}
	wantReply(t, "another session", open(t, path).Mail("<a@example.org>"), "continue")
}

// pipe serves one end of a pipe inside a synctest bubble.
func pipe(t *testing.T, server *milter.Server, ctx context.Context, wrap func(net.Conn) net.Conn) (*wiretest.Client, <-chan struct{}) {
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.ServeConn(ctx, wrap(near), milter.VerifyOnly)
	}()
	return wiretest.New(t, far), done
}

func plain(c net.Conn) net.Conn { return c }

func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &spy{finish: func(context.Context, *milter.Message) (milter.Decision, error) {
			time.Sleep(25 * time.Second)
			return milter.Decision{Insert: []milter.Insertion{{Name: "X", Value: "y"}}}, nil
		}}
		server := milter.New(milter.Options{}, milter.Settings{Verify: h})
		c, done := pipe(t, server, t.Context(), plain)
		c.Open(wiretest.Session{Client: client, Helo: "h"})
		for range 2 {
			r := c.Send(mail("a@example.org"))
			if r.Progress != 2 || r.String() != "accept" || len(r.Changes) != 1 {
				t.Errorf("result %+v", r)
			}
		}
		c.Quit()
		<-done
	})
}

func TestFinishDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &spy{finish: func(ctx context.Context, _ *milter.Message) (milter.Decision, error) {
			<-ctx.Done()
			return milter.Decision{}, fmt.Errorf("asking DNS: %w", ctx.Err())
		}}
		books := newLedger()
		server := milter.New(milter.Options{Records: books}, milter.Settings{Verify: h})
		c, done := pipe(t, server, t.Context(), plain)
		c.Open(wiretest.Session{Client: client, Helo: "h"})
		start := time.Now()
		r := c.Send(mail("a@example.org"))
		if took := time.Since(start); r.String() != "accept" || took != milter.DefaultFinishTimeout {
			t.Errorf("%v after %v", r, took)
		}
		if rec := books.next(); rec.Reason != record.DeadlineSpent || rec.Verdict != "error" || rec.Duration != milter.DefaultFinishTimeout {
			t.Errorf("record %+v", rec)
		}
		c.Quit()
		<-done
	})
}

// A MTA that is gone while a handler works cancels that work.
func TestFinishEndsWhenTheMTAIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &spy{finish: func(ctx context.Context, _ *milter.Message) (milter.Decision, error) {
			<-ctx.Done()
			return milter.Decision{}, ctx.Err()
		}}
		server := milter.New(milter.Options{}, milter.Settings{Verify: h, FinishTimeout: time.Hour})
		c, done := pipe(t, server, t.Context(), plain)
		begin(c)
		c.EndOfHeader()
		c.Packet('E', "")
		c.Close()
		start := time.Now()
		<-done
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("the work ended after %v", took)
		}
	})
}

func TestReadAndWriteStall(t *testing.T) {
	t.Run("read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			books := newLedger()
			server := milter.New(milter.Options{Records: books}, milter.Settings{Verify: new(spy)})
			c, done := pipe(t, server, t.Context(), plain)
			begin(c)
			c.Raw([]byte("\x00\x00\x01\x00L"))
			start := time.Now()
			<-done
			if took := time.Since(start); took != wire.DefaultFrame {
				t.Errorf("ended after %v", took)
			}
			if r := books.next(); r.Reason != record.ConnectionLost || !errors.Is(r.Err, wire.ErrStalled) {
				t.Errorf("record %+v", r)
			}
		})
	})
	t.Run("write", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			books := newLedger()
			server := milter.New(milter.Options{Records: books}, milter.Settings{Verify: new(spy)})
			c, done := pipe(t, server, t.Context(), plain)
			c.Open(wiretest.Session{Client: client, Helo: "h"})
			c.Raw(wiretest.Frame('M', "<a@example.org>\x00")) // and never reads the reply
			start := time.Now()
			<-done
			if took := time.Since(start); took != wire.DefaultWrite {
				t.Errorf("ended after %v", took)
			}
			if r := books.next(); r.Reason != record.ConnectionLost || !errors.Is(r.Err, wire.ErrStalled) {
				t.Errorf("record %+v", r)
			}
		})
	})
}

// draining is a connection whose server can begin to drain.
type draining struct {
	net.Conn
	begun chan struct{}
}

func (d draining) Draining() <-chan struct{} { return d.begun }

func TestDrain(t *testing.T) {
	const patience = time.Minute
	setUp := func(t *testing.T) (*wiretest.Client, chan struct{}, <-chan struct{}) {
		server := milter.New(milter.Options{DrainTimeout: patience}, milter.Settings{Verify: new(spy)})
		begun := make(chan struct{})
		c, done := pipe(t, server, t.Context(), func(c net.Conn) net.Conn { return draining{c, begun} })
		c.Open(wiretest.Session{Client: client, Helo: "h"})
		passes(t, c)
		return c, begun, done
	}
	t.Run("a held session is served", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, begun, done := setUp(t)
			close(begun)
			time.Sleep(patience / 2)
			passes(t, c)
			time.Sleep(patience/2 - time.Second)
			passes(t, c)
			c.Quit()
			<-done
		})
	})
	t.Run("an idle session ends at last", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, begun, done := setUp(t)
			close(begun)
			start := time.Now()
			<-done
			if took := time.Since(start); took != patience {
				t.Errorf("ended after %v", took)
			}
		})
	})
	t.Run("a message under way is finished", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, begun, done := setUp(t)
			close(begun)
			c.Mail("<a@example.org>")
			time.Sleep(2 * patience)
			wantReply(t, "RCPT", c.Rcpt("<b@example.com>"), "continue")
			c.EndOfHeader()
			wantReply(t, "end", c.EndOfMessage(), "accept")
			<-done
		})
	})
}

func TestCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cut := context.WithCancel(t.Context())
		books := newLedger()
		h := &spy{finish: func(ctx context.Context, _ *milter.Message) (milter.Decision, error) {
			<-ctx.Done()
			return milter.Decision{}, ctx.Err()
		}}
		server := milter.New(milter.Options{Records: books}, milter.Settings{Verify: h})
		waiting, done1 := pipe(t, server, ctx, plain)
		begin(waiting)
		waiting.EndOfHeader()
		waiting.Packet('E', "")
		waiting.Flush()
		idle, done2 := pipe(t, server, ctx, plain)
		begin(idle)
		synctest.Wait()
		cut()
		<-done1
		<-done2
		if a, b := books.next(), books.next(); a.Err == nil || b.Err == nil {
			t.Errorf("records %+v, %+v", a, b)
		}
	})
}

// Without an ABORT, the library keeps the header fields of earlier messages unless we
// clear its map.
func TestHeadersOfEarlierMessagesAreFreed(t *testing.T) {
	path, _ := start(t, new(spy), milter.VerifyOnly)
	c := open(t, path)
	big := mail("a@example.org")
	big.Message = strings.Repeat("X-Big: "+strings.Repeat("x", 10_000)+"\r\n", 20) + "\r\n"
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	wantReply(t, "first", c.Send(big), "accept")
	before := heap()
	for range 100 { // 20 MB of header in all
		wantReply(t, "big", c.Send(big), "accept")
	}
	if after := heap(); after > before+4<<20 {
		t.Errorf("the heap grew from %d to %d octets", before, after)
	}
}

func TestHeaderTooLarge(t *testing.T) {
	for name, text := range map[string]string{
		"many fields": strings.Repeat("X: y\r\n", wire.MaxHeaders+1),
		"long fields": strings.Repeat("X: "+strings.Repeat("y", 90_000)+"\r\n", 13),
	} {
		t.Run(name, func(t *testing.T) {
			h := new(spy)
			path, books := start(t, h, milter.VerifyOnly)
			c := open(t, path)
			m := mail("a@example.org", "<b@example.com>")
			m.Message = text + "\r\nbody\r\n"
			wantReply(t, name, c.Send(m), "552 5.3.4 Message header is too large")
			if r := books.next(); r.Reason != record.HeaderTooLarge || r.Verdict != "reject" || r.Err == nil {
				t.Errorf("record %+v", r)
			}
			if told := h.take(); len(told) != 2 {
				t.Errorf("told %q", told)
			}
			passes(t, c)
		})
	}
}

func TestManyHeaders(t *testing.T) {
	var fields int
	h := &spy{finish: func(_ context.Context, m *milter.Message) (milter.Decision, error) {
		fields = len(m.Header)
		return milter.Decision{}, nil
	}}
	path, _ := start(t, h, milter.VerifyOnly)
	m := mail("a@example.org")
	m.Message = strings.Repeat("X: y\r\n", 5000) + "\r\n"
	wantReply(t, "end", open(t, path).Send(m), "accept")
	if fields != 5000 {
		t.Errorf("%d fields", fields)
	}
}

// The record of a message names the first recipient that was not refused.
func TestFirstRecipient(t *testing.T) {
	h := &spy{recipient: func(to string) (milter.Answer, error) {
		if strings.HasPrefix(to, "no") {
			return milter.Answer{Verdict: milter.Reject, Reason: record.SPFFailed}, nil
		}
		return milter.Answer{}, nil
	}}
	path, books := start(t, h, milter.VerifyOnly)
	c := open(t, path)
	for named, want := range map[string]string{
		"a no b":    "a@example.com",
		"no1 a no2": "a@example.com",
		"no1 no2":   "",
	} {
		c.Mail("<a@example.org>")
		for to := range strings.FieldsSeq(named) {
			c.Rcpt("<" + to + "@example.com>")
			if strings.HasPrefix(to, "no") {
				books.next()
			}
		}
		c.EndOfHeader()
		c.EndOfMessage()
		if got := books.next().Recipient; got != want {
			t.Errorf("%s: %q, want %q", named, got, want)
		}
	}
}

// A large mail passes in chunks that no one keeps.
func TestLargeMailTakesConstantMemory(t *testing.T) {
	var peak, seen uint64
	h := &spy{body: func(chunk []byte) error {
		if seen += uint64(len(chunk)); seen%(8<<20) < uint64(len(chunk)) {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapAlloc)
		}
		return nil
	}}
	path, _ := start(t, h, milter.VerifyOnly)
	c := open(t, path)
	c.Mail("<a@example.org>")
	c.Header("From", " x")
	c.EndOfHeader()
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	chunk := strings.Repeat("0123456789abcde\r\n", 3855) // 65,535 octets
	for range 50 << 20 / len(chunk) {
		c.Body(chunk)
	}
	wantReply(t, "end", c.EndOfMessage(), "accept")
	if peak == 0 || peak > before.HeapAlloc+4<<20 {
		t.Errorf("heap before %d, at most %d octets on the way", before.HeapAlloc, peak)
	}
}
