package status

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/record"
)

// Nothing of who wrote to whom, and from where, is left in a record, wherever the
// daemon has written it.
func TestHide(t *testing.T) {
	r := &record.Record{
		Daemon: "policyd", Check: "ownership", Verdict: "reject", Reason: record.OwnerNotOwned,
		Action:        `553 5.7.1 <Ann.Smith@x.example>: not owned by user bo`,
		ClientAddress: "198.51.100.7", ClientPort: "40123", ClientName: "host-198-51-100-7.dyn.isp.example", Helo: "annslaptop",
		Sender: "ann.smith@x.example", Recipient: `"odd one"@y.example`, SASLUsername: "bo",
		MessageID: "<20261126.ann@x.example>", Instance: "1a2b.5f", QueueID: "4ABC",
		Steps: []record.Step{
			{Check: "ownership", Verdict: "reject", Detail: "hash:/etc/owners: ann.smith@x.example: carol, dave"},
			{Check: "dnsbl", Detail: "7.100.51.198.zen.example: 127.0.0.2; helo annslaptop", Err: errors.New("2001:db8::77: time-out for ANN.SMITH@X.EXAMPLE, user bo at 10:20:30")},
		},
		Err: errors.New("dial 192.0.2.99:53: no answer about b.8.b.d.0.1.0.0.2.0.0.0.0.0.0.0.0.0.0.0.zen.example"),
	}
	hide(r)
	text := fmt.Sprintf("%+v %v %v", *r, r.Err, r.Steps[1].Err)
	for _, secret := range []string{"ann", "Ann", "ANN", "odd", "carol", "dave", "100.7", "100-7", "40123", "annslaptop", "2001:db8", "192.0.2", "b.8.b.d", " bo"} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is left in %s", secret, text)
		}
	}
	for _, kept := range []string{"…@x.example", "…@y.example", "198.51.0.0/16", "….isp.example", "not_owned", "4ABC", "zen.example", "10:20:30"} {
		if !strings.Contains(text, kept) {
			t.Errorf("%q is gone from %s", kept, text)
		}
	}
}

// A new text of a record is hidden too, unless it is one of the program's own words.
func TestHideEveryText(t *testing.T) {
	words := []string{"Daemon", "Check", "Verdict", "Reason", "Mode", "Whose"}
	r := new(record.Record)
	v := reflect.ValueOf(r).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.String && !slices.Contains(words, v.Type().Field(i).Name) {
			f.SetString("ann@x.example 192.0.2.7")
		}
	}
	hide(r)
	for key, text := range r.Texts() {
		if strings.Contains(text, "ann") || strings.Contains(text, "192.0.2.7") {
			t.Errorf("%s is left: %s", key, text)
		}
	}
}

func TestHideParts(t *testing.T) {
	for _, tt := range []struct {
		hide       func(string) string
		text, want string
	}{
		{hideMail, "<>", "<>"},
		{hideMail, "", ""},
		{hideMail, "root", "…"},
		{hideMail, "a@b@c.example", "…@c.example"},
		{hideMail, "a@[192.0.2.1]", "…@[…]"},
		{hideIP, "2001:db8:1:2::3", "2001:db8::/32"},
		{hideIP, "::ffff:192.0.2.1", "192.0.0.0/16"},
		{hideIP, "nonsense", "…"},
		{hideHost, "unknown", "unknown"},
		{hideHost, "[192.0.2.1]", "…"},
		{hideHost, "mail.example.org", "….example.org"},
		{hideHost, "example.org", "…"},
		// VERP has the recipient in the sender.
		{hideText, "key=spf:x.example sender=list-#-bob=y.example@x.example spf=pass", "key=spf:x.example sender=…@x.example spf=pass"},
		{hideText, "no owner of o'neill|x@x.example", "no owner of …@x.example"},
		{hideText, "fe80::1%eth0 and ::1", "… and …"},
		{hideText, "at 12:30:45 of 7", "at 12:30:45 of 7"},
	} {
		if got := tt.hide(tt.text); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.text, got, tt.want)
		}
	}
}

func FuzzHide(f *testing.F) {
	f.Add("ann@x.example", "192.0.2.1", "550 no ann@x.example at 192.0.2.1")
	f.Add("\xff", "::", "\xff\x00")
	f.Fuzz(func(t *testing.T, sender, client, text string) {
		r := &record.Record{Sender: sender, ClientAddress: client, Action: text, Err: errors.New(text), Steps: []record.Step{{Check: "dnsbl", Detail: text}}}
		hide(r)
		if _, err := json.Marshal(r.Action); err != nil {
			t.Error(err)
		}
		if len(sender) >= minInWord && sender != "unknown" && strings.Contains(asciiLower(strings.ReplaceAll(r.Action, hidden, "\n")), asciiLower(sender)) {
			t.Errorf("%q is left in %q", sender, r.Action)
		}
	})
}

func TestHideSenders(t *testing.T) {
	const secret = "ann@x.example 192.0.2.7"
	all := &api.DMARCSendersResult{Error: secret, Domains: []api.DMARCDomain{{
		Domain: secret, Policy: secret, Reporters: []string{secret},
		Sources: []api.DMARCSource{
			{Address: "192.0.2.7", Hosts: 1, Name: "host7.mail.x.example", SPF: "ip4:192.0.2.7", Why: []string{secret}},
			{Hosts: 9, Name: "x.example"},
		},
	}}}
	before := fmt.Sprintf("%+v", all)
	shown := hideSenders(all)
	text, err := json.Marshal(shown)
	if err != nil || strings.Contains(string(text), "ann") || strings.Contains(string(text), "192.0.2.7") || strings.Contains(string(text), "host7") {
		t.Errorf("%s %v", text, err)
	}
	if s := shown.Domains[0].Sources; s[0].Address != "192.0.0.0/16" || s[0].Name != "….x.example" || s[1].Name != "x.example" || s[1].Address != "" {
		t.Errorf("%+v", s)
	}
	if after := fmt.Sprintf("%+v", all); after != before {
		t.Errorf("the original has changed: %s", after)
	}
	if hideSenders(nil) != nil {
		t.Error("something was made of nothing")
	}
}
