package dnsbl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

const (
	zen = "zen.spamhaus.org=127.0.0.[2..11;30]"
	dbl = "dbl.spamhaus.org=127.0.1.[2..99]"
)

func sender(name string) []Subject { return []Subject{{"sender", name}} }

func TestCheck(t *testing.T) {
	z := resolvertest.NewZone(t, world)
	const all = zen + "*2 list.dnswl.org=127.0.[2..20].[2..3]*-4 list.dnswl.org=127.0.[2..20].1*-1"
	for _, c := range []struct {
		name             string
		addresses, names string
		threshold        int
		query            Query
		outcome          Outcome
		score            int
		best, meaning    string
	}{
		{"listed IPv4", zen, dbl, 1, Query{Address: addr("192.0.2.7")}, Listed, 1, "192.0.2.7", "SBL, XBL"},
		{"mapped IPv4", zen, dbl, 1, Query{Address: addr("::ffff:192.0.2.7")}, Listed, 1, "192.0.2.7", "SBL, XBL"},
		{"listed IPv6", zen, dbl, 1, Query{Address: addr("2001:db8::1")}, Listed, 1, "2001:db8::1", "CSS"},
		{"not listed", zen, dbl, 1, Query{Address: addr("192.0.2.1"), Names: sender("good.example")}, Clean, 0, "", ""},
		{"name", zen, dbl, 1, Query{Address: addr("192.0.2.1"), Names: sender("spam.example")}, Listed, 1, "spam.example", "DBL low reputation"},
		{"name below", zen, dbl, 1, Query{Names: sender("a.b.spam.example")}, Listed, 1, "a.b.spam.example", "DBL low reputation"},
		{"abused", zen, dbl, 1, Query{Names: sender("abused.example")}, Clean, 0, "", ""},
		{"below the threshold", zen, dbl, 2, Query{Address: addr("192.0.2.7"), Names: sender("good.example")}, Clean, 1, "192.0.2.7", "SBL, XBL"},
		{"scores add", zen, dbl, 2, Query{Address: addr("192.0.2.7"), Names: sender("spam.example")}, Listed, 2, "192.0.2.7", "SBL, XBL"},
		{"names add", "", dbl, 2, Query{Names: []Subject{{"sender", "spam.example"}, {"helo", "mx.spam.example"}}}, Listed, 2, "spam.example", "DBL low reputation"},
		{"the same name once", "", dbl, 2, Query{Names: []Subject{{"sender", "spam.example"}, {"helo", "spam.example"}}}, Clean, 1, "spam.example", "DBL low reputation"},
		{"allowed", all, "", 1, Query{Address: addr("192.0.2.7")}, Clean, -2, "192.0.2.7", "SBL, XBL"},
		{"allowed alone", all, "", 1, Query{Address: addr("192.0.2.9")}, Clean, -1, "", ""},
		{"nothing to ask", zen, dbl, 1, Query{Address: addr("10.0.0.1"), Names: sender("localhost")}, Clean, 0, "", ""},
		{"two sites of one zone", zen + " zen.spamhaus.org=127.0.0.4*3", "", 4, Query{Address: addr("192.0.2.7")}, Listed, 4, "192.0.2.7", "SBL, XBL"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLists(t, z, c.addresses, c.names, Config{Threshold: c.threshold, Signals: true})
			r, err := l.Check(t.Context(), c.query)
			if err != nil || r.Outcome != c.outcome || r.Score != c.score {
				t.Fatalf("%+v, %v", r, err)
			}
			best := r.Best()
			if (best != nil) != (c.best != "") || best != nil && (best.Subject != c.best || best.Meaning() != c.meaning) {
				t.Errorf("best %+v", best)
			}
		})
	}
}

func TestSharedNameHasAllRoles(t *testing.T) {
	z := resolvertest.NewZone(t, world)
	l := newLists(t, z, "", dbl, Config{})
	r, err := l.Check(t.Context(), Query{Names: []Subject{{"sender", "spam.example"}, {"helo", "spam.example"}}})
	if err != nil || len(r.Hits) != 1 || strings.Join(r.Hits[0].Roles, " ") != "sender helo" {
		t.Errorf("%+v, %v", r, err)
	}
	if n := z.Total(); n != 1 {
		t.Errorf("%d questions", n)
	}
}

func TestSignals(t *testing.T) {
	z := resolvertest.NewZone(t, world+`
new.example.`+secret+`.zrd.dq.spamhaus.net. IN A 127.0.2.5
newer.example.`+secret+`.zrd.dq.spamhaus.net. IN A 127.0.2.3
abused.example.`+secret+`.dbl.dq.spamhaus.net. IN A 127.0.1.104
`)
	l := newLists(t, z, "", dbl, Config{Key: testKey(secret), Signals: true})
	r, err := l.Check(t.Context(), Query{Names: []Subject{{"sender", "new.example"}, {"helo", "newer.example"}, {"client", "abused.example"}}})
	if err != nil || r.Outcome != Clean || r.Score != 0 || !r.Abused || r.FreshHours != 3 || len(r.Hits) != 3 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestBoundedNames(t *testing.T) {
	z := resolvertest.NewZone(t, "")
	l := newLists(t, z, "", dbl, Config{Signals: true})
	var names []Subject
	for n := range 20 {
		names = append(names, Subject{"helo", fmt.Sprintf("n%d.example", n)})
	}
	names = append(names, Subject{"sender", strings.Repeat("a.", 120) + "example"})
	if _, err := l.Check(t.Context(), Query{Names: names}); err != nil || z.Total() != maxNames {
		t.Errorf("%d questions, %v", z.Total(), err)
	}
}

// The deciding question is answered at once, the others never. A request whose
// outcome cannot change does not wait for them.
func TestStopsWhenSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := resolvertest.NewZone(t, world)
		z.SetDelay("*.slow.example", time.Hour)
		listed := newLists(t, z, zen+"*3 a.slow.example*2 b.slow.example*-1", "", Config{Threshold: 2, Signals: true})
		started := time.Now()
		r, err := listed.Check(t.Context(), Query{Address: addr("192.0.2.7")})
		if err != nil || r.Outcome != Listed || time.Since(started) != 0 {
			t.Errorf("listed: %+v, %v after %v", r, err, time.Since(started))
		}
		clean := newLists(t, z, zen+"*3 a.slow.example*1", "", Config{Threshold: 3})
		r, err = clean.Check(t.Context(), Query{Address: addr("192.0.2.1")})
		if err != nil || r.Outcome != Clean || time.Since(started) != 0 {
			t.Errorf("clean: %+v, %v after %v", r, err, time.Since(started))
		}
		for _, s := range append(listed.Status(), clean.Status()...) {
			if s.Problem != Healthy {
				t.Errorf("a question that was not waited for was blamed: %+v", s)
			}
		}
	})
}

func TestAllAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := resolvertest.NewZone(t, world)
		z.SetDelay("*", 20*time.Millisecond)
		l := newLists(t, z, zen+" a.example b.example", dbl+" c.example", Config{Key: testKey(secret), Signals: true})
		started := time.Now()
		_, err := l.Check(t.Context(), Query{Address: addr("192.0.2.1"), Names: []Subject{{"sender", "a.test.example"}, {"helo", "b.test.example"}}})
		if took := time.Since(started); err != nil || took != 20*time.Millisecond || z.Total() != 9 {
			t.Errorf("%d questions, %v after %v", z.Total(), err, took)
		}
	})
}

func TestNoAnswer(t *testing.T) {
	for _, c := range []struct {
		name    string
		fault   resolvertest.Fault
		context func(context.Context) (context.Context, context.CancelFunc)
		problem Problem
		cause   string
	}{
		{"SERVFAIL", resolvertest.ServFail, nil, Failing, "server answered SERVFAIL"},
		{"REFUSED", resolvertest.Refused, nil, Failing, "server answered REFUSED"},
		{"time-out", resolvertest.Unavailable, nil, NoAnswer, "no answer in time"},
		{"deadline", resolvertest.Silence, func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Second)
		}, NoAnswer, "no answer in time"},
		{"cancelled", resolvertest.Silence, func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return ctx, cancel
		}, NoAnswer, "stopped"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				z := resolvertest.NewZone(t, world)
				z.Fail("*", c.fault)
				ctx, cancel := t.Context(), context.CancelFunc(func() {})
				if c.context != nil {
					ctx, cancel = c.context(ctx)
				}
				defer cancel()
				l := newLists(t, z, zen, dbl, Config{Signals: true})
				r, err := l.Check(ctx, Query{Address: addr("192.0.2.7"), Names: sender("spam.example")})
				var unknown *UnknownError
				if !errors.As(err, &unknown) || r.Outcome != Undecided || len(unknown.Failures) != 2 {
					t.Fatalf("%+v, %v", r, err)
				}
				for _, f := range unknown.Failures {
					if f.Problem != c.problem || f.Cause != c.cause || f.Broken {
						t.Errorf("%+v", f)
					}
				}
				if want := "zen.spamhaus.org: " + c.cause + "; dbl.spamhaus.org: " + c.cause; err.Error() != want {
					t.Errorf("%q, want %q", err, want)
				}
			})
		})
	}
}

// An error counts only when it could change the outcome.
func TestFailuresThatDoNotMatter(t *testing.T) {
	z := resolvertest.NewZone(t, world)
	z.Fail("*.dbl.spamhaus.org", resolvertest.ServFail)
	l := newLists(t, z, zen+"*2", dbl, Config{Threshold: 2, Signals: true})
	r, err := l.Check(t.Context(), Query{Address: addr("192.0.2.7"), Names: sender("who.example")})
	if err != nil || r.Outcome != Listed {
		t.Errorf("listed without it: %+v, %v", r, err)
	}
	r, err = l.Check(t.Context(), Query{Address: addr("192.0.2.1"), Names: sender("who.example")})
	if err != nil || r.Outcome != Clean || len(r.Failures) != 1 {
		t.Errorf("not listed with it: %+v, %v", r, err)
	}
	// An allow list without an answer could have allowed a listed client.
	z.Fail("*.list.dnswl.org", resolvertest.ServFail)
	l = newLists(t, z, zen+" list.dnswl.org*-5", "", Config{Signals: true})
	for n := range failureLimit {
		if r, err = l.Check(t.Context(), Query{Address: addr("192.0.2.7")}); err == nil || r.Outcome != Undecided {
			t.Errorf("%d: %+v, %v", n, r, err)
		}
	}
	// Once it is out of service, it must not have that effect any more.
	if r, err = l.Check(t.Context(), Query{Address: addr("192.0.2.7")}); err != nil || r.Outcome != Listed || len(r.Failures) != 1 {
		t.Errorf("out of service: %+v, %v", r, err)
	}
}

func TestManyFailuresAreCut(t *testing.T) {
	z := resolvertest.NewZone(t, "")
	z.Fail("*", resolvertest.ServFail)
	l := newLists(t, z, "a.example b.example c.example d.example e.example f.example", "", Config{})
	_, err := l.Check(t.Context(), Query{Address: addr("192.0.2.7")})
	if err == nil || !strings.HasSuffix(err.Error(), "; and 2 more") {
		t.Error(err)
	}
}

func TestText(t *testing.T) {
	z := resolvertest.NewZone(t, world+`
9.2.0.192.bl.example. IN A 127.0.0.2
9.2.0.192.bl.example. IN TXT "`+strings.Repeat("x", 250)+`" "`+strings.Repeat("é", 120)+`" "`+strings.Repeat("z", 250)+`"
`)
	l := newLists(t, z, zen+" bl.example", dbl, Config{})
	for _, c := range []struct{ address, name, zone, want string }{
		{"192.0.2.7", "", "", "Listed by SBL, see https://check.spamhaus.org/sbl/query/SBL1"},
		{"192.0.2.8", "", "", "https://check.spamhaus.org/results/?query=192.0.2.8"},
		{"2001:db8::1", "", "", "https://check.spamhaus.org/results/?query=2001:db8::1"},
		{"192.0.2.1", "spam.example", "", "https://check.spamhaus.org/results/?query=spam.example"},
	} {
		q := Query{Address: addr(c.address)}
		if c.name != "" {
			q.Names = sender(c.name)
		}
		r, err := l.Check(t.Context(), q)
		if err != nil || r.Best() == nil {
			t.Fatalf("%s: %+v, %v", c.address, r, err)
		}
		if got := l.Text(t.Context(), r.Best()); got != c.want {
			t.Errorf("%s %s: %q", c.address, c.name, got)
		}
	}
	if got := l.Text(t.Context(), &Hit{Zone: "bl.example", Subject: "192.0.2.9"}); len(got) > maxText || !strings.HasPrefix(got, "xxx") {
		t.Errorf("%d bytes: %q", len(got), got)
	}
	if got := l.Text(t.Context(), &Hit{Zone: "other.example", Subject: "192.0.2.9"}); got != "" {
		t.Errorf("of an unknown zone: %q", got)
	}
	z.Fail("*", resolvertest.ServFail)
	if got := l.Text(t.Context(), &Hit{Zone: "bl.example", Subject: "192.0.2.9"}); got != "" {
		t.Errorf("without DNS and lookup address: %q", got)
	}
}

// The names of the questions contain the key. Results do not, not even in texts of
// the zone and of the resolver.
func TestKeyStaysInside(t *testing.T) {
	lower := strings.ToLower(secret)
	z := resolvertest.NewZone(t, `
7.2.0.192.`+secret+`.zen.dq.spamhaus.net. IN A 127.0.0.2
7.2.0.192.`+secret+`.zen.dq.spamhaus.net. IN TXT "see https://x.example/`+secret+`/`+lower+`/"
*.`+secret+`.dbl.dq.spamhaus.net. IN A 127.255.255.254
2.0.0.127.`+secret+`.zen.dq.spamhaus.net. IN A 127.0.0.2
`)
	z.Fail("*.other.example", resolvertest.ServFail)
	var seen []any
	l := newLists(t, z, zen+" other.example*0", dbl, Config{Key: testKey(secret), Signals: true, Report: func(c Change) { seen = append(seen, c) }})
	for _, q := range []Query{{Address: addr("192.0.2.7")}, {Names: sender("spam.example")}, {Address: addr("192.0.2.7"), Names: sender("new.example")}} {
		for range 2 {
			r, err := l.Check(t.Context(), q)
			seen = append(seen, r, err)
			if h := r.Best(); h != nil {
				seen = append(seen, l.Text(t.Context(), h))
			}
		}
	}
	tests, err := l.SelfTest(t.Context())
	seen = append(seen, tests, err, l.Status())
	for _, subject := range []string{"192.0.2.7", "spam.example"} {
		got, r, err := l.Explain(t.Context(), subject)
		seen = append(seen, got, r, err)
	}
	z.Fail("*", resolvertest.Refused)
	r, err := l.Check(t.Context(), Query{Address: addr("192.0.2.99"), Names: sender("fail.example")})
	seen = append(seen, r, err, fmt.Sprintf("%+v %#v", l.config.Key, Config{}.Key))
	text := strings.ToLower(dump(seen))
	for _, must := range []string{"zen.spamhaus.org", "dbl.spamhaus.org", "zrd.dq.spamhaus.net", "public_resolver", "see https://x.example/***/***/", "refused"} {
		if !strings.Contains(text, must) {
			t.Errorf("%q is not in what was said", must)
		}
	}
	if at := strings.Index(text, lower); at >= 0 {
		t.Errorf("the key is in …%s…", text[max(0, at-100):at+40])
	}
	asked := false
	for _, q := range z.Queries() {
		asked = asked || strings.EqualFold(q.Name, "7.2.0.192."+secret+".zen.dq.spamhaus.net.")
		if strings.Contains(q.Name, "spamhaus.org") {
			t.Errorf("the public mirror was asked: %s", q.Name)
		}
	}
	if !asked {
		t.Error("the keyed service was not asked")
	}
}

// dump returns values with all that they point to, as JSON and as a debugger would
// print them.
func dump(values []any) string {
	var b strings.Builder
	for _, v := range values {
		fmt.Fprintf(&b, "%+v %#v\n", v, v)
		if results, ok := v.([]TestResult); ok {
			for _, r := range results {
				for _, p := range r.Points {
					fmt.Fprintf(&b, "%+v %+v\n", p, p.Failure)
				}
			}
		}
		if explained, ok := v.([]Explanation); ok {
			for _, e := range explained {
				fmt.Fprintf(&b, "%+v %+v %+v\n", e, e.Hit, e.Failure)
			}
		}
	}
	return b.String()
}

// The errors of another resolver may contain the question, and with it the key.
type rude struct{ err error }

func (r rude) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) { return nil, r.err }
func (r rude) LookupTXT(context.Context, string) ([]string, error)               { return nil, r.err }

func TestErrorsOfOtherResolvers(t *testing.T) {
	name := "7.2.0.192." + secret + ".zen.dq.spamhaus.net."
	for _, c := range []struct {
		err     error
		problem Problem
		cause   string
	}{
		{errors.New("lookup " + name + ": broken"), Failing, "lookup 7.2.0.192.***.zen.dq.spamhaus.net.: broken"},
		{&net.DNSError{Err: "bad " + strings.ToLower(name), Name: name}, Failing, "bad 7.2.0.192.***.zen.dq.spamhaus.net."},
		{&net.DNSError{Err: "x", Name: name, IsTimeout: true}, NoAnswer, "no answer in time"},
		{fmt.Errorf("%s: %w", name, context.DeadlineExceeded), NoAnswer, "no answer in time"},
	} {
		l := newLists(t, rude{c.err}, zen, "", Config{Key: testKey(secret)})
		r, err := l.Check(t.Context(), Query{Address: addr("192.0.2.7")})
		if err == nil || len(r.Failures) != 1 || r.Failures[0].Problem != c.problem || r.Failures[0].Cause != c.cause {
			t.Errorf("%+v, %v", r, err)
		}
	}
	l := newLists(t, rude{&net.DNSError{Err: "no such host", IsNotFound: true}}, zen, "", Config{})
	if r, err := l.Check(t.Context(), Query{Address: addr("192.0.2.7")}); err != nil || r.Outcome != Clean {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestExplain(t *testing.T) {
	z := resolvertest.NewZone(t, world)
	z.Fail("*.list.dnswl.org", resolvertest.ServFail)
	l := newLists(t, z, zen+" list.dnswl.org*-1", dbl, Config{})
	got, r, err := l.Explain(t.Context(), "192.0.2.7")
	if r.Outcome != Undecided || r.Score != 1 || err == nil { // the list that failed could have allowed it
		t.Errorf("%+v, %v", r, err)
	}
	if len(got) != 2 || got[0].Hit == nil || got[0].Hit.Weight != 1 || got[0].Hit.Meaning() != "SBL, XBL" || !strings.HasPrefix(got[0].Text, "Listed by SBL") ||
		got[1].Hit != nil || got[1].Failure == nil || got[1].Failure.Problem != Failing {
		t.Errorf("%+v", got)
	}
	if got, r, err := l.Explain(t.Context(), "good.example"); r.Outcome != Clean || err != nil || len(got) != 1 || got[0].Hit != nil || got[0].Failure != nil {
		t.Errorf("%+v", got)
	}
	for _, subject := range []string{"10.0.0.1", "localhost", "", "192.0.2.300"} {
		if got, _, _ := l.Explain(t.Context(), subject); len(got) != 0 {
			t.Errorf("%q: %+v", subject, got)
		}
	}
	z.Replace("7.2.0.192.zen.spamhaus.org. IN A 127.255.255.254")
	got, _, _ = l.Explain(t.Context(), "192.0.2.7")
	if got[0].Failure == nil || got[0].Failure.Problem != SharedResolver || got[0].Hit == nil || l.Status()[0].Problem != Healthy {
		t.Errorf("%+v", got[0])
	}
}

// A list that is out of service is asked and shown, but does not count, as for
// mail.
func TestExplainCountsWhatMailCounts(t *testing.T) {
	z := resolvertest.NewZone(t, strings.ReplaceAll(world, "2.0.0.127.zen.spamhaus.org.", "other."))
	l := newLists(t, z, zen, dbl, Config{})
	if _, r, err := l.Explain(t.Context(), "192.0.2.7"); r.Outcome != Listed || err != nil {
		t.Errorf("in service: %+v, %v", r, err)
	}
	if _, err := l.SelfTest(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, r, err := l.Explain(t.Context(), "192.0.2.7")
	if r.Outcome != Undecided || r.Score != 0 || err == nil || got[0].Hit == nil || got[0].Status.Problem != ListsNothing {
		t.Errorf("out of service: %+v, %v, %+v", r, err, got)
	}
	if mail, _ := l.Check(t.Context(), Query{Address: addr("192.0.2.7")}); mail.Outcome != r.Outcome || mail.Score != r.Score {
		t.Errorf("mail: %+v", mail)
	}
}

// With a cache, a second request asks nothing, and a failure in the cache counts
// once.
func TestRememberedAnswers(t *testing.T) {
	z := resolvertest.NewZone(t, ". 3600 IN SOA ns.invalid. me.invalid. 1 3600 600 86400 3600\n"+world)
	z.Fail("*.bad.example.dbl.spamhaus.org", resolvertest.ServFail)
	r, err := resolver.New(resolver.Config{Servers: []string{"127.0.0.1"}, Exchange: z.Exchange})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	l := newLists(t, r, zen, dbl, Config{Signals: true})
	for _, q := range []struct {
		Query
		want Outcome
	}{
		{Query{Address: addr("192.0.2.7"), Names: sender("good.example")}, Listed},
		{Query{Address: addr("192.0.2.1"), Names: sender("good.example")}, Clean},
		{Query{Address: addr("192.0.2.1"), Names: sender("spam.example")}, Listed},
		{Query{Address: addr("192.0.2.1"), Names: sender("a.bad.example")}, Undecided},
	} {
		var first string
		for n := range 2 * failureLimit {
			result, err := l.Check(t.Context(), q.Query)
			if result.Outcome != q.want || (err != nil) != (q.want == Undecided) {
				t.Errorf("%+v, %v", result, err)
			}
			if said := fmt.Sprint(result, err); n == 0 {
				first = said
				z.ResetLog()
			} else if said != first && q.want != Listed { // a listing stops at the first zone that decides
				t.Errorf("%d: %s, before %s", n, said, first)
			}
		}
		if z.Total() > 1 { // a question that was not waited for may still be in flight
			t.Errorf("%d questions asked again", z.Total())
		}
	}
	for _, s := range l.Status() {
		if s.Problem != Healthy {
			t.Errorf("%+v", s)
		}
	}
	if err := z.Replace("*.spamhaus.org. IN A 127.255.255.254"); err != nil {
		t.Fatal(err)
	}
	result, err := l.Check(t.Context(), Query{Address: addr("192.0.2.9")})
	if err == nil || result.Failures[0].Problem != SharedResolver || l.Status()[0].Problem != SharedResolver {
		t.Errorf("%+v, %v", result, err)
	}
}

// A remembered listing awaits the first self-test too.
func TestRememberedListingsAwaitTheFirstTest(t *testing.T) {
	z := resolvertest.NewZone(t, "*.zen.spamhaus.org. IN A 127.0.0.2")
	r, err := resolver.New(resolver.Config{Servers: []string{"127.0.0.1"}, Exchange: z.Exchange})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	q := Query{Address: addr("192.0.2.1")}
	before := newLists(t, r, zen, "", Config{})
	if result, err := before.Check(t.Context(), q); result.Outcome != Listed {
		t.Fatalf("%+v, %v", result, err)
	}
	l := newLists(t, r, zen, "", Config{Await: true})
	checked := make(chan Result, 1)
	go func() {
		result, _ := l.Check(t.Context(), q)
		checked <- result
	}()
	if _, err := l.SelfTest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if result := <-checked; result.Outcome != Undecided {
		t.Errorf("%+v", result)
	}
}

// testedMeanwhile ends the first self-test after the request has seen that its zone is
// in service, and before it has its answer.
type testedMeanwhile struct {
	*resolver.Resolver
	lists *Lists
	once  sync.Once
}

func (m *testedMeanwhile) Memory() *resolver.Memory {
	m.once.Do(func() { m.lists.SelfTest(context.Background()) })
	return m.Resolver.Memory()
}

func (m *testedMeanwhile) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if strings.HasPrefix(host, "1.2.0.192.") {
		m.once.Do(func() { m.lists.SelfTest(context.Background()) })
	}
	return m.Resolver.LookupNetIP(ctx, network, host)
}

// A listing does not count if its zone was put out of service while it was asked.
func TestZoneThatFailsMeanwhile(t *testing.T) {
	for _, await := range []bool{true, false} {
		for _, remembered := range []bool{true, false} {
			z := resolvertest.NewZone(t, "*.zen.spamhaus.org. IN A 127.0.0.2")
			r, err := resolver.New(resolver.Config{Servers: []string{"127.0.0.1"}, Exchange: z.Exchange})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			q := Query{Address: addr("192.0.2.1")}
			var dns DNS
			m := &testedMeanwhile{Resolver: r}
			if dns = m; remembered {
				newLists(t, r, zen, "", Config{}).Check(t.Context(), q)
			} else {
				dns = struct{ DNS }{m} // without its memory
			}
			m.lists = newLists(t, dns, zen, "", Config{Await: await})
			result, err := m.lists.Check(t.Context(), q)
			if result.Outcome != Undecided || err == nil || result.Failures[0].Problem != ListsEverything || !result.Failures[0].Broken {
				t.Errorf("await %t, remembered %t: %+v, %v", await, remembered, result, err)
			}
		}
	}
}

func TestConcurrentChecks(t *testing.T) {
	z := resolvertest.NewZone(t, world)
	l := newLists(t, z, zen+" list.dnswl.org*-1", dbl, Config{Signals: true})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { l.Run(ctx) })
	var checks sync.WaitGroup
	for n := range 50 {
		checks.Go(func() {
			if n%10 == 0 {
				z.Fail("*.dbl.spamhaus.org", resolvertest.ServFail)
			}
			r, err := l.Check(t.Context(), Query{Address: addr("192.0.2.8"), Names: sender("who.example")})
			if err != nil && r.Outcome != Undecided || err == nil && r.Outcome != Listed {
				t.Errorf("%+v, %v", r, err)
			}
			l.Status()
		})
	}
	checks.Wait()
	cancel()
	running.Wait()
}
