package dmarcreport_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/internal/dmarcreport"
	"github.com/postern-mail/postern/internal/dmarcreport/sqlitestore"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

const day dmarcreport.Day = 20_000

const zone = `_dmarc.one.example. IN TXT "v=DMARC1; p=reject; rua=mailto:dmarc@one.example,mailto:reports@other.test!1m"
one.example._report._dmarc.other.test. IN TXT "v=DMARC1"
_dmarc.loop.example. IN TXT "v=DMARC1; p=none; rua=mailto:dmarc@loop.example"
_dmarc.mute.example. IN TXT "v=DMARC1; p=none"
`

type sent struct {
	dmarcreport.Envelope
	text string
}

// site is a sender with a store, a clock and a server that keeps what it gets.
type site struct {
	*dmarcreport.Sender
	mu   sync.Mutex
	now  time.Time
	mail []sent
	fail error
	said []dmarcreport.Event
}

func openStore(t testing.TB, path string) *sqlitestore.Store {
	t.Helper()
	s, err := sqlitestore.Open(sqlitestore.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newSite(t testing.TB, store dmarcreport.Store) *site {
	t.Setenv("TMPDIR", t.TempDir())
	s := &site{now: day.End().Add(time.Hour)}
	s.Sender = &dmarcreport.Sender{
		Reporter: dmarcreport.Reporter{From: "reports@mx.example", Receiver: "mx.example", Org: "M & X", Contact: "https://mx.example/?a=<b>", Generator: "Postern test"},
		Store:    store, Resolver: resolvertest.NewZone(t, zone),
		Now: func() time.Time { s.mu.Lock(); defer s.mu.Unlock(); return s.now },
		Sign: func(_ context.Context, h []dmarcreport.Field, body func(io.Writer) error) ([]dmarcreport.Field, error) {
			return []dmarcreport.Field{{Name: "DKIM-Signature", Value: " test"}}, body(io.Discard)
		},
		Deliver: func(_ context.Context, e dmarcreport.Envelope, write func(io.Writer) error) error {
			var b bytes.Buffer
			if err := errors.Join(s.fail, write(&b)); err != nil {
				return err
			}
			s.mail = append(s.mail, sent{e, b.String()})
			return nil
		},
		Event: func(e dmarcreport.Event) { s.said = append(s.said, e) },
	}
	return s
}

var policy = dmarcreport.Policy{P: "reject", NP: "none", ADKIM: "r", ASPF: "s", FO: "1:d", Testing: true, Method: "treewalk"}

// fill counts messages of a day into a store.
func fill(t testing.TB, s dmarcreport.Store, domain string, messages int, rows ...*dmarcreport.Row) {
	t.Helper()
	c := dmarcreport.NewCollector(s, func() time.Time { return day.Begin().Add(time.Hour) }, nil)
	for range messages {
		for _, r := range rows {
			c.Record(domain, policy, r)
		}
	}
	if err := c.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func rowOf(source string) *dmarcreport.Row {
	return &dmarcreport.Row{
		Source: source, Disposition: "quarantine", HeaderFrom: "a.one.example", Envelope: "<x>&\x01.example", SPF: true, SPFDomain: "list.example", SPFResult: "softfail",
		Reasons:    []dmarcreport.Reason{{Type: "mailing_list"}, {Type: "local_policy", Comment: "a & b"}},
		Signatures: []dmarcreport.Signature{{Domain: "one.example", Selector: "s", Result: "fail"}, {Domain: "list.example", Selector: "", Result: "pass"}},
	}
}

// attachment returns the report that a mail carries, and its name.
func attachment(t testing.TB, text string) (name string, report []byte) {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	for {
		p, err := parts.NextPart()
		if err != nil {
			t.Fatal("no attachment: ", err)
		}
		if p.Header.Get("Content-Type") == "text/plain; charset=us-ascii" {
			continue
		}
		if kind, _, _ := mime.ParseMediaType(p.Header.Get("Content-Type")); kind != "application/gzip" {
			t.Error(kind)
		}
		z, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, p))
		if err != nil {
			t.Fatal(err)
		}
		if report, err = io.ReadAll(z); err != nil {
			t.Fatal(err)
		}
		return p.FileName(), report
	}
}

// feedback reads a report by the names of elements alone, as readers from before RFC
// 9990 do.
type feedback struct {
	Org     string `xml:"report_metadata>org_name"`
	ID      string `xml:"report_metadata>report_id"`
	Contact string `xml:"report_metadata>extra_contact_info"`
	Begin   int64  `xml:"report_metadata>date_range>begin"`
	End     int64  `xml:"report_metadata>date_range>end"`
	Domain  string `xml:"policy_published>domain"`
	P       string `xml:"policy_published>p"`
	SP      string `xml:"policy_published>sp"`
	Method  string `xml:"policy_published>discovery_method"`
	Testing string `xml:"policy_published>testing"`
	Records []struct {
		Source      string   `xml:"row>source_ip"`
		Count       int64    `xml:"row>count"`
		Disposition string   `xml:"row>policy_evaluated>disposition"`
		SPF         string   `xml:"row>policy_evaluated>spf"`
		Reasons     []string `xml:"row>policy_evaluated>reason>type"`
		Selectors   []string `xml:"auth_results>dkim>selector"`
	} `xml:"record"`
}

func read(t testing.TB, report []byte) (f feedback) {
	t.Helper()
	if err := xml.Unmarshal(report, &f); err != nil {
		t.Fatal(err)
	}
	return f
}

func validate(t testing.TB, report []byte) {
	t.Helper()
	if _, err := exec.LookPath("xmllint"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("no xmllint (libxml2-utils)")
	}
	c := exec.Command("xmllint", "--noout", "--nonet", "--schema", "testdata/rfc9990.xsd", "-")
	c.Stdin = bytes.NewReader(report)
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v: %.2000s\n%.4000s", err, out, report)
	}
}

// TestReport shows one day's report: its mail, its names, and its form by the schema.
func TestReport(t *testing.T) {
	store := openStore(t, filepath.Join(t.TempDir(), "reports.db"))
	fill(t, store, "one.example", 3, rowOf("192.0.2.1"), rowOf("2001:db8::1"))
	fill(t, store, "mute.example", 1, rowOf("192.0.2.1"))
	s := newSite(t, store)
	if err := s.Send(t.Context(), dmarcreport.Selection{}); err != nil {
		t.Fatal(err)
	}
	if len(s.mail) != 2 {
		t.Fatalf("%d mails, %+v", len(s.mail), s.said)
	}
	var names []string
	for _, m := range s.mail {
		parsed, err := mail.ReadMessage(strings.NewReader(m.text))
		if err != nil {
			t.Fatal(err)
		}
		name, report := attachment(t, m.text)
		names = append(names, name)
		validate(t, report)
		f := read(t, report)
		if want := fmt.Sprintf("mx.example!one.example!%d!%d!%s.xml.gz", day.Begin().Unix(), day.End().Unix(), f.ID); name != want {
			t.Errorf("%s, not %s", name, want)
		}
		if got := parsed.Header.Get("Subject"); got != "Report Domain: one.example Submitter: mx.example Report-ID: <"+f.ID+">" {
			t.Error(got)
		}
		if f.Org != "M & X" || f.Contact != "https://mx.example/?a=<b>" || f.Begin != day.Begin().Unix() || f.End-f.Begin != 86399 || f.Domain != "one.example" ||
			f.P != "reject" || f.SP != "reject" || f.Method != "treewalk" || f.Testing != "y" || len(f.Records) != 2 {
			t.Errorf("%+v", f)
		}
		for _, r := range f.Records {
			if r.Count != 3 || r.SPF != "pass" || r.Disposition != "quarantine" || !slices.Equal(r.Reasons, []string{"mailing_list", "local_policy"}) || !slices.Equal(r.Selectors, []string{"s", ""}) {
				t.Errorf("%+v", r)
			}
		}
		if !strings.HasPrefix(m.text, "DKIM-Signature: test\r\n") || m.From == s.From || !strings.HasSuffix(m.From, "@mx.example") {
			t.Error(m.From)
		}
	}
	if names[0] != names[1] || s.mail[0].To != "dmarc@one.example" || s.mail[1].To != "reports@other.test" {
		t.Error(names, s.mail[0].To, s.mail[1].To)
	}
	s.now = s.now.Add(48 * time.Hour)
	if err := s.Send(t.Context(), dmarcreport.Selection{Again: true}); err != nil || len(s.mail) != 2 {
		t.Errorf("a report is sent twice: %d, %v", len(s.mail), err)
	}
}

// TestLate shows what becomes of messages that reach the store after the report of their
// day was sent: they are in the next report of their domain, whose period begins with
// their day.
func TestLate(t *testing.T) {
	store := openStore(t, filepath.Join(t.TempDir(), "reports.db"))
	s := newSite(t, store)
	on := func(days int) { s.now = (day + dmarcreport.Day(days)).Begin().Add(time.Hour) }
	host, away := dmarcreport.NewCollector(store, s.Now, nil), dmarcreport.NewCollector(store, s.Now, nil)
	count := func(c *dmarcreport.Collector, messages int) {
		for range messages {
			c.Record("loop.example", policy, rowOf("192.0.2.1"))
		}
	}
	flush := func(c *dmarcreport.Collector) {
		t.Helper()
		if err := c.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	reported := 0
	// sent sends what is due: one report of some messages, from a day to another.
	sent := func(begin, end int, messages int64) {
		t.Helper()
		if err := s.Send(t.Context(), dmarcreport.Selection{Again: true}); err != nil || len(s.mail) != reported+1 {
			t.Fatalf("%d reports, %v, after %d", len(s.mail), err, reported)
		}
		text := s.mail[reported].text
		reported++
		name, report := attachment(t, text)
		validate(t, report)
		f, from, to := read(t, report), day+dmarcreport.Day(begin), day+dmarcreport.Day(end)
		if f.Begin != from.Begin().Unix() || f.End != to.End().Unix() || len(f.Records) != 1 || f.Records[0].Count != messages {
			t.Errorf("%+v; want %d messages, days %d to %d", f, messages, begin, end)
		}
		if want := fmt.Sprintf("!%d!%d!", f.Begin, f.End); !strings.Contains(name, want) {
			t.Error(name)
		}
		if begin != end && !strings.Contains(text, fmt.Sprintf(" from %s to %s (UTC)", from, to)) {
			t.Error(text)
		}
	}
	on(0)
	count(host, 1)
	count(away, 2)
	flush(host)
	on(1)
	sent(0, 0, 1)
	count(host, 4)
	flush(host)
	flush(away)
	on(2)
	sent(0, 1, 6)
	count(host, 8)
	count(away, 16)
	flush(host)
	on(4) // no one has counted anything since
	sent(2, 2, 8)
	flush(away)
	on(5)
	sent(2, 4, 16)
	if err := s.Send(t.Context(), dmarcreport.Selection{Again: true}); err != nil || len(s.mail) != reported {
		t.Error(len(s.mail), err)
	}
	if host.Late() != 0 || away.Late() != 18 {
		t.Error(host.Late(), away.Late())
	}

	// The clock is set forward, so that a day is reported early, and back again.
	on(6)
	count(host, 32)
	flush(host)
	on(7)
	sent(6, 6, 32)
	on(6)
	count(host, 64)
	flush(host)
	on(8)
	sent(6, 7, 64)
	if host.Late() != 64 {
		t.Error(host.Late())
	}
}

// TestNoLoop shows that reports about reports end: those alone are no reason for one.
func TestNoLoop(t *testing.T) {
	store := openStore(t, filepath.Join(t.TempDir(), "reports.db"))
	report := rowOf("192.0.2.9")
	report.Report = true
	fill(t, store, "loop.example", 5, report)
	s := newSite(t, store)
	if err := s.Send(t.Context(), dmarcreport.Selection{}); err != nil || len(s.mail) != 0 {
		t.Fatal(len(s.mail), err)
	}
	fill(t, store, "one.example", 5, report)
	fill(t, store, "one.example", 1, rowOf("192.0.2.1"))
	if err := s.Send(t.Context(), dmarcreport.Selection{}); err != nil || len(s.mail) != 2 {
		t.Fatal(len(s.mail), err)
	}
	if _, xml := attachment(t, s.mail[0].text); len(read(t, xml).Records) != 2 {
		t.Error("reports are not counted with other mail")
	}
}

// TestOpenDay shows that a day is reported when it is over, and not before.
func TestOpenDay(t *testing.T) {
	store := openStore(t, filepath.Join(t.TempDir(), "reports.db"))
	fill(t, store, "one.example", 1, rowOf("192.0.2.1"))
	s := newSite(t, store)
	s.now = day.End().Add(9 * time.Minute)
	if err := s.Send(t.Context(), dmarcreport.Selection{Again: true}); err != nil || len(s.mail) != 0 {
		t.Error(len(s.mail), err)
	}
}

// TestTooLarge shows that an address gets no report above its limit.
func TestTooLarge(t *testing.T) {
	store := openStore(t, filepath.Join(t.TempDir(), "reports.db"))
	fill(t, store, "loop.example", 1, rowOf("192.0.2.1"))
	s := newSite(t, store)
	s.Resolver = resolvertest.NewZone(t, "_dmarc.loop.example. IN TXT \"v=DMARC1; p=none; rua=mailto:a@loop.example!100,mailto:b@loop.example!1m\"\n")
	if err := s.Send(t.Context(), dmarcreport.Selection{}); err != nil || len(s.mail) != 1 || s.mail[0].To != "b@loop.example" {
		t.Error(len(s.mail), err)
	}
	if len(s.said) != 2 || s.said[0].State != dmarcreport.TooLarge {
		t.Errorf("%+v", s.said)
	}
}

// TestBackOff shows how a server that takes nothing is tried again, and when it is
// given up.
func TestBackOff(t *testing.T) {
	store := openStore(t, filepath.Join(t.TempDir(), "reports.db"))
	fill(t, store, "loop.example", 1, rowOf("192.0.2.1"))
	s := newSite(t, store)
	tries := 0
	s.fail = errors.New("451 not now")
	deliver := s.Deliver
	s.Deliver = func(ctx context.Context, e dmarcreport.Envelope, w func(io.Writer) error) error {
		tries++
		return deliver(ctx, e, w)
	}
	for hour := range 24 * 7 {
		s.now = day.End().Add(time.Duration(hour+1) * time.Hour)
		_ = s.Send(t.Context(), dmarcreport.Selection{})
	}
	if tries != dmarcreport.MaxTries || s.said[len(s.said)-1].State != dmarcreport.Failed {
		t.Error(tries, s.said)
	}
	s.fail = nil
	_ = s.Send(t.Context(), dmarcreport.Selection{})
	if len(s.mail) != 0 {
		t.Error("a report is sent that was given up")
	}
	s.now = day.End().Add(13 * 24 * time.Hour)
	if err := s.Send(t.Context(), dmarcreport.Selection{Again: true}); err != nil || len(s.mail) != 1 {
		t.Fatal(len(s.mail), err)
	}
	s.now = s.now.Add(6 * 24 * time.Hour)
	if _, err := s.TakeBounce(t.Context(), dmarcreport.TokenOf(s.mail[0].From), dmarcreport.Bounce{Failed: true}); err != nil {
		t.Error("a late bounce of a late try:", err)
	}
}

// TestClockSetBack shows that a try while the clock was ahead delays no report.
func TestClockSetBack(t *testing.T) {
	store := openStore(t, filepath.Join(t.TempDir(), "reports.db"))
	fill(t, store, "loop.example", 1, rowOf("192.0.2.1"))
	s := newSite(t, store)
	right := s.now
	s.now, s.fail = right.Add(24*time.Hour), errors.New("451 not now")
	_ = s.Send(t.Context(), dmarcreport.Selection{})
	s.now, s.fail = right.Add(10*time.Minute), nil
	if err := s.Send(t.Context(), dmarcreport.Selection{}); err != nil || len(s.mail) != 1 {
		t.Fatal(len(s.mail), err)
	}
}

// TestBounce shows that mail that comes back silences its address, and no other.
func TestBounce(t *testing.T) {
	store := openStore(t, filepath.Join(t.TempDir(), "reports.db"))
	fill(t, store, "one.example", 1, rowOf("192.0.2.1"))
	s := newSite(t, store)
	if err := s.Send(t.Context(), dmarcreport.Selection{}); err != nil || len(s.mail) != 2 {
		t.Fatal(len(s.mail), err)
	}
	b, err := dmarcreport.ReadBounce(strings.NewReader("From: MAILER-DAEMON\r\nContent-Type: multipart/report\r\n\r\n--x\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx\r\n\r\nAction: failed\r\nStatus: 5.1.1\r\nDiagnostic-Code: smtp; 550 no such user\r\n"))
	if err != nil || !b.Failed || b.Why != "5.1.1 smtp; 550 no such user" {
		t.Fatalf("%+v, %v", b, err)
	}
	token := dmarcreport.TokenOf(s.mail[0].From)
	if address, err := s.TakeBounce(t.Context(), token, dmarcreport.Bounce{Why: "delayed"}); err != nil || address != "dmarc@one.example" {
		t.Error(address, err)
	}
	if address, err := s.TakeBounce(t.Context(), token, b); err != nil || address != "dmarc@one.example" {
		t.Error(address, err)
	}
	if _, err := s.TakeBounce(t.Context(), "aaaaaaaaaaaaaaaa", b); !errors.Is(err, dmarcreport.ErrNoToken) {
		t.Error("a forged bounce is believed:", err)
	}
	c := dmarcreport.NewCollector(store, func() time.Time { return day.End().Add(time.Hour) }, nil)
	c.Record("one.example", policy, rowOf("192.0.2.1"))
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.now = s.now.Add(25 * time.Hour)
	if err := s.Send(t.Context(), dmarcreport.Selection{}); err != nil || len(s.mail) != 3 || s.mail[2].To != "reports@other.test" {
		t.Fatal(len(s.mail), err, s.said)
	}
	dead := 0
	if err := s.EachSuppressed(t.Context(), func(address string, d dmarcreport.Suppressed) error {
		dead++
		if address != "dmarc@one.example" || d.Bounces != 1 || d.Until.Sub(day.End()) < 7*24*time.Hour {
			t.Errorf("%s %+v", address, d)
		}
		return nil
	}); err != nil || dead != 1 {
		t.Error(dead, err)
	}
}

// TestBounceWhileSending shows that a mail can come back before the sender has noted that
// it was accepted.
func TestBounceWhileSending(t *testing.T) {
	store := openStore(t, filepath.Join(t.TempDir(), "reports.db"))
	fill(t, store, "one.example", 1, rowOf("192.0.2.1"))
	s := newSite(t, store)
	deliver := s.Deliver
	s.Deliver = func(ctx context.Context, e dmarcreport.Envelope, w func(io.Writer) error) error {
		if err := deliver(ctx, e, w); err != nil || e.To != "dmarc@one.example" {
			return err
		}
		_, err := s.TakeBounce(ctx, dmarcreport.TokenOf(e.From), dmarcreport.Bounce{Failed: true, Why: "5.1.1"})
		return err
	}
	if err := s.Send(t.Context(), dmarcreport.Selection{}); err != nil || len(s.mail) != 2 {
		t.Fatal(len(s.mail), err)
	}
	state, err := s.StateOf(t.Context(), &dmarcreport.Report{Reporter: s.Reporter, Day: day, Domain: dmarcreport.Domain{Name: "one.example"}})
	if err != nil || !state.Done || state.To[0].State != dmarcreport.Bounced || state.To[0].Error != "5.1.1" || state.To[1].State != dmarcreport.Sent {
		t.Errorf("%+v, %v", state, err)
	}
}

// deafOther is a resolver that gets no answers from other organizations while it is down.
type deafOther struct {
	dmarcreport.Resolver
	down *bool
}

func (r deafOther) LookupTXT(ctx context.Context, name string) ([]string, error) {
	if *r.down && strings.Contains(name, "._report.") {
		return nil, errors.New("no answer")
	}
	return r.Resolver.LookupTXT(ctx, name)
}

// TestUndecided shows that an address whose DNS does not answer delays no other, and gets
// the report later.
func TestUndecided(t *testing.T) {
	store := openStore(t, filepath.Join(t.TempDir(), "reports.db"))
	fill(t, store, "one.example", 1, rowOf("192.0.2.1"))
	s := newSite(t, store)
	down := true
	s.Resolver = deafOther{s.Resolver, &down}
	for range 2 {
		if err := s.Send(t.Context(), dmarcreport.Selection{}); err == nil || len(s.mail) != 1 || s.mail[0].To != "dmarc@one.example" {
			t.Fatal(len(s.mail), err)
		}
		if last := s.said[len(s.said)-1]; last.State != dmarcreport.Waiting || !strings.Contains(last.Error, "whether reports@other.test agrees: no answer") {
			t.Errorf("%+v", last)
		}
	}
	down = false
	for range 2 {
		if err := s.Send(t.Context(), dmarcreport.Selection{}); err != nil || len(s.mail) != 2 || s.mail[1].To != "reports@other.test" {
			t.Fatal(len(s.mail), err)
		}
	}
}

// TestNoRoom shows that a report waits while there is no room for its file.
func TestNoRoom(t *testing.T) {
	store := openStore(t, filepath.Join(t.TempDir(), "reports.db"))
	fill(t, store, "loop.example", 1, rowOf("192.0.2.1"))
	s := newSite(t, store)
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "none"))
	if err := s.Send(t.Context(), dmarcreport.Selection{}); err == nil || len(s.mail) != 0 || len(s.said) != 1 || s.said[0].State != dmarcreport.Waiting {
		t.Fatal(len(s.mail), err, s.said)
	}
	t.Setenv("TMPDIR", t.TempDir())
	if err := s.Send(t.Context(), dmarcreport.Selection{}); err != nil || len(s.mail) != 1 {
		t.Error(len(s.mail), err)
	}
}

// remote is a store that nothing reaches after the end of a context, such as Redis.
type remote struct{ dmarcreport.Store }

func (r remote) SwapNote(ctx context.Context, name, old, text string, now, until time.Time) (bool, error) {
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	return r.Store.SwapNote(ctx, name, old, text, now, until)
}

// TestEndedWhileSending shows that what the server has accepted is noted, and that the
// other addresses lose no try, when the sender is told to end.
func TestEndedWhileSending(t *testing.T) {
	store := openStore(t, filepath.Join(t.TempDir(), "reports.db"))
	fill(t, store, "one.example", 1, rowOf("192.0.2.1"))
	s := newSite(t, remote{store})
	ctx, cancel := context.WithCancel(t.Context())
	deliver := s.Deliver
	s.Deliver = func(ctx context.Context, e dmarcreport.Envelope, w func(io.Writer) error) error {
		defer cancel()
		return deliver(ctx, e, w)
	}
	if err := s.Send(ctx, dmarcreport.Selection{}); !errors.Is(err, context.Canceled) || len(s.mail) != 1 {
		t.Fatal(len(s.mail), err)
	}
	if err := s.Send(t.Context(), dmarcreport.Selection{}); err != nil || len(s.mail) != 2 || s.mail[0].To == s.mail[1].To {
		t.Fatal(len(s.mail), err)
	}
	state, err := s.StateOf(t.Context(), &dmarcreport.Report{Reporter: s.Reporter, Day: day, Domain: dmarcreport.Domain{Name: "one.example"}})
	if err != nil || !state.Done || state.To[0].Tries != 1 || state.To[1].Tries != 1 {
		t.Errorf("%+v, %v", state, err)
	}
}

// TestOldDays shows that a host that was off for long does not send again what it sent
// before: the states are gone then, and the rows wait for the purge.
func TestOldDays(t *testing.T) {
	store := openStore(t, filepath.Join(t.TempDir(), "reports.db"))
	fill(t, store, "loop.example", 1, rowOf("192.0.2.1"))
	s := newSite(t, store)
	for range 2 {
		if err := s.Send(t.Context(), dmarcreport.Selection{}); err != nil || len(s.mail) != 1 {
			t.Fatal(len(s.mail), err)
		}
		s.now = s.now.Add(60 * 24 * time.Hour)
	}
}

// TestTwoHosts shows that hosts with one store send one report.
func TestTwoHosts(t *testing.T) {
	store := openStore(t, filepath.Join(t.TempDir(), "reports.db"))
	fill(t, store, "loop.example", 1, rowOf("192.0.2.1"))
	one, other := newSite(t, store), newSite(t, store)
	deliver := one.Deliver
	one.Deliver = func(ctx context.Context, e dmarcreport.Envelope, w func(io.Writer) error) error {
		if err := other.Send(ctx, dmarcreport.Selection{Again: true}); err != nil {
			t.Error(err)
		}
		return deliver(ctx, e, w)
	}
	if err := one.Send(t.Context(), dmarcreport.Selection{}); err != nil || len(one.mail) != 1 || len(other.mail) != 0 {
		t.Error(len(one.mail), len(other.mail), err)
	}
	if err := other.Send(t.Context(), dmarcreport.Selection{}); err != nil || len(other.mail) != 0 {
		t.Error("sent again:", len(other.mail), err)
	}
}

// TestKilled kills the process at each step of sending. The next one sends the same
// report, under the same name and Message-ID, and no one gets it more often than once
// and, when the process died before it could note it, once more.
func TestKilled(t *testing.T) {
	if at := os.Getenv("REPORT_KILL_AT"); at != "" {
		sendInChild(t, at)
		return
	}
	for _, step := range []string{"discover", "write", "note", "send", "sent", "mark", "done"} {
		dir := t.TempDir()
		path := filepath.Join(dir, "reports.db")
		t.Run(step, func(t *testing.T) {
			store := openStore(t, path)
			fill(t, store, "loop.example", 1, rowOf("192.0.2.1"))
		})
		run := func(at string) error {
			c := exec.Command(os.Args[0], "-test.run=^TestKilled$")
			c.Env = append(os.Environ(), "REPORT_KILL_AT="+at, "REPORT_DIR="+dir, "TMPDIR="+dir)
			out, err := c.CombinedOutput()
			if at == "never" && err != nil {
				t.Errorf("%s: %s", step, out)
			}
			return err
		}
		if err := run(step); err == nil {
			t.Errorf("%s: the process was not killed", step)
		}
		_ = run("never")
		if step == "sent" {
			_ = run("never") // sends nothing more
		}
		files, _ := filepath.Glob(filepath.Join(dir, "mail-*"))
		if left, _ := filepath.Glob(filepath.Join(dir, "dmarc-report-*")); len(left) != 0 {
			t.Errorf("%s: %s", step, left)
		}
		names := make(map[string]bool)
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			name, report := attachment(t, string(text))
			m, _ := mail.ReadMessage(bytes.NewReader(text))
			names[name+" "+m.Header.Get("Message-ID")+" "+string(report)] = true
		}
		most := 1
		if step == "sent" || step == "mark" {
			most = 2
		}
		if len(names) != 1 || len(files) != most {
			t.Errorf("%s: %d mails, names %q", step, len(files), slices.Collect(maps.Keys(names)))
		}
	}
}

// sendInChild sends, and ends by SIGKILL at a step. Mails become files. Each run is two
// days later than the one before: the lease of a dead process and the pause after a
// try are over then.
func sendInChild(t *testing.T, at string) {
	dir := os.Getenv("REPORT_DIR")
	s := newSite(t, openStore(t, filepath.Join(dir, "reports.db")))
	runs, _ := filepath.Glob(filepath.Join(dir, "run-*"))
	s.now = s.now.Add(time.Duration(len(runs)) * 48 * time.Hour)
	if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("run-%d", len(runs))), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Step = func(step string) {
		if step == at {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
	}
	s.Deliver = func(_ context.Context, _ dmarcreport.Envelope, write func(io.Writer) error) error {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			return err
		}
		mails, _ := filepath.Glob(filepath.Join(dir, "mail-*"))
		return os.WriteFile(filepath.Join(dir, fmt.Sprintf("mail-%d", len(mails))), b.Bytes(), 0o600)
	}
	if err := s.Send(t.Context(), dmarcreport.Selection{}); err != nil {
		t.Error(err)
	}
}

// TestFind shows who gets reports, and who does not.
func TestFind(t *testing.T) {
	for name, test := range map[string]struct {
		zone string
		to   string
		not  int
	}{
		"its own address":       {`_dmarc.a.example. IN TXT "v=DMARC1; p=none; rua=mailto:x@a.example"`, "x@a.example", 0},
		"the same organization": {`_dmarc.a.example. IN TXT "v=DMARC1; p=none; rua=mailto:x@b.a.example"`, "x@b.a.example", 0},
		"a limit":               {`_dmarc.a.example. IN TXT "v=DMARC1; p=none; rua=MAILTO:x@A.example!10m"`, "x@a.example!10485760", 0},
		"no mail":               {`_dmarc.a.example. IN TXT "v=DMARC1; p=none; rua=https://a.example/,mailto:x@a.example"`, "x@a.example", 1},
		"escaped":               {`_dmarc.a.example. IN TXT "v=DMARC1; p=none; rua=mailto:x%21y@a.example"`, "x!y@a.example", 0},
		"an injection":          {`_dmarc.a.example. IN TXT "v=DMARC1; p=none; rua=mailto:x%0d%0aBcc:y@a.example"`, "", 1},
		"twice":                 {`_dmarc.a.example. IN TXT "v=DMARC1; p=none; rua=mailto:x@a.example,mailto:x@a.example"`, "x@a.example", 0},
		"two tags":              {`_dmarc.a.example. IN TXT "v=DMARC1; p=none; rua=mailto:x@a.example; rua=mailto:y@a.example"`, "", 0},
		"many":                  {`_dmarc.a.example. IN TXT "v=DMARC1; p=none; rua=mailto:1@a.example,mailto:2@a.example,mailto:3@a.example,mailto:4@a.example,mailto:5@a.example,mailto:6@a.example"`, "1@a.example 2@a.example 3@a.example 4@a.example 5@a.example", 1},
		"others first, unasked": {`_dmarc.a.example. IN TXT "v=DMARC1; p=none; rua=mailto:1@b.test,mailto:2@b.test,mailto:3@b.test,mailto:4@b.test,mailto:5@b.test,mailto:x@a.example"`, "x@a.example", 5},
		"another, unasked":      {`_dmarc.a.example. IN TXT "v=DMARC1; p=none; rua=mailto:victim@b.test"`, "", 1},
		"another, agreed":       {"_dmarc.a.example. IN TXT \"v=DMARC1; p=none; rua=mailto:x@b.test!1k\"\na.example._report._dmarc.b.test. IN TXT \"v=DMARC1;\"", "x@b.test!1024", 0},
		"another, for all":      {"_dmarc.a.example. IN TXT \"v=DMARC1; p=none; rua=mailto:x@b.test\"\n*._report._dmarc.b.test. IN TXT \"v=DMARC1\"", "x@b.test", 0},
		"another, moved":        {"_dmarc.a.example. IN TXT \"v=DMARC1; p=none; rua=mailto:x@b.test\"\na.example._report._dmarc.b.test. IN TXT \"v=DMARC1; rua=mailto:y@b.test\"", "y@b.test", 0},
		"others, moved to one":  {"_dmarc.a.example. IN TXT \"v=DMARC1; p=none; rua=mailto:x@b.test!4k,mailto:z@b.test!2k,mailto:y@b.test\"\na.example._report._dmarc.b.test. IN TXT \"v=DMARC1; rua=mailto:y@b.test!1k\"", "y@b.test!1024", 0},
		"another, moved away":   {"_dmarc.a.example. IN TXT \"v=DMARC1; p=none; rua=mailto:x@b.test\"\na.example._report._dmarc.b.test. IN TXT \"v=DMARC1; rua=mailto:y@victim.test\"", "", 1},
		"another, agreed twice": {"_dmarc.a.example. IN TXT \"v=DMARC1; p=none; rua=mailto:x@b.test\"\na.example._report._dmarc.b.test. IN TXT \"v=DMARC1\"\na.example._report._dmarc.b.test. IN TXT \"v=DMARC1; p=none\"\na.example._report._dmarc.b.test. IN TXT \"v=spf1 -all\"", "x@b.test", 0},
		"another, moved twice":  {"_dmarc.a.example. IN TXT \"v=DMARC1; p=none; rua=mailto:x@b.test\"\na.example._report._dmarc.b.test. IN TXT \"v=DMARC1; rua=mailto:z@b.test\"\na.example._report._dmarc.b.test. IN TXT \"v=DMARC1; rua=mailto:y@b.test\"\na.example._report._dmarc.b.test. IN TXT \"v=DMARC1\"", "y@b.test", 0},
		"one of them away":      {"_dmarc.a.example. IN TXT \"v=DMARC1; p=none; rua=mailto:x@b.test\"\na.example._report._dmarc.b.test. IN TXT \"v=DMARC1; rua=mailto:y@b.test\"\na.example._report._dmarc.b.test. IN TXT \"v=DMARC1; rua=mailto:z@victim.test\"", "", 1},
		"no record":             {"", "", 0},
		"two records":           {"_dmarc.a.example. IN TXT \"v=DMARC1; p=none; rua=mailto:x@a.example\"\n_dmarc.a.example. IN TXT \"v=DMARC1; p=reject; rua=mailto:x@a.example\"", "", 0},
	} {
		w, err := dmarcreport.Find(t.Context(), resolvertest.NewZone(t, test.zone+"\n"), "a.example")
		if err != nil {
			t.Error(name, err)
		}
		var to []string
		for _, d := range w.Destinations {
			text := d.Address
			if d.MaxSize > 0 {
				text += fmt.Sprintf("!%d", d.MaxSize)
			}
			to = append(to, text)
		}
		if strings.Join(to, " ") != test.to || len(w.Refused) != test.not {
			t.Errorf("%s: %q, refused %+v", name, to, w.Refused)
		}
	}
}

func TestReadBounce(t *testing.T) {
	for text, want := range map[string]bool{
		"From: MAILER-DAEMON\n\nUndelivered\n":                         true,
		"Auto-Submitted: auto-replied\n\nI am away\n":                  false,
		"X: y\n\nReporting-MTA: x\n\nAction: delayed\nStatus: 4.4.1\n": false,
		"X: y\n\nAction: delivered\n":                                  false,
		"X: y\n\nAction: Failed\nStatus: 5.0.0\n":                      true,
		"X: y\n\nAction: Failed\nStatus: \xff\n":                       true,
		"":                                                             true,
		"Return-Path: <>\n\nUndelivered\n":                             true,
		"From x\nReturn-Path: <MAILER-DAEMON>\n\nUndelivered\n":        true,
		"Return-Path: <a@b.example>\n\nThank you\n":                    false,
		"Return-Path: <a@b.example>\n\nAction: failed\n":               true,
		"Return-Path: <>\nReturn-Path: <a@b.example>\n\nNo such user":  true,
		"Return-Path: <>\nAuto-Submitted: auto-generated\n\nI am away": false,
		"Return-Path: <>\nAuto-Submitted: no\n\nUndelivered\n":         true,
	} {
		if b, err := dmarcreport.ReadBounce(strings.NewReader(text)); err != nil || b.Failed != want || b.Why == "" {
			t.Errorf("%q: %+v, %v", text, b, err)
		}
	}
}

func FuzzReadBounce(f *testing.F) {
	f.Add([]byte("X: y\n\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 \xff\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if b, err := dmarcreport.ReadBounce(bytes.NewReader(text)); err == nil && (b.Why == "" || len(b.Why) > 300) {
			t.Errorf("%+v", b)
		}
	})
}

// Addresses whose DNS does not answer delay the others by the time of one question.
func TestFindAsksAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		uris := ""
		for i := range 14 {
			uris += fmt.Sprintf("mailto:a@slow%d.test,", i)
		}
		dns, err := resolvertest.StartZone("_dmarc.a.example. TXT \"v=DMARC1; p=none; rua=" + uris + "mailto:b@good.test\"\na.example._report._dmarc.good.test. TXT \"v=DMARC1\"\n")
		if err != nil {
			t.Fatal(err)
		}
		defer dns.Close()
		for i := range 14 {
			dns.SetDelay(fmt.Sprintf("a.example._report._dmarc.slow%d.test", i), time.Hour)
		}
		began := time.Now()
		w, err := dmarcreport.Find(t.Context(), dns, "a.example")
		if took := time.Since(began); err != nil || len(w.Destinations) != 1 || w.Undecided == nil || took > 15*time.Second {
			t.Errorf("%+v, %v, after %v", w, err, took)
		}
	})
}

func FuzzFind(f *testing.F) {
	f.Add("v=DMARC1; p=none; rua=mailto:a@b.example!10m,mailto:%40")
	f.Fuzz(func(t *testing.T, record string) {
		w, err := dmarcreport.Find(t.Context(), oneRecord(record), "a.example")
		if err != nil || len(w.Destinations) > dmarcreport.MaxDestinations {
			t.Error(w, err)
		}
		for _, d := range w.Destinations {
			if strings.ContainsAny(d.Address, "\r\n <>\x00") || strings.Count(d.Address, "@") < 1 {
				t.Errorf("%q", d.Address)
			}
		}
	})
}

type oneRecord string

func (r oneRecord) LookupTXT(context.Context, string) ([]string, error) {
	return []string{string(r)}, nil
}
