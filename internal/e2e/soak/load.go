package soak

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/postern-mail/postern/internal/postfixtest"
)

const (
	policyClients = 4
	mailClients   = 2
	between       = 10 * time.Millisecond // of a client's questions
	longest       = 30 * time.Second      // for an answer: the daemons' deadlines, on a busy machine
)

// load asks all the time, and checks each answer against those that are allowed.
type load struct {
	site                    *site
	owned, refused          atomic.Int64
	greylisted, unavailable atomic.Int64 // new senders: delayed, or let in as the store is away
	undecided               atomic.Int64 // owners: a table did not answer
	counted                 atomic.Int64 // by the daemon that only limits
	away                    atomic.Int64 // asked of a daemon that was killed
	signed                  atomic.Int64
	verified, unverified    atomic.Int64
	deferred                atomic.Int64 // mails that DNS could not be asked about
}

func newLoad(s *site) *load { return &load{site: s} }

// start adds the clients to a group. They end with ctx.
func (l *load) start(ctx context.Context, group *errgroup.Group) {
	for i := range policyClients {
		group.Go(func() error {
			return l.repeat(ctx, &smtpd{path: l.site.path("policy")}, fmt.Sprint("c", i), l.policy)
		})
	}
	group.Go(func() error { return l.repeat(ctx, &smtpd{path: l.site.path("limits")}, "l", l.limit) })
	for i := range mailClients {
		group.Go(func() error { return l.repeat(ctx, nil, fmt.Sprint("m", i), l.mail) })
	}
}

func (l *load) repeat(ctx context.Context, s *smtpd, name string, one func(context.Context, *smtpd, string) error) error {
	for n := 0; ; n++ {
		kills := l.site.killings.Load()
		switch err := one(ctx, s, name+"."+letters(n)); {
		case err == nil:
		case ctx.Err() != nil:
			return nil
		case kills%2 == 1 || kills != l.site.killings.Load(): // Postfix defers such a mail
			l.away.Add(1)
		default:
			return err
		}
		if wait(ctx, between) != nil {
			return nil
		}
	}
}

// policy asks the ownership check about a sender, and greylists a new sender.
func (l *load) policy(ctx context.Context, s *smtpd, unique string) error {
	questions := []question{
		{"policy_context=ownership\nsasl_username=alice\nsender=press@home.example", map[string]*atomic.Int64{"DUNNO": &l.owned}},
		{"policy_context=ownership\nsasl_username=mallory\nsender=press@home.example", map[string]*atomic.Int64{"553 5.7.1 not owned by user mallory": &l.refused, "45": &l.undecided}},
		{"policy_context=ownership\nsasl_username=mallory\nsender=" + unique + "@home.example", map[string]*atomic.Int64{"553 5.7.1 not owned by user mallory": &l.refused, "45": &l.undecided}},
		{"policy_context=limit\nsasl_username=alice\nsender=press@home.example\ninstance=" + unique, map[string]*atomic.Int64{"DUNNO": &l.owned}},
		{"policy_context=greylist\nsender=" + unique + "@home.example\ninstance=" + unique,
			map[string]*atomic.Int64{"DEFER_IF_PERMIT 4.2.0 Greylisted": &l.greylisted, "DUNNO": &l.unavailable}},
	}
	for _, one := range l.site.servers {
		questions = append(questions,
			question{"policy_context=ownership\nsasl_username=dave\nsender=" + one.sender(), map[string]*atomic.Int64{"DUNNO": &one.answered, "45": &l.undecided}},
			question{"policy_context=ownership\nsasl_username=mallory\nsender=" + one.sender(), map[string]*atomic.Int64{"553 5.7.1 not owned by user mallory": &l.refused, "45": &l.undecided}})
	}
	for _, one := range questions {
		if err := s.ask(ctx, one.request, one.counts); err != nil {
			return err
		}
	}
	return nil
}

// question is a request, and what counts each of its answers.
type question struct {
	request string
	counts  map[string]*atomic.Int64
}

// limit asks the daemon that only limits, which answers from memory whatever its disk does.
func (l *load) limit(ctx context.Context, s *smtpd, unique string) error {
	return s.ask(ctx, "policy_context=limit\nsasl_username=alice\nsender=press@home.example\ninstance="+unique, map[string]*atomic.Int64{"DUNNO": &l.counted})
}

// recovered returns when everything works again: a new sender is delayed, a signed mail is
// verified, and the entry of each table is found.
func (l *load) recovered(ctx context.Context) error {
	works := map[string]*atomic.Int64{"greylisting": &l.greylisted, "verification": &l.verified}
	for _, one := range l.site.servers {
		works["the table of "+one.name] = &one.answered
	}
	before := make(map[string]int64)
	for name, count := range works {
		before[name] = count.Load()
	}
	for since := time.Now(); ; {
		maps.DeleteFunc(works, func(name string, count *atomic.Int64) bool { return count.Load() != before[name] })
		switch {
		case len(works) == 0:
			return nil
		case time.Since(since) > time.Minute:
			return fmt.Errorf("a minute after the last fault, %s is not back", strings.Join(slices.Sorted(maps.Keys(works)), ", "))
		}
		if err := wait(ctx, sampleEvery); err != nil {
			return err
		}
	}
}

func (l *load) report(w io.Writer) {
	fmt.Fprintf(w, "  %d owned and %d refused senders, %d not decided (no table), %d new ones delayed and %d not (no store), %d counted by the daemon with a file\n",
		l.owned.Load(), l.refused.Load(), l.undecided.Load(), l.greylisted.Load(), l.unavailable.Load(), l.counted.Load())
	for _, one := range l.site.servers {
		fmt.Fprintf(w, "  %d senders found in the table of %s\n", one.answered.Load(), one.name)
	}
	fmt.Fprintf(w, "  %d mails signed, %d verified, %d not, %d deferred (no DNS); %d not asked (a daemon was killed)\n",
		l.signed.Load(), l.verified.Load(), l.unverified.Load(), l.deferred.Load(), l.away.Load())
}

// smtpd asks as Postfix does, over a connection that stays open. It connects again if
// the connection is closed.
type smtpd struct {
	path string
	conn net.Conn
	read *bufio.Reader
}

// ask sends a request and counts its answer, which must begin with one of the keys of
// counts.
func (s *smtpd) ask(ctx context.Context, request string, counts map[string]*atomic.Int64) error {
	answer, err := s.answer(ctx, request)
	if err != nil {
		return fmt.Errorf("%s: %w", strings.ReplaceAll(request, "\n", " "), err)
	}
	action := strings.TrimSuffix(strings.TrimPrefix(answer, "action="), "\n")
	for want, count := range counts {
		if strings.HasPrefix(action, want) {
			count.Add(1)
			return nil
		}
	}
	return fmt.Errorf("%s: answered %q", strings.ReplaceAll(request, "\n", " "), action)
}

func (s *smtpd) answer(ctx context.Context, request string) (answer string, err error) {
	for range 2 {
		if answer, err = s.try(ctx, request); err == nil {
			return answer, nil
		}
		s.close()
	}
	return "", err
}

func (s *smtpd) try(ctx context.Context, request string) (answer string, err error) {
	if s.conn == nil {
		conn, err := net.Dial("unix", s.path)
		if err != nil {
			return "", err
		}
		s.conn, s.read = conn, bufio.NewReader(conn)
		context.AfterFunc(ctx, func() { _ = conn.Close() })
	}
	if err := s.conn.SetDeadline(time.Now().Add(longest)); err != nil {
		return "", err
	}
	if _, err = fmt.Fprintf(s.conn, "request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=192.0.2.7\nclient_name=mx.home.example\nrecipient=bob@away.example\n%s\n\n", request); err != nil {
		return "", err
	}
	if answer, err = s.read.ReadString('\n'); err != nil {
		return "", err
	}
	_, err = s.read.ReadString('\n')
	return answer, err
}

func (s *smtpd) close() {
	if s.conn != nil {
		_ = s.conn.Close()
		s.conn = nil
	}
}

// mail signs a mail and verifies it.
func (l *load) mail(ctx context.Context, _ *smtpd, unique string) error {
	text := "From: Alice <alice@home.example>\r\nTo: bob@away.example\r\nDate: Mon, 01 Jun 2026 08:00:00 +0000\r\nMessage-ID: <" + unique + "@home.example>\r\nSubject: " + unique +
		"\r\n\r\n" + strings.Repeat("A line of the body.\r\n", 100)
	mail := postfixtest.MilterMail{Sender: "alice@home.example", Recipient: "bob@away.example", Message: text}
	v, err := l.filter(ctx, "sign", mail)
	if err != nil {
		return err
	}
	if len(v.Fields) == 0 || !strings.HasPrefix(v.Fields[0], "DKIM-Signature: ") {
		return fmt.Errorf("mail %s is not signed: %q %s %q", unique, v.Code, v.Reply, v.Fields)
	}
	l.signed.Add(1)
	mail.Message = strings.ReplaceAll(v.Fields[0], "\n", "\r\n") + "\r\n" + text
	if v, err = l.filter(ctx, "verify", mail); err != nil {
		return err
	}
	results := strings.Join(v.Fields, "\n")
	switch {
	case v.Code == 'y' && strings.HasPrefix(v.Reply, "4"):
		l.deferred.Add(1)
	case v.Code == 'y' || v.Code == 'r' || strings.Contains(results, "dkim=fail"):
		return fmt.Errorf("mail %s: %q %s %s", unique, v.Code, v.Reply, results)
	case strings.Contains(results, "dkim=pass"):
		l.verified.Add(1)
	default:
		l.unverified.Add(1)
	}
	return nil
}

func (l *load) filter(ctx context.Context, socket string, m postfixtest.MilterMail) (v postfixtest.MilterVerdict, err error) {
	c, err := postfixtest.DialMilter(ctx, l.site.path(socket), postfixtest.MilterSession{Client: "192.0.2.7", Name: "mx.home.example", Helo: "mx.home.example", MTA: "mx.home.example"})
	if err != nil {
		return v, err
	}
	defer c.Close()
	if v, err = c.Send(m); err != nil {
		err = errors.Join(fmt.Errorf("%s: %q %s", socket, v.Code, v.Reply), err)
	}
	return v, err
}

// letters returns a number in letters, because the greylist would mask digits.
func letters(n int) string {
	b := []byte{'g' + byte(n%20)}
	for n /= 20; n > 0; n /= 20 {
		b = append(b, 'g'+byte(n%20))
	}
	return string(b)
}
