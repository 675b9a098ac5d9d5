package checks_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/greylist/memstore"
	"github.com/postern-mail/postern/internal/allowlist"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/policy/checks"
)

// zone answers DNS from maps; queries for names in fail are errors.
type zone struct {
	txt  map[string]string
	addr map[string]string
	fail map[string]bool
}

func (z *zone) miss(name string) error {
	return &net.DNSError{Err: "no such host", Name: name, IsNotFound: !z.fail[name], IsTemporary: z.fail[name]}
}

func (z *zone) LookupTXT(ctx context.Context, name string) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if text, ok := z.txt[name]; ok && !z.fail[name] {
		return []string{text}, nil
	}
	return nil, z.miss(name)
}

func (z *zone) LookupNetIP(_ context.Context, network, name string) ([]netip.Addr, error) {
	if text, ok := z.addr[name]; ok && !z.fail[name] {
		if a := netip.MustParseAddr(text); a.Is4() == (network == "ip4") {
			return []netip.Addr{a}, nil
		}
	}
	return nil, z.miss(name)
}

func (z *zone) LookupMX(_ context.Context, name string) ([]*net.MX, error) { return nil, z.miss(name) }

func (z *zone) LookupAddr(_ context.Context, name string) ([]string, error) {
	return nil, z.miss(name)
}

func world() *zone {
	return &zone{
		txt: map[string]string{
			"good.example.":  "v=spf1 ip4:192.0.2.0/24 ip4:198.51.100.0/24 -all",
			"all.example.":   "v=spf1 +all",
			"wide.example.":  "v=spf1 ip4:192.0.0.0/8 -all",
			"soft.example.":  "v=spf1 ip4:203.0.113.1 ~all",
			"mx.helo.test.":  "v=spf1 ip4:192.0.2.0/24 -all",
			"incl.example.":  "v=spf1 include:good.example -all",
			"wait.example.":  "v=spf1 ip4:192.0.2.0/24 -all",
			"other.example.": "v=spf1 ip4:192.0.2.0/24 -all",
		},
		addr: map[string]string{"mx.good.example.": "192.0.2.7", "elsewhere.example.": "203.0.113.99"},
		fail: map[string]bool{"down.example.": true},
	}
}

func newGreylist(z *zone) *checks.Greylist {
	return &checks.Greylist{
		Delimiters: "+",
		Store:      memstore.New(memstore.Options{}), Flood: greylist.NewFlood(0), Resolver: z,
		Limits: greylist.Limits{Delay: 3 * time.Minute, RetryWindow: 48 * time.Hour, PassTTL: 840 * time.Hour, AllowAfter: 5, AllowTTL: 840 * time.Hour},
		Keyer:  greylist.Keyer{Bits4: 24, Bits6: 64}, Header: true, Instances: new(checks.Instances), Hostname: "mx.home.example",
	}
}

var start = time.Date(2026, 6, 7, 8, 9, 10, 0, time.UTC)

// rcpt returns a request from a client with a confirmed name.
func rcpt(client, sender, recipient string) *policy.Request {
	return &policy.Request{
		Received: start, State: policy.StateRcpt, Instance: "1", Helo: "mx.good.example",
		Client: policy.Client{Address: addr(client), Name: "mx.good.example", ReverseName: "mx.good.example"},
		Sender: mailaddr.ParseInternal(sender), Recipient: mailaddr.ParseInternal(recipient),
	}
}

func addr(s string) netip.Addr {
	a, _ := netip.ParseAddr(s) // "" and "unknown" are the zero Addr
	return a
}

func ask(t *testing.T, g *checks.Greylist, r *policy.Request) policy.Verdict {
	t.Helper()
	v, err := g.Check(t.Context(), r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// With keys of networks, SPF is needed only for the senders in the allow list.
// It is not checked for others.
func TestGreylistSPFOnlyForListedSenders(t *testing.T) {
	g := newGreylist(world())
	g.Keyer.NetworkKey = true
	var err error
	if g.AllowSenders, err = checks.ReadGreylistSenders([]string{writeFile(t, "good.example\n")}); err != nil {
		t.Fatal(err)
	}
	for sender, want := range map[string]string{
		"x@good.example": "key=192.0.2.0/24 sender=x@good.example spf=pass",
		"x@incl.example": "key=192.0.2.0/24 sender=x@incl.example",
		"":               "key=192.0.2.0/24 sender=<>",
	} {
		if v := ask(t, g, rcpt("192.0.2.7", sender, "bob@home.example")); v.Detail != want {
			t.Errorf("%q: %s, want %s", sender, v.Detail, want)
		}
	}
}

func TestGreylistExempt(t *testing.T) {
	clients := writeFile(t, "mail.allowed.example\n203.0.113.5\n")
	recipients := writeFile(t, "vip@home.example\nhelp@\nopen.example\n")
	senders := writeFile(t, "good.example\nall.example\n")
	g := newGreylist(world())
	var err error
	if g.AllowClients, err = checks.ReadGreylistClients([]string{clients}); err != nil {
		t.Fatal(err)
	}
	if g.AllowRecipients, err = checks.ReadGreylistRecipients([]string{recipients}); err != nil {
		t.Fatal(err)
	}
	if g.AllowSenders, err = checks.ReadGreylistSenders([]string{senders}); err != nil {
		t.Fatal(err)
	}
	g.Relays = allowlist.Networks{netip.MustParsePrefix("203.0.113.77/32")}
	with := func(r *policy.Request, change func(*policy.Request)) *policy.Request {
		change(r)
		return r
	}
	stranger := func() *policy.Request { return rcpt("203.0.113.7", "x@other.example", "bob@home.example") }
	for _, test := range []struct {
		name   string
		r      *policy.Request
		reason record.Reason
	}{
		{"at DATA", with(stranger(), func(r *policy.Request) { r.State = policy.StateData }), record.NotApplicable},
		{"at MAIL", with(stranger(), func(r *policy.Request) { r.State = policy.StateMail }), record.NotApplicable},
		{"logged in", with(stranger(), func(r *policy.Request) { r.Login = "bob" }), record.GreylistAuthenticated},
		{"unknown address", rcpt("unknown", "x@other.example", "bob@home.example"), record.GreylistNoClient},
		{"loopback", rcpt("127.0.0.1", "x@other.example", "bob@home.example"), record.GreylistLocalClient},
		{"private", rcpt("172.16.1.1", "x@other.example", "bob@home.example"), record.GreylistLocalClient},
		{"unique local", rcpt("fd12::1", "x@other.example", "bob@home.example"), record.GreylistLocalClient},
		{"link-local", rcpt("fe80::1", "x@other.example", "bob@home.example"), record.GreylistLocalClient},
		{"link-local 4", rcpt("169.254.1.1", "x@other.example", "bob@home.example"), record.GreylistLocalClient},
		{"postmaster", rcpt("203.0.113.7", "x@other.example", "PostMaster@home.example"), record.GreylistRecipientAllowed},
		{"bare postmaster", rcpt("203.0.113.7", "x@other.example", "postmaster"), record.GreylistRecipientAllowed},
		{"abuse", rcpt("203.0.113.7", "x@other.example", "abuse@home.example"), record.GreylistRecipientAllowed},
		{"listed recipient", rcpt("203.0.113.7", "x@other.example", "vip+tag@home.example"), record.GreylistRecipientAllowed},
		{"listed user", rcpt("203.0.113.7", "x@other.example", "help@home.example"), record.GreylistRecipientAllowed},
		{"listed domain", rcpt("203.0.113.7", "x@other.example", "bob@sub.open.example"), record.GreylistRecipientAllowed},
		{"our relay", rcpt("203.0.113.77", "x@other.example", "bob@home.example"), record.GreylistTrustedRelay},
		{"listed address", rcpt("203.0.113.5", "x@other.example", "bob@home.example"), record.GreylistClientAllowed},
		{"listed name", with(stranger(), func(r *policy.Request) { r.Client.Name = "a.mail.allowed.example" }), record.GreylistClientAllowed},
		{"a name that is not confirmed", with(stranger(), func(r *policy.Request) {
			r.Client.Name, r.Client.ReverseName = "", "mail.allowed.example"
		}), record.GreylistNew},
		{"listed sender", rcpt("192.0.2.7", "x@good.example", "bob@home.example"), record.GreylistSenderAllowed},
		{"forged listed sender", rcpt("203.0.113.7", "x@good.example", "bob@home.example"), record.GreylistNew},
		{"listed sender that anybody may be", rcpt("203.0.113.7", "x@all.example", "bob@home.example"), record.GreylistNew},
	} {
		if v := ask(t, g, test.r); v.Reason != test.reason {
			t.Errorf("%s: %s, want %s", test.name, v.Reason, test.reason)
		}
	}
}

func TestGreylistKey(t *testing.T) {
	for _, test := range []struct{ name, client, sender, helo, want string }{
		{"authorised", "192.0.2.7", "x@good.example", "", "key=spf:good.example sender=x@good.example spf=pass"},
		{"the asked domain, not the included", "192.0.2.7", "x@incl.example", "", "key=spf:incl.example sender=x@incl.example spf=pass"},
		{"not authorised", "203.0.113.7", "x@good.example", "", "key=203.0.113.0/24 sender=x@good.example spf=fail"},
		{"+all", "192.0.2.7", "x@all.example", "", "key=192.0.2.0/24 sender=x@all.example spf=pass"},
		{"a network too wide", "192.0.2.7", "x@wide.example", "", "key=192.0.2.0/24 sender=x@wide.example spf=pass"},
		{"no record", "192.0.2.7", "x@none.example", "", "key=192.0.2.0/24 sender=x@none.example spf=none"},
		{"DNS down", "192.0.2.7", "x@down.example", "", "key=192.0.2.0/24 sender=x@down.example spf=temperror"},
		{"null sender, by HELO", "192.0.2.7", "", "mx.helo.test", "key=spf:mx.helo.test sender=<> spf=pass"},
		{"IPv6", "2001:db8:1:2:3::4", "x@none.example", "", "key=2001:db8:1:2::/64 sender=x@none.example spf=none"},
		{"no address", "192.0.2.7", "no address\x01@", "", "key=192.0.2.0/24 sender=no_address_@ spf=none"},
	} {
		r := rcpt(test.client, test.sender, "bob@home.example")
		if test.helo != "" {
			r.Helo = test.helo
		}
		if v := ask(t, newGreylist(world()), r); v.Detail != test.want {
			t.Errorf("%s: %q, want %q", test.name, v.Detail, test.want)
		}
	}
	g := newGreylist(world())
	g.Keyer.NetworkKey = true
	if v := ask(t, g, rcpt("192.0.2.7", "x@good.example", "bob@home.example")); v.Detail != "key=192.0.2.0/24 sender=x@good.example" {
		t.Errorf("network key: %q", v.Detail)
	}
}

// TestGreylistStory follows a message with three recipients through delay,
// retry from another network, and the next mails.
func TestGreylistStory(t *testing.T) {
	g := newGreylist(world())
	g.URL = "https://home.example/greylist"
	to := []string{"a@home.example", "b@home.example", "c@home.example"}
	for _, rcptTo := range to {
		v := ask(t, g, rcpt("192.0.2.7", "news@good.example", rcptTo))
		if v.Kind != policy.Defer || v.Code != (policy.Code{}) || v.Reason != record.GreylistNew ||
			v.Text != "4.2.0 Greylisted, please try again in 180 seconds; see https://home.example/greylist" {
			t.Errorf("first: %+v", v)
		}
	}
	early := rcpt("198.51.100.7", "news@good.example", to[0])
	early.Received = start.Add(100*time.Second + time.Millisecond)
	if v := ask(t, g, early); v.Reason != record.GreylistEarly || !strings.Contains(v.Text, " in 80 seconds") {
		t.Errorf("early: %+v", v)
	}
	headers := 0
	var waited []time.Duration
	g.Waited = func(d time.Duration) { waited = append(waited, d) }
	for _, rcptTo := range to {
		late := rcpt("198.51.100.7", "news@good.example", rcptTo)
		late.Received, late.Instance = start.Add(200*time.Second), "2"
		v := ask(t, g, late)
		if v.Kind != policy.Pass || v.Reason != record.GreylistWaited {
			t.Errorf("late: %+v", v)
		}
		if v.Header != "" {
			headers++
			if v.Header != "X-Greylist: delayed 200 seconds by postern at mx.home.example; Sun, 07 Jun 2026 08:12:30 +0000" {
				t.Errorf("header: %q", v.Header)
			}
		}
		if again := ask(t, g, late); again.Kind != policy.Pass || again.Header != "" {
			t.Errorf("asked twice: %+v", again)
		}
	}
	if headers != 1 {
		t.Errorf("%d headers", headers)
	}
	if fmt.Sprint(waited) != "[3m20s 3m20s 3m20s]" {
		t.Errorf("waited %v", waited)
	}
	g.Waited = nil
	// Five passes an hour apart, by as many senders, allow the client.
	for hour := range 4 {
		sender := fmt.Sprint("s", hour, "@good.example")
		for _, after := range []time.Duration{0, g.Limits.Delay} {
			r := rcpt("198.51.100.7", sender, to[0])
			r.Received = start.Add(time.Duration(hour+2)*time.Hour + after)
			ask(t, g, r)
		}
	}
	r := rcpt("198.51.100.200", "brandnew@good.example", to[0])
	r.Received = start.Add(7 * time.Hour)
	if v := ask(t, g, r); v.Reason != record.GreylistAutoAllowed {
		t.Errorf("after five passes: %+v", v)
	}
	r.Sender = mailaddr.ParseInternal("brandnew@soft.example")
	if v := ask(t, g, r); v.Reason != record.GreylistNew {
		t.Errorf("another domain at this network: %+v", v)
	}
	r.Sender = mailaddr.ParseInternal("x@other.example")
	if v := ask(t, g, r); v.Reason != record.GreylistNew {
		t.Errorf("a domain that fails SPF: %+v", v)
	}
}

func TestGreylistHeaderOff(t *testing.T) {
	g := newGreylist(world())
	g.Header = false
	r := rcpt("192.0.2.7", "x@good.example", "bob@home.example")
	ask(t, g, r)
	r.Received = start.Add(time.Hour)
	if v := ask(t, g, r); v.Reason != record.GreylistWaited || v.Header != "" {
		t.Errorf("%+v", v)
	}
}

func TestGreylistFlood(t *testing.T) {
	g := newGreylist(world())
	g.Flood = greylist.NewFlood(2)
	g.Limits.NetworkCap = 1
	for i, want := range []record.Reason{record.GreylistNew, record.GreylistFloodNetwork, record.GreylistNew, record.GreylistFlood} {
		r := rcpt([]string{"192.0.2.1", "192.0.2.2", "203.0.113.1", "198.51.100.1"}[i], string(rune('a'+i))+"@none.example", "bob@home.example")
		if v := ask(t, g, r); v.Reason != want || v.Kind != policy.Defer {
			t.Errorf("%d: %+v, want %s", i, v, want)
		}
	}
}

// TestFloodReplyIsExact checks the reply: when the sender may come back, and
// whose new senders were too many.
func TestFloodReplyIsExact(t *testing.T) {
	g := newGreylist(world())
	g.Limits.NetworkCap = 1
	at := start
	for _, test := range []struct{ client, sender, want string }{
		{"192.0.2.1", "a@none.example", "4.2.0 Greylisted, please try again in 180 seconds"},
		{"192.0.2.2", "b@none.example", "4.2.0 Too many new senders from your network in an hour, please try again in 3540 seconds"},
		{"192.0.2.7", "x@good.example", "4.2.0 Greylisted, please try again in 180 seconds"}, // not its neighbours' /24
		{"198.51.100.7", "y@good.example", "4.2.0 Too many new senders from your domain in an hour, please try again in 3540 seconds"},
	} {
		r := rcpt(test.client, test.sender, "bob@home.example")
		r.Received = at
		if v := ask(t, g, r); v.Text != test.want {
			t.Errorf("%s: %q, want %q", test.sender, v.Text, test.want)
		}
		at = at.Add(time.Minute)
	}
}

// broken is a store that is down.
type broken struct{ greylist.Store }

func (broken) Seen(context.Context, greylist.Key, time.Time, greylist.Limits) (greylist.Record, error) {
	return greylist.Record{}, errors.New("connection refused")
}

// noCredit loses credits.
type noCredit struct{ greylist.Store }

func (noCredit) Credit(context.Context, string, time.Time) error { return errors.New("lost") }

func TestGreylistStoreFails(t *testing.T) {
	g := newGreylist(world())
	memory := g.Store
	g.Store = broken{memory}
	v, err := g.Check(t.Context(), rcpt("192.0.2.7", "x@good.example", "bob@home.example"), nil)
	if err == nil || v.Kind != policy.None || v.Reason != record.GreylistUnavailable {
		t.Errorf("%+v, %v", v, err)
	}
	g.Store = noCredit{memory}
	r := rcpt("192.0.2.7", "x@good.example", "bob@home.example")
	ask(t, g, r)
	r.Received = start.Add(time.Hour)
	if v := ask(t, g, r); v.Kind != policy.Pass || !strings.Contains(v.Detail, "credit lost: lost") {
		t.Errorf("%+v", v)
	}
}

// TestGreylistSPFTooSlow: the delay continues when DNS does not answer in time.
func TestGreylistSPFTooSlow(t *testing.T) {
	g := newGreylist(world())
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	r := rcpt("192.0.2.7", "x@wait.example", "bob@home.example")
	v, err := g.Check(ctx, r, nil)
	if err != nil || v.Reason != record.GreylistNew || !strings.HasPrefix(v.Detail, "key=192.0.2.0/24") {
		t.Fatalf("without time: %+v, %v", v, err)
	}
	r.Received = start.Add(time.Hour)
	if v := ask(t, g, r); v.Reason != record.GreylistWaited || !strings.HasPrefix(v.Detail, "key=spf:wait.example") {
		t.Errorf("the retry: %+v", v)
	}
}

func TestSuspicions(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*policy.Request)
		prior  policy.Signals
		want   string
	}{
		{"nothing", func(*policy.Request) {}, nil, ""},
		{"a list below its threshold", func(*policy.Request) {}, policy.Signals{policy.DNSBLScore: 1}, "dnsbl_score"},
		{"a list that allows", func(*policy.Request) {}, policy.Signals{policy.DNSBLScore: -1}, ""},
		{"abused", func(*policy.Request) {}, policy.Signals{policy.DBLAbused: 1, policy.ZRDFresh: 2}, "dbl_abused,zrd_fresh"},
		{"no name", func(r *policy.Request) { r.Client.Name, r.Client.ReverseName = "", "" }, nil, "no_reverse_name"},
		{"unconfirmed", func(r *policy.Request) { r.Client.Name = "" }, nil, "unconfirmed_name"},
		{"dynamic", func(r *policy.Request) { r.Client.ReverseName = "192-0-2-7.dsl.isp.example" }, nil, "dynamic_name"},
		{"octets", func(r *policy.Request) { r.Client.ReverseName = "host7-2-0-192.isp.example" }, nil, "dynamic_name"},
		{"hexadecimal", func(r *policy.Request) { r.Client.ReverseName = "c0000207.isp.example" }, nil, "dynamic_name"},
		{"static", func(r *policy.Request) { r.Client.ReverseName = "static-192-0-2-7.isp.example" }, nil, ""},
		{"the provider's own name", func(r *policy.Request) { r.Client.ReverseName = "mx.dsl.example" }, nil, ""},
		{"HELO elsewhere", func(r *policy.Request) { r.Helo = "elsewhere.example" }, nil, "helo_mismatch"},
		{"HELO nowhere", func(r *policy.Request) { r.Helo = "nowhere.example" }, nil, "helo_mismatch"},
		{"HELO short", func(r *policy.Request) { r.Helo = "localhost" }, nil, "helo_mismatch"},
		{"HELO bare address", func(r *policy.Request) { r.Helo = "192.0.2.7" }, nil, "helo_mismatch"},
		{"HELO literal", func(r *policy.Request) { r.Helo = "[192.0.2.7]" }, nil, ""},
		{"HELO wrong literal", func(r *policy.Request) { r.Helo = "[IPv6:2001:db8::1]" }, nil, "helo_mismatch"},
		{"HELO by address record", func(r *policy.Request) { r.Client.Name = "other.good.example" }, nil, ""},
		{"HELO look-up fails", func(r *policy.Request) { r.Helo = "down.example" }, nil, ""},
		{"SPF fail", func(r *policy.Request) {
			r.Sender = mailaddr.ParseInternal("x@mx.helo.test")
			r.Client.Address = addr("203.0.113.7")
			r.Helo = "[203.0.113.7]"
		}, nil, "spf_fail"},
		{"HELO look-up fails, another ground", func(r *policy.Request) { r.Helo = "down.example" }, policy.Signals{policy.ZRDFresh: 2}, "zrd_fresh"},
		{"SPF softfail", func(r *policy.Request) { r.Sender = mailaddr.ParseInternal("x@soft.example") }, nil, "spf_softfail"},
		{"SPF none", func(r *policy.Request) { r.Sender = mailaddr.ParseInternal("x@none.example") }, nil, "spf_none"},
		{"SPF look-up fails", func(r *policy.Request) { r.Sender = mailaddr.ParseInternal("x@down.example") }, nil, ""},
	} {
		g := newGreylist(world())
		g.OnlySuspicious = true
		r := rcpt("192.0.2.7", "x@good.example", "bob@home.example")
		test.change(r)
		v, err := g.Check(t.Context(), r, test.prior)
		if err != nil {
			t.Fatal(err)
		}
		_, got, _ := strings.Cut(v.Detail, " suspicious=")
		reason := record.GreylistNew
		switch failed := strings.Contains(test.name, "look-up fails"); {
		case failed && test.want == "":
			reason = record.GreylistUnsure
		case test.want == "":
			reason = record.GreylistNotSuspicious
		}
		if got != test.want || v.Reason != reason || (v.Unknown != nil) != (reason == record.GreylistUnsure) {
			t.Errorf("%s: %q (%s, %v), want %q", test.name, got, v.Reason, v.Unknown, test.want)
		}
	}
}

func TestInstances(t *testing.T) {
	var i checks.Instances
	if !i.First("a") || i.First("a") || !i.First("b") || !i.First("") || !i.First("") {
		t.Error("first is not first")
	}
	for n := range 5000 {
		i.First(fmt.Sprint(n))
	}
	if !i.First("a") || i.First("4999") {
		t.Error("memory is not bounded, or too short")
	}
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestGreylistClients(t *testing.T) {
	path := writeFile(t, `# a comment
/^mail\d+\.pattern\.example$/   # of names
192.0.2.1
198.51.100.0/24
203.0.113.9/24
10.20.30
172.20
2001:db8::1
2001:db8:5::/48
name.example
`)
	l, err := checks.ReadGreylistClients([]string{path, checks.DefaultAllowList})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		addr, name string
		want       bool
	}{
		{"1.2.3.4", "MAIL7.pattern.example", true},
		{"1.2.3.4", "mail.pattern.example", false},
		{"192.0.2.1", "", true},
		{"192.0.2.2", "", false},
		{"198.51.100.255", "", true},
		{"203.0.113.1", "", true},
		{"10.20.30.1", "", true},
		{"10.20.31.1", "", false},
		{"172.20.255.1", "", true}, // postgrey takes it for 172.20.0.0/24
		{"172.21.0.1", "", false},
		{"2001:db8::1", "", true},
		{"2001:db8:5:1::1", "", true},
		{"2001:db8:6::1", "", false},
		{"1.2.3.4", "name.example", true},
		{"1.2.3.4", "a.NAME.example", true},
		{"1.2.3.4", "othername.example", false},
		{"1.2.3.4", "mail-a.google.com", true},
		{"1.2.3.4", "", false},
	} {
		if got := l.Has(addr(test.addr), test.name); got != test.want {
			t.Errorf("%s %s: %t", test.addr, test.name, got)
		}
	}
	for _, bad := range []string{"/(/", "/a(?=b)/", "300.1", "not a name", "1.2.3.4/33"} {
		path := writeFile(t, "fine.example\n"+bad+"\n")
		if _, err := checks.ReadGreylistClients([]string{path}); err == nil || !strings.HasPrefix(err.Error(), path+":2: ") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := checks.ReadGreylistClients([]string{"/nonexistent/list"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// TestPostgreyList reads the list in Debian's package.
func TestPostgreyList(t *testing.T) {
	const path = "/etc/postgrey/whitelist_clients"
	l, err := checks.ReadGreylistClients([]string{path})
	if errors.Is(err, os.ErrNotExist) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"lists.debian.org": true, "mail7.telekom.de": true, "mail.telekom.de": false} {
		if l.Has(addr("192.0.2.1"), name) != want {
			t.Errorf("%s: not %t", name, want)
		}
	}
}

func TestGreylistRecipients(t *testing.T) {
	l, err := checks.ReadGreylistRecipients([]string{writeFile(t, "user@one.example\nanyone@\ndomain.example\n/^x.*@p\\.example$/\n")})
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]bool{
		"user@one.example": true, "User+tag@one.example": true, "user2@one.example": false, "a.user@one.example": false,
		"anyone@two.example": true, "anyone+x@two.example": true, "who@domain.example": true, "who@a.domain.example": true,
		"who@notdomain.example": false, "X1@p.example": true, "y@p.example": false, "": false,
	} {
		if got := l.Has(mailaddr.ParseInternal(address), "+"); got != want {
			t.Errorf("%q: %t", address, got)
		}
	}
	if _, err := checks.ReadGreylistSenders([]string{checks.DefaultAllowList}); err != nil {
		t.Errorf("our own list: %v", err)
	}
	if none, err := checks.ReadGreylistSenders(nil); none != nil || err != nil {
		t.Errorf("no list: %v, %v", none, err)
	}
}
