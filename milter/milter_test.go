package milter_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/milter"
	"github.com/postern-mail/postern/milter/wire/wiretest"
)

// spy is a handler that records its calls and returns the answers of the test.
type spy struct {
	begin     func(*milter.Session, *milter.Message) (milter.Answer, error)
	recipient func(string) (milter.Answer, error)
	headers   func(context.Context, *milter.Message) (milter.Answer, error)
	body      func([]byte) error
	finish    func(context.Context, *milter.Message) (milter.Decision, error)
	close     func()

	mu   sync.Mutex
	told []string
}

func (s *spy) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, fmt.Sprintf(format, args...))
}

// take returns what was recorded since the last call.
func (s *spy) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	told := s.told
	s.told = nil
	return told
}

func (s *spy) Begin(ctx context.Context, session *milter.Session, m *milter.Message) (milter.Work, milter.Answer, error) {
	s.note("%v %s helo=%s from=%s", m.Role, session.Client, session.Helo, m.Sender.Raw)
	var a milter.Answer
	var err error
	if s.begin != nil {
		a, err = s.begin(session, m)
	}
	return &spyWork{spy: s, m: m, ctx: ctx}, a, err
}

type spyWork struct {
	*spy
	m    *milter.Message
	ctx  context.Context
	size int
}

func (w *spyWork) Recipient(_ context.Context, to mailaddr.Address) (milter.Answer, error) {
	if w.recipient == nil {
		return milter.Answer{}, nil
	}
	return w.recipient(to.Raw)
}

func (w *spyWork) Headers(ctx context.Context) (milter.Answer, error) {
	w.note("headers %d", len(w.m.Header))
	if w.headers == nil {
		return milter.Answer{}, nil
	}
	return w.headers(ctx, w.m)
}

func (w *spyWork) Body(chunk []byte) error {
	w.size += len(chunk)
	if w.body == nil {
		return nil
	}
	return w.body(chunk)
}

func (w *spyWork) Finish(ctx context.Context) (milter.Decision, error) {
	w.note("finish %s to=%d body=%d", w.m.QueueID, w.m.RecipientCount, w.size)
	if w.finish == nil {
		return milter.Decision{}, nil
	}
	return w.finish(ctx, w.m)
}

func (w *spyWork) Close() {
	if w.ctx.Err() == nil {
		w.note("closed before its context ended")
	}
	w.note("close")
	if w.close != nil {
		w.close()
	}
}

// ledger keeps the records that were counted.
type ledger struct {
	mu      sync.Mutex
	records []record.Record
	written chan struct{} // one token a record
}

func newLedger() *ledger { return &ledger{written: make(chan struct{}, 1000)} }

func (l *ledger) Record(r *record.Record, _ time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, *r)
	l.written <- struct{}{}
}

// next waits for one record.
func (l *ledger) next() record.Record {
	<-l.written
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.records[0]
	l.records = l.records[1:]
	return r
}

// none fails if there is a record that no test asked for.
func (l *ledger) none(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.records {
		t.Errorf("unexpected record %+v", r)
	}
}

// start serves a handler of both roles and returns the socket.
func start(t testing.TB, h milter.Handler, kind milter.Listen, change ...func(*milter.Settings)) (string, *ledger) {
	t.Helper()
	settings := milter.Settings{Sign: h, Verify: h}
	for _, c := range change {
		c(&settings)
	}
	books := newLedger()
	server := milter.New(milter.Options{Records: books}, settings)
	path := wiretest.Listen(t, func(ctx context.Context, conn net.Conn) { server.ServeConn(ctx, conn, kind) })
	return path, books
}

var client = netip.MustParseAddrPort("192.0.2.1:4567")

// open begins a session like a Postfix that serves client.
func open(t testing.TB, path string) *wiretest.Client {
	t.Helper()
	c := wiretest.Dial(t, "unix", path)
	c.Open(wiretest.Session{Name: "client.example", Client: client, Helo: "helo.example"})
	return c
}

const message = "Received: from a\r\n\tby b\r\nFrom: <a@example.org>\r\nMessage-ID: <1@example.org>\r\n" +
	"Subject:no space\r\n\r\nHello\r\n"

func mail(from string, to ...string) wiretest.Mail {
	return wiretest.Mail{From: "<" + from + ">", To: to, Message: message}
}

func want(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func wantReply(t *testing.T, what string, got fmt.Stringer, want string) {
	t.Helper()
	if got.String() != want {
		t.Errorf("%s: reply %q, want %q", what, got, want)
	}
}

// passes sends a normal mail, which has to pass.
func passes(t *testing.T, c *wiretest.Client) {
	t.Helper()
	wantReply(t, "a mail", c.Send(mail("next@example.org", "<b@example.com>")), "accept")
}

var errBoom = errors.New("boom")
