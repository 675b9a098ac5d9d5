package replay

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/maillog"
)

const rfcLog = `2026-11-21T02:00:00.1+01:00 mx postfix/smtpd[10]: connect from mx.x.example[192.0.2.7]
2026-11-21T02:00:01+01:00 mx postfix/smtpd[10]: NOQUEUE: reject: RCPT from mx.x.example[192.0.2.7]: 450 4.2.0 <bob@home.example>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/help/home.example.html; from=<ann@x.example> to=<bob@home.example> proto=ESMTP helo=<mx.x.example>
2026-11-21T02:00:02+01:00 mx postfix/smtpd[10]: NOQUEUE: reject: RCPT from unknown[198.51.100.9]: 554 5.7.1 <bob@home.example>: Relay access denied; from=<s@z.example> to=<bob@home.example> proto=SMTP helo=<z>
2026-11-21T02:00:03+01:00 mx postfix/smtpd[10]: NOQUEUE: reject: RCPT from unknown[198.51.100.9]: 450 4.1.1 <nobody@home.example>: Recipient address rejected: unverified; from=<s@z.example> to=<nobody@home.example> proto=SMTP helo=<z>
2026-11-21T02:05:59+01:00 mx postfix/cleanup[12]: 4TzXy00abc: milter-reject: END-OF-MESSAGE from mx.q.example[192.0.2.8]: 4.7.1 Try again later; from=<q@q.example> to=<bob@home.example> proto=ESMTP helo=<mx.q.example>
2026-11-21T02:05:59+01:00 mx postfix/cleanup[12]: 4TzXy00abd: milter-reject: END-OF-MESSAGE from mx.q.example[192.0.2.8]: 4.7.1 Service unavailable; from=<q@q.example> to=<bob@home.example> proto=ESMTP helo=<mx.q.example>
2026-11-21T02:06:00+01:00 mx postfix/submission/smtpd[11]: 4TzXy01abc: client=mx.x.example[192.0.2.7]:4711
2026-11-21T02:06:01+01:00 mx postfix/cleanup[12]: 4TzXy01abc: message-id=<1@x.example>
2026-11-21T02:06:01+01:00 mx postfix/qmgr[13]: 4TzXy01abc: from=<ann@x.example>, size=1, nrcpt=2 (queue active)
2026-11-21T02:06:02+01:00 mx postfix/lmtp[14]: 4TzXy01abc: to=<robert@home.example>, orig_to=<bob@home.example>, relay=127.0.0.1[127.0.0.1]:24, delay=2, delays=0/0/0/2, dsn=2.0.0, status=sent (250 ok)
2026-11-21T02:06:02+01:00 mx postfix/smtp[15]: 4TzXy01abc: to=<eve@home.example>, relay=none, delay=2, delays=0/0/0/2, dsn=4.4.1, status=deferred (refused)
2026-11-21T02:06:03+01:00 mx postfix/smtpd[11]: 4TzXy02abc: client=unknown[192.0.2.9], sasl_method=PLAIN, sasl_username=bob
2026-11-21T02:06:04+01:00 mx postfix/qmgr[13]: 4TzXy02abc: from=<bob@home.example>, size=1, nrcpt=1 (queue active)
2026-11-21T02:06:05+01:00 mx postfix/smtp[15]: 4TzXy02abc: to=<x@y.example>, relay=y.example[192.0.2.1]:25, delay=2, delays=0/0/0/2, dsn=2.0.0, status=sent (250 ok)
2026-11-21T03:06:05+01:00 mx postfix/smtp[15]: 4TzXy01abc: to=<eve@home.example>, relay=y.example[192.0.2.1]:25, delay=2, delays=0/0/0/2, dsn=2.0.0, status=sent (250 ok)
2026-11-21T03:06:06+01:00 mx postfix/qmgr[13]: 4TzXy01abc: removed
`

// asked gives the questions of logs in a short form.
func asked(t *testing.T, latest time.Time, logs ...string) (all []string) {
	t.Helper()
	var sources []*maillog.Source
	for _, text := range logs {
		sources = append(sources, maillog.NewSource("test", strings.NewReader(text), nil))
	}
	for q, err := range Postfix(sources, latest) {
		if err != nil {
			t.Fatal(err)
		}
		r := q.Request
		all = append(all, fmt.Sprintf("%s %s[%s] %s %s %s %t", r.Received.UTC().Format("01-02T15:04:05"), r.Client.Name, r.Client.Address, r.Sender.Raw, r.Recipient.Raw, r.Login, q.Deferred))
	}
	return all
}

// A login may have a space, and other words may follow it: those of AUTH= and XFORWARD.
func TestPostfixLogin(t *testing.T) {
	for words, want := range map[string]string{
		"bob": "bob", "bob, sasl_sender=eve@y.example": "bob", "John Doe, orig_queue_id=4TzXy, orig_client=unknown[192.0.2.1]": "John Doe", "bob@x.example, orig_client=a[192.0.2.1]": "bob@x.example",
	} {
		log := strings.ReplaceAll(rfcLog, "sasl_username=bob", "sasl_username="+words)
		logins := asked(t, time.Time{}, log)
		if !slices.ContainsFunc(logins, func(q string) bool { return strings.Contains(q, " x@y.example "+want+" ") }) {
			t.Errorf("%s: %q", words, logins)
		}
	}
}

func TestPostfix(t *testing.T) {
	want := []string{
		"11-21T01:00:01 mx.x.example[192.0.2.7] ann@x.example bob@home.example  true",
		"11-21T01:05:59 mx.q.example[192.0.2.8] q@q.example bob@home.example  true",
		"11-21T01:06:00 mx.x.example[192.0.2.7] ann@x.example bob@home.example  false",
		"11-21T01:06:00 mx.x.example[192.0.2.7] ann@x.example eve@home.example  false",
		"11-21T01:06:03 [192.0.2.9] bob@home.example x@y.example bob false",
	}
	now := time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)
	if got := asked(t, now, rfcLog); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// The same in syslog's form, in two files of a rotation, the newer one first.
	old := strings.NewReplacer("2026-11-21T02:00:00.1+01:00", "Nov 21 01:00:00", "2026-11-21T02:", "Nov 21 01:", "2026-11-21T03:", "Nov 21 02:", "+01:00", "").Replace(rfcLog)
	lines := strings.SplitAfter(old, "\n")
	if got := asked(t, now, strings.Join(lines[8:], ""), strings.Join(lines[:8], "")); !slices.Equal(got, want) {
		t.Errorf("of two files: got\n%s", strings.Join(got, "\n"))
	}
}

func TestStampsWithoutAYear(t *testing.T) {
	latest := time.Date(2027, 1, 2, 12, 0, 0, 0, time.UTC)
	for stamp, want := range map[string]string{
		"Jan  2 11:00:00": "2027-01-02T11:00:00Z", "Jan  3 11:00:00": "2027-01-03T11:00:00Z", "Dec 31 23:59:59": "2026-12-31T23:59:59Z", "2020-01-01T00:00:00Z": "2020-01-01T00:00:00Z", "2020-01-01T01:00:00.5+0000": "2020-01-01T01:00:00Z",
	} {
		if got, ok := parseStamp(stamp, latest); !ok || got.Format(time.RFC3339) != want {
			t.Errorf("%s: %s", stamp, got.Format(time.RFC3339))
		}
	}
	if _, ok := parseStamp("Foo  2 11:00:00", latest); ok {
		t.Error("a stamp that is none")
	}
}

// A site without Postern asks what the greylist would do.
func TestReplayOfPostfix(t *testing.T) {
	play := func(delay time.Duration) Report {
		p := New(Options{Was: of(newCheck()), Would: of(withDelay(delay)), Show: 10})
		for q, err := range Postfix([]*maillog.Source{maillog.NewSource("test", strings.NewReader(rfcLog), nil)}, time.Now()) {
			if err == nil {
				err = p.Play(t.Context(), q)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		return p.Report()
	}
	r := play(5 * time.Minute)
	if g := r.Greylist; g.Was.Deferred != 2 || g.Was.Delayed != 1 || g.Would.Deferred != 3 || g.Would.Delayed != 2 || g.Would.AtLeast != 1 || r.Differ != 1 || r.Differences[0].Recipient != "eve@home.example" {
		t.Errorf("%+v\n%+v", r.Greylist, r.Differences)
	}
	if r := play(10 * time.Minute); r.Greylist.Would.Delayed != 2 || r.Greylist.Would.AtLeast != 2 || r.Greylist.Would.Waits.Max != 600 || r.Unknown[unknownPostfix] == 0 {
		t.Errorf("%+v", r.Greylist)
	}
}

func FuzzPostfix(f *testing.F) {
	f.Add(rfcLog)
	f.Fuzz(func(t *testing.T, text string) {
		p := New(Options{Was: of(newCheck()), Would: of(withDelay(time.Minute))})
		for q, err := range Postfix([]*maillog.Source{maillog.NewSource("fuzz", strings.NewReader(text), nil)}, time.Unix(1e9, 0)) {
			if err == nil {
				err = p.Play(t.Context(), q)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if r := p.Report(); r.Greylist.Would.Deferred < 0 || r.Greylist.Was.Waits.Count != r.Greylist.Was.Delayed {
			t.Errorf("%+v", r)
		}
	})
}
