package maillog

import (
	"fmt"
	"reflect"
	"testing"
	"time"
)

func TestSummary(t *testing.T) {
	j, c := NewJoiner(), NewCounter()
	for _, text := range []string{
		"0 policyd check=greylist instance=a to=bob@y.example verdict=defer reason=greylist_new name=mx.x.example",
		"300 policyd check=greylist instance=b port=2 to=bob@y.example verdict=pass reason=greylist_waited name=mx.x.example",
		"301 milterd check=verify port=2 queue=Q1 verdict=pass reason=verified",
		"4000 policyd check=ownership instance=c port=3 login=eve sender=eve@y.example to=ann@x.example verdict=reject reason=not_owned",
	} {
		e := entryOf(t, text)
		if e.Reason == "greylist_waited" {
			e.Millis = 2
			e.Steps = []Step{{Check: "greylist", Reason: "greylist_waited", Detail: "key=192.0.2.0/24 sender=x waited=300s"}}
		}
		j.Add(e)
	}
	for m := range j.Rest() {
		c.Add(m)
	}
	s := c.Summary(1)
	if s.Mails != 3 || s.Records != 4 || !s.Since.Equal(start) || !s.Until.Equal(start.Add(4000*time.Second)) {
		t.Errorf("got %+v", s)
	}
	if got := fmt.Sprint(s.Senders, s.Recipients, s.Clients, s.Logins); got != "[{ann@x.example 2}] [{bob@y.example 2}] [{mx.x.example[192.0.2.7] 2}] [{eve 1}]" {
		t.Errorf("names %s", got)
	}
	if s.Greylisted != (Spread{1, 300, 300, 300, 300}) || s.Durations["policyd"] != (Spread{3, 0, 2, 2, 2}) {
		t.Errorf("spreads %+v, %+v", s.Greylisted, s.Durations)
	}
	if len(s.Reasons) != 4 || s.Reasons[0] != (Decision{Check: "greylist", Verdict: "defer", Reason: "greylist_new", Count: 1}) {
		t.Errorf("reasons %+v", s.Reasons)
	}
	want := []Hour{{start, map[string]int{"defer": 1, "pass": 2}}, {start.Add(time.Hour), map[string]int{"reject": 1}}}
	if !reflect.DeepEqual(s.Hours, want) {
		t.Errorf("hours %+v", s.Hours)
	}
}

// Lines of other programs that look like records do not make a summary large.
func TestWordsAreBounded(t *testing.T) {
	c := NewCounter()
	for i := range 2 * maxWords {
		word := fmt.Sprint("forged", i)
		c.Add(&Mail{Entries: []*Entry{{Time: start, Daemon: word, Check: word, Verdict: word, Steps: []Step{{Check: word, Mode: "shadow"}}}}})
	}
	s := c.Summary(1)
	for name, n := range map[string]int{"reasons": len(s.Reasons), "durations": len(s.Durations), "verdicts": len(s.Hours[0].Verdicts)} {
		if n != maxWords+1 {
			t.Errorf("%d %s", n, name)
		}
	}
	if s.Durations[otherWord].Count != maxWords {
		t.Errorf("%d others", s.Durations[otherWord].Count)
	}
}

// Of more names than are counted, the frequent ones stay.
func TestNamesAreBounded(t *testing.T) {
	var n names
	for i := range 3 * maxNames {
		n.add(fmt.Sprint("rare", i))
		if i%4 == 0 {
			n.add("frequent")
		}
	}
	if len(n.counts) > maxNames || n.forgot == 0 {
		t.Errorf("%d names", len(n.counts))
	}
	if top := n.top(1); len(top) != 1 || top[0].Name != "frequent" {
		t.Errorf("got %v", top)
	}
}

func TestSpread(t *testing.T) {
	var v Values
	for i := range 100_000 {
		v.Add(float64(i) / 10)
	}
	if len(v.counts) > 10_000 {
		t.Errorf("%d different values", len(v.counts))
	}
	if got, want := v.Spread(), (Spread{100_000, 5000, 9000, 9900, 9999.9}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := new(Values).Spread(); got != (Spread{}) {
		t.Errorf("of nothing: %+v", got)
	}
}

func TestClient(t *testing.T) {
	for _, tt := range [][3]string{
		{"mx.example.com", "192.0.2.1", "mx.example.com[192.0.2.1]"},
		{"", "192.0.2.1", "192.0.2.1"},
		{"192.0.2.1", "192.0.2.1", "192.0.2.1"},
		{"[192.0.2.1]", "192.0.2.1", "192.0.2.1"},
		{"[2001:db8::1]", "2001:db8::1", "2001:db8::1"},
		{"mx.example.com", "", "mx.example.com"},
	} {
		if got := Client(tt[0], tt[1]); got != tt[2] {
			t.Errorf("%q, %q: %q, want %q", tt[0], tt[1], got, tt[2])
		}
	}
}
