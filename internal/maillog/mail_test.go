package maillog

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 11, 21, 2, 0, 0, 0, time.UTC)

// entryOf reads a short form: seconds, daemon, then key=value words.
func entryOf(t *testing.T, text string) *Entry {
	t.Helper()
	var seconds float64
	e := &Entry{Message: "decision", ClientAddress: "192.0.2.7", ClientPort: "1000", Sender: "ann@x.example"}
	words := strings.Fields(text)
	if _, err := fmt.Sscan(words[0], &seconds); err != nil {
		t.Fatal(err)
	}
	e.Time, e.Daemon = start.Add(time.Duration(seconds*float64(time.Second))), words[1]
	for _, word := range words[2:] {
		name, value, _ := strings.Cut(word, "=")
		*map[string]*string{
			"instance": &e.Instance, "queue": &e.QueueID, "port": &e.ClientPort, "sender": &e.Sender, "to": &e.Recipient,
			"check": &e.Check, "verdict": &e.Verdict, "id": &e.MessageID, "client": &e.ClientAddress, "dkim": &e.DKIM,
			"login": &e.SASLUsername, "reason": &e.Reason, "name": &e.ClientName, "mode": &e.Mode,
		}[name] = value
	}
	return e
}

func TestMailsAreJoined(t *testing.T) {
	tests := []struct {
		name    string
		entries []string
		want    string // the mails' records, by their places
	}{
		{"recipients, then the message", []string{
			"0 policyd instance=a to=1 verdict=pass",
			"0.1 policyd instance=a queue=Q1 to=2 verdict=pass",
			"1 milterd check=verify queue=Q1 verdict=pass dkim=none",
		}, "0 1 2"},
		{"one recipient, and the queue id at the end", []string{
			"0 policyd instance=a to=1 verdict=pass",
			"1 milterd check=verify queue=Q1 verdict=pass dkim=none",
		}, "0 1"},
		{"a session sends several mails", []string{
			"0 policyd instance=a to=1 verdict=pass", "1 milterd check=verify queue=Q1 verdict=pass",
			"2 policyd instance=b to=1 verdict=pass", "3 milterd check=verify queue=Q2 verdict=pass",
			"4 milterd check=verify queue=Q3 verdict=pass",
		}, "0 1|2 3|4"},
		{"the first mail of a session is deferred", []string{
			"0 policyd instance=a to=1 verdict=defer",
			"2 policyd instance=b to=1 verdict=pass", "3 milterd check=verify queue=Q2 verdict=pass",
		}, "0|1 2"},
		{"two sessions at once", []string{
			"0 policyd instance=a port=1 to=1 verdict=pass", "0.5 policyd instance=b port=2 to=1 verdict=pass",
			"1 milterd check=verify port=2 queue=Q2 verdict=pass", "2 milterd check=verify port=1 queue=Q1 verdict=pass",
		}, "0 3|1 2"},
		{"milterd refuses a recipient, the message goes on", []string{
			"0 policyd instance=a to=1 verdict=pass", "0.1 milterd check=verify to=1 verdict=reject",
			"0.2 policyd instance=a queue=Q1 to=2 verdict=pass", "1 milterd check=verify queue=Q1 verdict=pass id=<a@b>",
		}, "0 1 2 3"},
		{"milterd speaks first", []string{
			"0 milterd check=verify to=1 verdict=reject", "0.1 policyd instance=a to=2 verdict=pass",
		}, "0 1"},
		{"several hooks, and one after the message", []string{
			"0 policyd check=ownership instance=a login=ann verdict=pass", "0.1 policyd check=greylist instance=a verdict=pass",
			"1 milterd check=sign queue=Q1 verdict=pass", "1.1 policyd instance=a queue=Q1 verdict=pass",
		}, "0 1 2 3"},
		{"spelled differently", []string{
			`0 policyd instance=a sender=Ann@X.example to=1 verdict=pass`, `1 milterd check=verify sender=<"ann"@x.example> queue=Q1 verdict=pass`,
		}, "0 1"},
		{"the null sender", []string{
			"0 policyd instance=a sender=<> verdict=pass", "1 milterd check=verify sender=<> queue=Q1 verdict=pass",
		}, "0 1"},
		{"a queue id comes again after long", []string{
			"0 milterd check=verify queue=Q1 verdict=pass", "7200 milterd check=verify queue=Q1 verdict=pass",
		}, "0|1"},
		{"a port comes again after long", []string{
			"0 policyd instance=a to=1 verdict=defer", "7200 milterd check=verify queue=Q1 verdict=pass",
		}, "0|1"},
		{"without clients", []string{
			"0 milterd check=sign client= port= queue=Q1 verdict=pass", "1 milterd check=sign client= port= queue=Q2 verdict=pass",
			"2 milterd client= port= verdict=error",
		}, "0|1|2"},
		{"another MTA, without instances", []string{
			"0 policyd to=1 verdict=pass", "0.1 policyd to=2 verdict=pass", "1 milterd check=verify queue=Q1 verdict=pass",
			"2 policyd to=1 verdict=pass",
		}, "0 1 2|3"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := NewJoiner()
			place := map[*Entry]int{}
			var got []string
			take := func(m *Mail) {
				var places []string
				for _, e := range m.Entries {
					places = append(places, fmt.Sprint(place[e]))
				}
				got = append(got, strings.Join(places, " "))
			}
			for i, text := range tt.entries {
				e := entryOf(t, text)
				place[e] = i
				for m := range j.Ended(e.Time) {
					take(m)
				}
				j.Add(e)
			}
			for m := range j.Rest() {
				take(m)
			}
			if strings.Join(got, "|") != tt.want {
				t.Errorf("got %s, want %s", strings.Join(got, "|"), tt.want)
			}
			if len(j.byInstance)+len(j.byQueue)+len(j.latest)+len(j.open) != 0 {
				t.Error("something is left of mails that have ended")
			}
		})
	}
}

// Mails that no one ends are bounded, and come out in their order.
func TestOpenMailsAreBounded(t *testing.T) {
	j := NewJoiner()
	ended := 0
	for n := range maxOpen + 100 {
		e := entryOf(t, fmt.Sprintf("0 policyd instance=%d port=%d verdict=defer", n, n))
		j.Add(e)
		for m := range j.Ended(e.Time) {
			if m.First().Instance != fmt.Sprint(ended) {
				t.Fatalf("instance %s came in the place of %d", m.First().Instance, ended)
			}
			ended++
		}
	}
	if ended != 100 || len(j.latest) != maxOpen {
		t.Errorf("%d ended, %d are open", ended, len(j.latest))
	}
}

func TestRecordsOfAMailAreBounded(t *testing.T) {
	j := NewJoiner()
	for n := range maxOfMail + 10 {
		j.Add(entryOf(t, fmt.Sprintf("0 policyd instance=a to=%d verdict=pass", n)))
	}
	for m := range j.Rest() {
		if len(m.Entries) != maxOfMail || len(m.Recipients) != maxRecipients {
			t.Errorf("%d records, %d recipients", len(m.Entries), len(m.Recipients))
		}
	}
}
