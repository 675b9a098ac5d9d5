package limit_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/limit"
	"github.com/postern-mail/postern/internal/limit/memstore"
	"github.com/postern-mail/postern/internal/mailaddr"
)

// duration reads d for days, as the settings do.
func duration(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.Atoi(days)
		return time.Duration(n) * 24 * time.Hour, err
	}
	return time.ParseDuration(text)
}

func TestParseRule(t *testing.T) {
	tests := []struct{ text, want, wrong string }{
		{"login.recipients=300/1h", "login.recipients=300/1h", ""},
		{"login=300/60m", "login.recipients=300/1h", ""},
		{"sender-domain.bytes=2G/1d", "sender-domain.bytes=2000000000/1d", ""},
		{"login.networks=20/90s", "login.networks=20/90s", ""},
		{"network.messages=5k/1h", "network.messages=5000/1h", ""},
		{"login.recipients", "", "write KEY.UNIT=COUNT/WINDOW"},
		{"user.recipients=1/1h", "", `"user" is none of the keys login,`},
		{"login.mails=1/1h", "", `"mails" is none of the units recipients,`},
		{"login.recipients=10/0s", "", "the window \"0s\" is out of bounds: use whole seconds from 1s to 31d"},
		{"login.recipients=10/1500ms", "", "whole seconds"},
		{"login.recipients=10/32d", "", "out of bounds"},
		{"login.recipients=-1/1h", "", `the count "-1" is out of bounds`},
		{"login.recipients=0/1h", "", "postern limits block"},
		{"login.recipients=9999G/1h", "", "out of bounds"},
		{"login.recipients=10", "", "has no window"},
		{"login.recipients=ten/1h", "", `"ten" is not a count`},
		{"login.recipients=10/1h/2", "", "the window"},
		{"sender.networks=3/1h", "", "login and login-domain only"},
		{"login.networks=501/1h", "", "at most 500"},
		{"recipient.bytes=3/1h", "", "neither size nor refusals"},
		{"", "", "not a limit"},
	}
	for _, tt := range tests {
		r, err := limit.ParseRule(tt.text, duration)
		if tt.wrong == "" && (err != nil || r.String() != tt.want) {
			t.Errorf("%q: %s, %v, want %s", tt.text, r, err, tt.want)
		}
		if tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong)) {
			t.Errorf("%q: %v, want %q", tt.text, err, tt.wrong)
		}
	}
}

func FuzzParseRule(f *testing.F) {
	f.Add("login.recipients=300/1h")
	f.Add("global.bytes=5M/1d")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := limit.ParseRule(text, duration)
		if err != nil {
			return
		}
		again, err := limit.ParseRule(r.String(), duration)
		if err != nil || again != r {
			t.Errorf("%q: %s, then %s, %v", text, r, again, err)
		}
	})
}

func rules(t testing.TB, texts ...string) []limit.Rule {
	t.Helper()
	var all []limit.Rule
	for _, text := range texts {
		text, action, _ := strings.Cut(text, " ")
		r, err := limit.ParseRule(text, duration)
		if err != nil {
			t.Fatal(err)
		}
		r.Action = limit.Action(action)
		if action == "" {
			r.Action = limit.Defer
		}
		all = append(all, r)
	}
	return all
}

func TestContradictions(t *testing.T) {
	for _, tt := range []struct {
		rules []string
		wrong string
	}{
		{[]string{"login=300/1h", "login=1000/1d", "sender=300/1h", "login.messages=300/1h"}, ""},
		{[]string{"login=300/1h", "login=200/1h"}, "login.recipients=200/1h contradicts login.recipients=300/1h: keep one"},
		{[]string{"login=300/1h", "login=300/1d"}, "login.recipients=300/1h can never be reached beside login.recipients=300/1d"},
		{[]string{"login=100/1d", "login=300/1h"}, "remove login.recipients=300/1h"},
	} {
		err := limit.CheckRules(rules(t, tt.rules...))
		if tt.wrong == "" && err != nil || tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong)) {
			t.Errorf("%v: %v, want %q", tt.rules, err, tt.wrong)
		}
	}
}

// table is a table of overrides.
type table map[string]string

func (t table) Lookup(_ context.Context, key string) ([]string, error) {
	switch value, ok := t[key]; {
	case value == "broken":
		return nil, errors.New("the table is gone")
	case ok:
		return []string{value}, nil
	}
	return nil, nil
}

func (table) Name() string             { return "hash:x" }
func (table) Locate(key string) string { return "x:" + key }

// world is a judge with its store.
type world struct {
	*testing.T
	judge *limit.Judge
	now   time.Time
	mails int
	warns []string
}

func newWorld(t *testing.T, c limit.Config, overrides table) *world {
	w := &world{T: t, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	c.Store = memstore.New(memstore.Options{Start: w.now})
	c.Keyer.Bits4, c.Keyer.Bits6, c.Ends = 24, 64, new(limit.Ends)
	c.Trail = new(limit.Trail)
	if overrides != nil {
		c.Overrides = &limit.Tables{Tables: []limit.Table{overrides}, LoginDomain: c.Keyer.LoginDomain, Duration: duration, Warn: func(key, text string, err error) {
			w.warns = append(w.warns, fmt.Sprintf("%s: %s: %v", key, text, err))
		}}
	}
	w.judge = limit.NewJudge(c)
	return w
}

// event is a recipient that bob names.
func (w *world) event() *limit.Event {
	return &limit.Event{
		Time: w.now, Transaction: limit.DigestOf(fmt.Append(nil, w.mails)), Login: "bob", Sender: mailaddr.Parse("bob@x.example"),
		Client: netip.MustParseAddr("192.0.2.7"), Recipient: mailaddr.Parse("ann@y.example"),
	}
}

// judged judges an event, changed by f.
func (w *world) judged(f func(*limit.Event)) limit.Ruling {
	w.Helper()
	e := w.event()
	if f != nil {
		f(e)
	}
	r, err := w.judge.Judge(w.Context(), e)
	if err != nil {
		w.Fatal(err)
	}
	return r
}

// mail sends whole mails of one recipient and returns how many were let through.
func (w *world) mail(n int, f func(*limit.Event)) (passed int) {
	w.Helper()
	for range n {
		w.mails++
		if r := w.judged(f); r.Kind == limit.Over && r.Rule.Action.Refuses() || r.Kind == limit.Blocked {
			continue
		}
		passed++
		w.judged(func(e *limit.Event) {
			if f != nil {
				f(e)
			}
			e.Step, e.Recipients, e.Size, e.Recipient = limit.End, 1, max(e.Size, 1), mailaddr.Address{}
		})
	}
	return passed
}

func TestLoginsAreOne(t *testing.T) {
	w := newWorld(t, limit.Config{Rules: rules(t, "login=4/1h"), Keyer: limit.Keyer{LoginDomain: "x.example"}}, nil)
	n := 0
	for _, login := range []string{"bob", "BOB", "Bob@X.example", "bob@x.example", "bob", "bob@x.example"} {
		n += w.mail(1, func(e *limit.Event) { e.Login = login })
	}
	if n != 4 {
		t.Errorf("%d mails were let through", n)
	}
	if n := w.mail(9, func(e *limit.Event) { e.Login = "bob@y.example" }); n != 4 {
		t.Errorf("%d mails of another", n)
	}
}

// A sender is used as the login where clients are trusted, and nowhere else.
func TestTrustedNetworks(t *testing.T) {
	trusted := netip.MustParsePrefix("192.0.2.0/24")
	w := newWorld(t, limit.Config{Rules: rules(t, "login=4/1h"), Keyer: limit.Keyer{Trusted: trusted.Contains}}, nil)
	nobody := func(e *limit.Event) { e.Login = "" }
	if n := w.mail(9, nobody); n != 4 {
		t.Errorf("%d mails of web mail", n)
	}
	if n := w.mail(9, func(e *limit.Event) { e.Login, e.Sender = "", mailaddr.Parse("") }); n != 9 {
		t.Errorf("%d mails of the null sender", n)
	}
	if n := w.mail(9, func(e *limit.Event) { e.Login, e.Client = "", netip.MustParseAddr("198.51.100.1") }); n != 9 {
		t.Errorf("%d mails of a stranger", n)
	}
	if n := w.mail(9, func(e *limit.Event) { e.Login = "bob@x.example" }); n != 0 {
		t.Errorf("%d mails of the login itself", n)
	}
}

func TestKeysAndUnits(t *testing.T) {
	tests := []struct {
		rule   string
		change func(e *limit.Event, mail int)
		passed int // of 9
	}{
		{"login=3/1h", func(e *limit.Event, n int) { e.Sender = mailaddr.Parse(fmt.Sprintf("s%d@x.example", n)) }, 3},
		{"login-domain=3/1h", func(e *limit.Event, n int) { e.Login = fmt.Sprintf("u%d@x.example", n) }, 3},
		{"login-domain=3/1h", func(e *limit.Event, n int) { e.Login = "bare" }, 9},
		{"sender=3/1h", func(e *limit.Event, n int) { e.Login = fmt.Sprintf("u%d", n) }, 3},
		{"sender=3/1h", func(e *limit.Event, n int) {
			e.Sender = mailaddr.Parse([]string{"bob@x.example", "BoB@X.example"}[n%2])
		}, 3},
		{"sender=3/1h", func(e *limit.Event, n int) { e.Sender = mailaddr.Parse("") }, 9},
		{"sender-domain=3/1h", func(e *limit.Event, n int) { e.Sender = mailaddr.Parse(fmt.Sprintf("s%d@X.example", n)) }, 3},
		{"sender-domain=3/1h", func(e *limit.Event, n int) { e.Sender = mailaddr.Parse("") }, 9},
		{"client=3/1h", nil, 3},
		{"client=3/1h", func(e *limit.Event, n int) { e.Client = netip.Addr{} }, 9},
		{"client=3/1h", func(e *limit.Event, n int) { e.Client = netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}) }, 9},
		{"network=3/1h", func(e *limit.Event, n int) { e.Client = netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}) }, 3},
		{"network=3/1h", func(e *limit.Event, n int) { e.Client = netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", n)) }, 3},
		{"network=3/1h", func(e *limit.Event, n int) { e.Client = netip.MustParseAddr(fmt.Sprintf("2001:db8:0:%d::1", n)) }, 9},
		{"recipient=3/1h", nil, 3},
		{"recipient.messages=3/1h", nil, 3},
		{"recipient=3/1h", func(e *limit.Event, n int) { e.Recipient = mailaddr.Parse(fmt.Sprintf("r%d@y.example", n)) }, 9},
		{"global=3/1h", func(e *limit.Event, n int) { e.Login = fmt.Sprintf("u%d", n) }, 3},
		{"login.messages=3/1h", nil, 3},
		{"login.bytes=3000/1h", func(e *limit.Event, n int) { e.Size = 1000 }, 3},
		{"login.networks=3/1h", func(e *limit.Event, n int) { e.Client = netip.AddrFrom4([4]byte{192, 0, byte(n), 7}) }, 3},
		{"login.networks=3/1h", nil, 9},
		{"login=3/1h warn", nil, 9},
		{"login=3/1h hold", nil, 9},
		{"login=3/1h reject", nil, 3},
	}
	for _, tt := range tests {
		w := newWorld(t, limit.Config{Rules: rules(t, tt.rule)}, nil)
		n := 0
		for i := range 9 {
			n += w.mail(1, func(e *limit.Event) {
				if tt.change != nil {
					tt.change(e, i)
				}
			})
		}
		if n != tt.passed {
			t.Errorf("%s: %d passed, want %d", tt.rule, n, tt.passed)
		}
	}
}

// The shadow counts what it would have refused.
func TestWatch(t *testing.T) {
	w := newWorld(t, limit.Config{Rules: rules(t, "login=3/1h"), Watch: true}, nil)
	for i := range 6 {
		w.mails++
		if r := w.judged(nil); r.Kind == limit.Over != (i >= 3) || r.Used != int64(i+1) {
			t.Errorf("mail %d: %+v", i, r)
		}
	}
}

func TestCountAt(t *testing.T) {
	for _, tt := range []struct {
		at         limit.CountAt
		endsBefore bool // the mail server has asked at the end of a mail
		abandoned  int  // mails that are let through when no one completes its mail, in ten minutes
	}{
		{limit.AtEnd, false, 9},
		{limit.AtName, false, 3},
		{limit.AtName, true, 3},
		{limit.AtEndIfAsked, false, 3},
		{limit.AtEndIfAsked, true, 9},
	} {
		w := newWorld(t, limit.Config{Rules: rules(t, "login=3/1d"), CountAt: tt.at}, nil)
		if tt.endsBefore {
			w.mail(1, func(e *limit.Event) { e.Login = "eve" })
		}
		n := 0
		for range 9 {
			w.mails++
			w.now = w.now.Add(limit.HoldFor / 2)
			if r := w.judged(nil); r.Kind == limit.Within {
				n++
			}
		}
		if n != tt.abandoned {
			t.Errorf("%+v: %d mails", tt, n)
		}
	}
}

// An end that is no longer asked does not open the limit.
func TestEndIsNoLongerAsked(t *testing.T) {
	w := newWorld(t, limit.Config{Rules: rules(t, "login=3/1d")}, nil)
	w.mail(1, nil)
	w.now = w.now.Add(2 * time.Hour)
	n := 0
	for range 9 {
		w.mails++
		w.now = w.now.Add(2 * limit.HoldFor)
		if w.judged(nil).Kind == limit.Within {
			n++
		}
	}
	if n != 2 {
		t.Errorf("%d more mails", n)
	}
}

func TestOverrides(t *testing.T) {
	overrides := table{
		"bob@x.example": "recipients=5/1h", "ann": "off", "eve@x.example": "messages=2/1h, recipients=off",
		"@y.example": "recipients=1/1h recipients=2/1d", "bad@x.example": "recipients=many", "worse@x.example": "recipients=5/1h recipients=4/1d",
		"gone@x.example": "broken",
	}
	c := limit.Config{Rules: rules(t, "login=3/1h", "login=8/1d"), Keyer: limit.Keyer{LoginDomain: "x.example"}}
	w := newWorld(t, c, overrides)
	for login, want := range map[string]int{"bob": 5, "ann": 9, "eve": 2, "zoe@y.example": 1, "bad": 3, "worse": 3, "dan": 3} {
		if n := w.mail(9, func(e *limit.Event) { e.Login = login }); n != want {
			t.Errorf("%s: %d passed, want %d", login, n, want)
		}
	}
	slices.Sort(w.warns)
	if len(w.warns) != 2 || !strings.HasPrefix(w.warns[0], "bad@x.example: recipients=many: ") {
		t.Errorf("warnings: %q", w.warns)
	}
	e := w.event()
	e.Login = "gone"
	if _, err := w.judge.Judge(t.Context(), e); err == nil {
		t.Error("a table that is gone was passed over")
	}
	if all, o, err := w.judge.Rules(t.Context(), "gone@x.example"); err == nil || o != nil || len(all) != 2 || all[0].Action != limit.Defer {
		t.Errorf("%v, %+v, %v", all, o, err)
	}
	if all, o, err := w.judge.Rules(t.Context(), "zoe@y.example"); err != nil || len(all) != 2 || o.Found != "@y.example" || o.Table != "hash:x" || o.Where() != "x:@y.example" {
		t.Errorf("%v, %+v, %v", all, o, err)
	}
}

func TestAlarmHasItsTrail(t *testing.T) {
	w := newWorld(t, limit.Config{Rules: rules(t, "login=5/1h")}, nil)
	var alarms []limit.Alarm
	for i := range 6 {
		w.mails++
		r := w.judged(func(e *limit.Event) {
			e.Client, e.Recipient = netip.AddrFrom4([4]byte{192, 0, byte(i), 1}), mailaddr.Parse(fmt.Sprintf("a@d%d.example", i))
		})
		alarms = append(alarms, r.Alarms...)
	}
	if len(alarms) != 2 || alarms[0].Percent != 80 || alarms[1].Percent != 100 {
		t.Fatalf("%+v", alarms)
	}
	if a := alarms[0]; a.Value != "bob" || len(a.Networks) != 4 || a.Networks[3] != "192.0.3.0/24" || a.Domains[0] != "d0.example" {
		t.Errorf("%+v", a)
	}
}

func TestSuggest(t *testing.T) {
	peaks := []int64{5, 1, 1234, 80, 80, 3, 2}
	for touch, want := range map[int][2]int64{0: {1300, 0}, 1: {80, 1}, 2: {80, 1}, 3: {5, 3}, 99: {1, 6}} {
		if count, touched := limit.Suggest(peaks, touch); count != want[0] || int64(touched) != want[1] {
			t.Errorf("touch %d: %d touches %d, want %v", touch, count, touched, want)
		}
	}
}

// What counts at the end of mails alone is told of when no end is asked.
func TestNoEnds(t *testing.T) {
	for _, tt := range []struct {
		rule string
		at   limit.CountAt
		ends bool
		told int // in two and a half hours
	}{
		{"login=1k/1h", limit.AtEnd, false, 2},
		{"login=1k/1h", limit.AtEnd, true, 0},
		{"login=1k/1h", limit.AtEndIfAsked, false, 0},
		{"login.bytes=1G/1h", limit.AtEndIfAsked, false, 2},
		{"login=1k/1h", limit.AtName, false, 0},
	} {
		told := 0
		w := newWorld(t, limit.Config{Rules: rules(t, tt.rule), CountAt: tt.at, NoEnds: func(string) { told++ }}, nil)
		for range 300 {
			w.now = w.now.Add(30 * time.Second)
			if tt.ends {
				w.mail(1, nil)
			} else {
				w.mails++
				w.judged(nil)
			}
		}
		if told != tt.told {
			t.Errorf("%+v: told %d times", tt, told)
		}
	}
}

// While the override of a login is unknown, its mail is counted, and only limits that no
// override can lift refuse it. When the table is back, the counts are right.
func TestUnknownOverride(t *testing.T) {
	overrides := table{"bob": "broken", "eve": "broken"}
	w := newWorld(t, limit.Config{Rules: rules(t, "login=2/1h", "login.messages=9/1h reject", "network=6/1h"), CountAt: limit.AtName, PassUnknown: true}, overrides)
	bob := func(e *limit.Event) { e.Login = "bob" }
	for i := range 4 {
		w.mails++
		r := w.judged(bob)
		want := limit.Within
		if i >= 2 {
			want = limit.Over
		}
		if r.Kind != want || r.Unknown == nil || want == limit.Over && (r.Rule.Action != limit.Warn || r.Used != int64(i+1)) {
			t.Errorf("mail %d: %+v", i, r)
		}
	}
	undone := w.event()
	bob(undone)
	if err := w.judge.Undo(t.Context(), undone); err != nil {
		t.Error(err)
	}
	if n := w.mail(9, bob); n != 3 {
		t.Errorf("%d passed, want those for which the network has room", n)
	}
	w.mails++
	if r := w.judged(bob); r.Kind != limit.Over || r.Rule.Key != limit.Network || r.Rule.Action != limit.Defer || r.Unknown == nil {
		t.Errorf("beyond the limit of the network: %+v", r)
	}
	delete(overrides, "bob")
	w.mails++
	if r := w.judged(func(e *limit.Event) { bob(e); e.Client = netip.MustParseAddr("198.51.100.1") }); r.Kind != limit.Over || r.Used != 6 || r.Rule.Key != limit.Login || r.Unknown != nil {
		t.Errorf("when the table is back: %+v", r)
	}
	overrides["bob"] = "off"
	if r := w.judged(func(e *limit.Event) { bob(e); e.Client = netip.MustParseAddr("198.51.100.1") }); r.Kind != limit.Within || r.Unknown != nil {
		t.Errorf("with its override: %+v", r)
	}
}

// A service without a hook at the end counts recipients when they are named, whatever the
// other services do. Services beyond the bound share one.
func TestEndsOfServices(t *testing.T) {
	w := newWorld(t, limit.Config{Rules: rules(t, "login=5/1h")}, nil)
	on := func(service string) func(*limit.Event) { return func(e *limit.Event) { e.Service = service } }
	if n := w.mail(2, on("587")); n != 2 {
		t.Errorf("%d mails passed", n)
	}
	for i := range 3 {
		w.mails++
		if r := w.judged(on("465")); r.Used != int64(3+i) {
			t.Errorf("%+v", r)
		}
	}
	w.now = w.now.Add(2 * limit.HoldFor)
	w.mails++
	if r := w.judged(on("465")); r.Kind != limit.Over {
		t.Errorf("what has no end is forgotten: %+v", r)
	}
	for i := range 200 {
		w.mail(1, func(e *limit.Event) { on(fmt.Sprint("s", i))(e); e.Login = fmt.Sprint("u", i) })
	}
	w.mails++
	if r := w.judged(func(e *limit.Event) { on("s199")(e); e.Login = "zoe" }); r.Kind != limit.Within || r.Used != 1 {
		t.Errorf("%+v", r)
	}
}
