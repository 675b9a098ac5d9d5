package record

import (
	"errors"
	"testing"
	"time"
)

func TestAppendConsole(t *testing.T) {
	tests := []struct {
		name string
		r    Record
		want string
	}{
		{
			"a refusal",
			Record{
				Daemon: "policyd", Check: "ownership", Verdict: "reject", Reason: OwnerNotOwned, Mode: "enforce", Action: "553 5.7.1 not owned by user bob",
				ClientAddress: "192.0.2.7", ClientName: "home.example", SASLUsername: "bob", Sender: "ann@x.example", Recipient: "eve@y.example",
				Duration: 1234567 * time.Nanosecond, Steps: []Step{{Check: "ownership"}},
			},
			`ownership reject not_owned client=home.example[192.0.2.7] login=bob sender=ann@x.example recipient=eve@y.example reply="553 5.7.1 not owned by user bob" 1.23ms`,
		},
		{
			"a mail that was judged",
			Record{Daemon: "milterd", Check: "verify", Verdict: "pass", Reason: Verified, QueueID: "4AB", ClientAddress: "192.0.2.7", Sender: "<>", From: "x.example", SPF: "none", DKIM: "pass", DMARC: "pass", Duration: 3 * time.Millisecond},
			"verify pass verified queue=4AB client=192.0.2.7 sender=<> from=x.example spf=none dkim=pass dmarc=pass 3ms",
		},
		{
			"in the shadow, with an error",
			Record{Daemon: "policyd", Check: "dnsbl", Verdict: "pass", Reason: DNSBLUnavailable, Mode: ModeShadow, Err: errors.New("no answer"), Action: "DUNNO"},
			`dnsbl pass dnsbl_unavailable (shadow) reply=DUNNO error="no answer" 0ms`,
		},
		{"no check", Record{Daemon: "policyd", Verdict: "pass", Reason: NoChecks}, "policyd pass no_checks 0ms"},
		{"nothing", Record{}, "- - - 0ms"},
		{
			"text that a terminal would obey",
			Record{Daemon: "policyd", Verdict: "none", Reason: BadRequest, Sender: "a\x1b[2J\u202eb\u009b@x", Recipient: "a\nb", ClientAddress: "x\x7fy"},
			`policyd none bad_request client="x\x7fy" sender="a\x1b[2J\u202eb\u009b@x" recipient="a\nb" 0ms`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(tt.r.AppendConsole(nil)); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}
