package maillog

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestFilter(t *testing.T) {
	j := NewJoiner()
	var m *Mail
	for _, text := range []string{
		"0 policyd check=greylist instance=a to=bob@y.example verdict=defer reason=greylist_new name=mx.x.example login=ann@x.example",
		"1 policyd check=greylist instance=a queue=Q1 to=eve@z.example verdict=pass reason=greylist_known mode=shadow",
		"2 milterd check=verify queue=Q1 to=eve@z.example verdict=pass reason=verified dkim=pass",
	} {
		m = j.Add(entryOf(t, text))
	}
	tests := []struct {
		name   string
		filter Filter
		want   string // the records that match
	}{
		{"nothing", Filter{}, "012"},
		{"recipient", Filter{Recipients: []string{"BOB@y.example"}}, "02"},
		{"recipient's domain", Filter{Recipients: []string{"z.example"}}, "12"},
		{"recipient with a star", Filter{Recipients: []string{"bob@*"}}, "02"},
		{"one of several", Filter{Recipients: []string{"no@no.example", "eve@z.example"}}, "12"},
		{"recipient and verdict of one record", Filter{Recipients: []string{"eve@z.example"}, Verdicts: []string{"defer"}}, ""},
		{"reason", Filter{Reasons: []string{"greylist_*"}}, "01"},
		{"sender", Filter{Senders: []string{"ann@x.example"}}, "012"},
		{"another sender", Filter{Senders: []string{"<>"}}, ""},
		{"login", Filter{Logins: []string{"ann@*"}}, "012"},
		{"address", Filter{Clients: []string{"192.0.2.7"}}, "012"},
		{"network", Filter{Clients: []string{"192.0.2.9/24"}}, "012"},
		{"another network", Filter{Clients: []string{"198.51.100.0/24"}}, ""},
		{"name", Filter{Clients: []string{"*.x.example"}}, "0"},
		{"queue id, also of records that did not know it", Filter{Queues: []string{"q1"}}, "012"},
		{"another queue id", Filter{Queues: []string{"Q2"}}, ""},
		{"mode", Filter{Modes: []string{"shadow"}}, "1"},
		{"since", Filter{Since: start.Add(time.Second)}, "12"},
		{"until", Filter{Until: start.Add(time.Second)}, "01"},
	}
	for _, tt := range tests {
		if err := tt.filter.Prepare(); err != nil {
			t.Fatal(err)
		}
		got := ""
		for i, e := range m.Entries {
			if tt.filter.Entry(e, m) {
				got += fmt.Sprint(i)
			}
		}
		if got != tt.want {
			t.Errorf("%s: records %q, want %q", tt.name, got, tt.want)
		}
		if tt.filter.Mail(m) != (tt.want != "") {
			t.Errorf("%s: of the mail: %v", tt.name, !(tt.want != ""))
		}
	}
	null := entryOf(t, "0 policyd sender=<> verdict=pass")
	for _, pattern := range []string{"", "<>"} {
		if f := (Filter{Senders: []string{pattern}}); !f.Entry(null, &Mail{Entries: []*Entry{null}}) {
			t.Errorf("the null sender as %q", pattern)
		}
	}
}

func TestFilterMistakes(t *testing.T) {
	for want, f := range map[string]Filter{
		`verdict "accept": write one of pass, hold, defer, reject, error, none`: {Verdicts: []string{"accept"}},
		`mode "off": write one of enforce, shadow`:                              {Modes: []string{"off"}},
		`client "192.0.2.0/99" is neither a network nor a name`:                 {Clients: []string{"192.0.2.0/99"}},
	} {
		if err := f.Prepare(); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestParseTime(t *testing.T) {
	zone := time.FixedZone("here", 3600)
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, zone)
	for text, want := range map[string]string{
		"2h": "2026-11-21T10:00:00+01:00", "1d": "2026-11-20T12:00:00+01:00", "0s": "2026-11-21T12:00:00+01:00",
		"09:30": "2026-11-21T09:30:00+01:00", "09:30:05": "2026-11-21T09:30:05+01:00",
		"2026-11-20": "2026-11-20T00:00:00+01:00", "2026-11-20 09:30": "2026-11-20T09:30:00+01:00",
		"2026-11-20T09:30:00": "2026-11-20T09:30:00+01:00", "2026-11-20T09:30": "2026-11-20T09:30:00+01:00", "2026-11-20T09:30:00Z": "2026-11-20T09:30:00Z",
		"2026-11-20 09:30:05+02:00": "2026-11-20T09:30:05+02:00", "2026-11-20 09:30:05Z": "2026-11-20T09:30:05Z", "2026-11-20 09:00+02:00": "2026-11-20T09:00:00+02:00",
	} {
		if got, err := ParseTime(text, now); err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%s: %s, %v, want %s", text, got.Format(time.RFC3339), err, want)
		}
	}
	for _, text := range []string{"", "soon", "25:00", "-2h"} {
		if _, err := ParseTime(text, now); err == nil || !strings.Contains(err.Error(), "write 2h, 1d") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// What a check in the shadow would have decided is found and counted, beside what was
// decided.
func TestWatched(t *testing.T) {
	e := entryOf(t, "0 milterd check=sign queue=Q1 login=bob verdict=pass reason=signed mode=enforce")
	e.Steps = []Step{
		{Check: "a", Verdict: "pass", Reason: "not_listed", Mode: "shadow"}, {Check: "b", Verdict: "reject", Reason: "listed"},
		{Check: "from_ownership", Verdict: "reject", Reason: "from_not_owned", Mode: "shadow"},
	}
	m := NewJoiner().Add(e)
	for _, tt := range []struct {
		name   string
		filter Filter
		want   bool
	}{
		{"what it would refuse", Filter{Modes: []string{"shadow"}, Reasons: []string{"from_*"}, Verdicts: []string{"reject"}}, true},
		{"what was decided", Filter{Modes: []string{"enforce"}, Reasons: []string{"signed"}}, true},
		{"a mixture of both", Filter{Modes: []string{"enforce"}, Reasons: []string{"from_*"}}, false},
		{"what it lets pass", Filter{Reasons: []string{"not_listed"}}, false},
		{"what is not in the shadow", Filter{Reasons: []string{"listed"}}, false},
	} {
		if err := tt.filter.Prepare(); err != nil {
			t.Fatal(err)
		}
		if tt.filter.Mail(m) != tt.want {
			t.Errorf("%s: %v", tt.name, !tt.want)
		}
	}
	c := NewCounter()
	c.Add(m)
	if s := c.Summary(1); s.Records != 1 || len(s.Reasons) != 2 || s.Reasons[0] != (Decision{"from_ownership", "reject", "from_not_owned", "shadow", 1}) {
		t.Errorf("%+v", s)
	}
	e.Mode = "shadow"
	if e.Watched() != nil {
		t.Error("the record itself is what was watched")
	}
}
