package checks

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/dnsbl"
	"github.com/postern-mail/postern/internal/allowlist"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
	"github.com/postern-mail/postern/policy"
)

const listedZone = `
7.2.0.192.zen.spamhaus.org.      IN A   127.0.0.2
7.2.0.192.zen.spamhaus.org.      IN A   127.0.0.4
7.2.0.192.zen.spamhaus.org.      IN TXT "https://check.spamhaus.org/sbl/query/SBL1"
8.2.0.192.zen.spamhaus.org.      IN A   127.0.0.10
9.2.0.192.list.dnswl.org.        IN A   127.0.5.2
*.spam.example.dbl.spamhaus.org. IN A   127.0.1.2
spam.example.dbl.spamhaus.org.   IN A   127.0.1.4
abused.example.dbl.spamhaus.org. IN A   127.0.1.103
xn--bcher-kva.example.dbl.spamhaus.org. IN A 127.0.1.5
`

func newDNSBL(t *testing.T, z dnsbl.DNS, threshold int) *DNSBL {
	t.Helper()
	reply, err := ParseTemplate(DefaultDNSBLReply)
	if err != nil {
		t.Fatal(err)
	}
	c := dnsbl.Config{DNS: z, Threshold: threshold, Signals: true}
	for _, spec := range []string{"zen.spamhaus.org=127.0.0.[2..11;30]", "list.dnswl.org=127.0.[2..20].[1..3]*-2"} {
		site, err := dnsbl.ParseSite(spec)
		if err != nil {
			t.Fatal(err)
		}
		c.Addresses = append(c.Addresses, site)
	}
	site, err := dnsbl.ParseSite("dbl.spamhaus.org=127.0.1.[2..99]")
	if err != nil {
		t.Fatal(err)
	}
	c.Names = []dnsbl.Site{site}
	lists, err := dnsbl.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return &DNSBL{Lists: lists, Names: DNSBLNames(), Reply: reply, Delimiters: "+"}
}

// request returns a request at RCPT from a client that is on no list.
func request(change func(*policy.Request)) *policy.Request {
	r := &policy.Request{
		State:     policy.StateRcpt,
		Client:    policy.Client{Address: netip.MustParseAddr("192.0.2.1"), Name: "mx.good.example", ReverseName: "mx.good.example"},
		Helo:      "mx.good.example",
		Sender:    mailaddr.ParseInternal("someone@good.example"),
		Recipient: mailaddr.ParseInternal("me@home.example"),
	}
	if change != nil {
		change(r)
	}
	return r
}

func client(addr string) func(*policy.Request) {
	return func(r *policy.Request) { r.Client.Address = netip.MustParseAddr(addr) }
}

func TestDNSBL(t *testing.T) {
	z := resolvertest.NewZone(t, listedZone)
	check := newDNSBL(t, z, 1)
	for _, tt := range []struct {
		name    string
		change  func(*policy.Request)
		kind    policy.Kind
		reason  record.Reason
		text    string
		signals policy.Signals
	}{
		{"clean", nil, policy.Pass, record.DNSBLClean, "", nil},
		{"client", client("192.0.2.7"), policy.Reject, record.DNSBLClientListed,
			"192.0.2.7 is listed by zen.spamhaus.org (SBL, XBL): https://check.spamhaus.org/sbl/query/SBL1", policy.Signals{policy.DNSBLScore: 1}},
		{"client without TXT", client("192.0.2.8"), policy.Reject, record.DNSBLClientListed,
			"192.0.2.8 is listed by zen.spamhaus.org (PBL): https://check.spamhaus.org/results/?query=192.0.2.8", policy.Signals{policy.DNSBLScore: 1}},
		{"allowed", client("192.0.2.9"), policy.Pass, record.DNSBLAllowed, "", policy.Signals{policy.DNSBLScore: -2}},
		{"sender", func(r *policy.Request) { r.Sender = mailaddr.ParseInternal("x@Spam.Example") }, policy.Reject, record.DNSBLSenderListed,
			"spam.example is listed by dbl.spamhaus.org (DBL phish): https://check.spamhaus.org/results/?query=spam.example", policy.Signals{policy.DNSBLScore: 1}},
		{"sender in U-labels", func(r *policy.Request) { r.Sender = mailaddr.ParseInternal("x@bücher.example") }, policy.Reject, record.DNSBLSenderListed,
			"xn--bcher-kva.example is listed by dbl.spamhaus.org (DBL malware): https://check.spamhaus.org/results/?query=xn--bcher-kva.example", policy.Signals{policy.DNSBLScore: 1}},
		{"helo", func(r *policy.Request) { r.Helo = "MX.spam.example." }, policy.Reject, record.DNSBLHeloListed,
			"mx.spam.example is listed by dbl.spamhaus.org (DBL low reputation): https://check.spamhaus.org/results/?query=mx.spam.example", policy.Signals{policy.DNSBLScore: 1}},
		{"confirmed name", func(r *policy.Request) { r.Client.Name = "a.spam.example" }, policy.Reject, record.DNSBLNameListed,
			"a.spam.example is listed by dbl.spamhaus.org (DBL low reputation): https://check.spamhaus.org/results/?query=a.spam.example", policy.Signals{policy.DNSBLScore: 1}},
		{"reverse name", func(r *policy.Request) { r.Client.ReverseName = "b.spam.example" }, policy.Reject, record.DNSBLNameListed,
			"b.spam.example is listed by dbl.spamhaus.org (DBL low reputation): https://check.spamhaus.org/results/?query=b.spam.example", policy.Signals{policy.DNSBLScore: 1}},
		{"abused", func(r *policy.Request) { r.Sender = mailaddr.ParseInternal("x@abused.example") }, policy.Pass, record.DNSBLClean, "", policy.Signals{policy.DBLAbused: 1}},
		{"null sender", func(r *policy.Request) { r.Sender = mailaddr.ParseInternal("") }, policy.Pass, record.DNSBLClean, "", nil},

		{"private client, nothing to ask", func(r *policy.Request) {
			*r = policy.Request{State: policy.StateRcpt, Recipient: r.Recipient, Helo: "[10.0.0.1]", Client: policy.Client{Address: netip.MustParseAddr("10.0.0.1")}, Sender: mailaddr.ParseInternal("x@[10.0.0.1]")}
		}, policy.None, record.DNSBLNothingToAsk, "", nil},
		{"no address", func(r *policy.Request) { r.Client.Address = netip.Addr{} }, policy.Pass, record.DNSBLClean, "", nil},
		{"logged in", func(r *policy.Request) { client("192.0.2.8")(r); r.Login = "ann" }, policy.None, record.DNSBLAuthenticated, "", nil},
		{"postmaster", func(r *policy.Request) {
			client("192.0.2.7")(r)
			r.Recipient = mailaddr.ParseInternal("Postmaster@home.example")
		}, policy.None, record.DNSBLRecipientExempt, "", nil},
		{"bare postmaster", func(r *policy.Request) { client("192.0.2.7")(r); r.Recipient = mailaddr.ParseInternal("postmaster") }, policy.None, record.DNSBLRecipientExempt, "", nil},
		{"abuse", func(r *policy.Request) {
			client("192.0.2.7")(r)
			r.Recipient = mailaddr.ParseInternal("ABUSE@home.example")
		}, policy.None, record.DNSBLRecipientExempt, "", nil},
		{"not quite postmaster", func(r *policy.Request) {
			client("192.0.2.8")(r)
			r.Recipient = mailaddr.ParseInternal("postmaster2@home.example")
		}, policy.Reject, record.DNSBLClientListed, "192.0.2.8 is listed by zen.spamhaus.org (PBL): https://check.spamhaus.org/results/?query=192.0.2.8", policy.Signals{policy.DNSBLScore: 1}},
		{"several recipients at DATA", func(r *policy.Request) {
			client("192.0.2.7")(r)
			r.State, r.Recipient = policy.StateData, mailaddr.Address{}
		}, policy.None, record.NotApplicable, "", nil},
		{"before RCPT", func(r *policy.Request) { client("192.0.2.7")(r); r.State = policy.StateConnect }, policy.None, record.NotApplicable, "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, err := check.Check(t.Context(), request(tt.change), nil)
			if err != nil || v.Kind != tt.kind || v.Reason != tt.reason || v.Text != tt.text || !maps.Equal(v.Signals, tt.signals) {
				t.Errorf("%s %s %q %v, %v", v.Kind, v.Reason, v.Text, v.Signals, err)
			}
			if (v.Kind == policy.Reject) != (v.Code == policy.CodePolicy) {
				t.Errorf("code %v", v.Code)
			}
		})
	}
}

func TestDNSBLBelowThreshold(t *testing.T) {
	check := newDNSBL(t, resolvertest.NewZone(t, listedZone), 3)
	v, err := check.Check(t.Context(), request(client("192.0.2.7")), nil)
	if err != nil || v.Kind != policy.Pass || v.Reason != record.DNSBLBelowThreshold || v.Signals[policy.DNSBLScore] != 1 {
		t.Errorf("%+v, %v", v, err)
	}
	if want := "score=1; zen.spamhaus.org=127.0.0.2,127.0.0.4 (SBL, XBL) 192.0.2.7 weight=1"; v.Detail != want {
		t.Errorf("%q", v.Detail)
	}
	v, err = check.Check(t.Context(), request(func(r *policy.Request) {
		r.Sender, r.Helo = mailaddr.ParseInternal("x@spam.example"), "spam.example"
	}), nil)
	if want := "score=1; dbl.spamhaus.org=127.0.1.4 (DBL phish) spam.example weight=1 as sender+helo"; err != nil || v.Detail != want {
		t.Errorf("%q, %v", v.Detail, err)
	}
}

// Only the names that are switched on are asked.
func TestDNSBLNames(t *testing.T) {
	r := request(func(r *policy.Request) {
		r.Sender, r.Helo = mailaddr.ParseInternal("x@s.example"), "h.example"
		r.Client.Name, r.Client.ReverseName = "c.example", "r.example"
	})
	for _, name := range DNSBLNames() {
		z := resolvertest.NewZone(t, "")
		check := newDNSBL(t, z, 1)
		check.Names = []string{name}
		if _, err := check.Check(t.Context(), r, nil); err != nil {
			t.Fatal(err)
		}
		for _, other := range DNSBLNames() {
			if n := z.Count(other[:1]+".example.dbl.spamhaus.org", "A"); n != map[bool]int{true: 1}[other == name] {
				t.Errorf("%s alone: %s asked %d times", name, other, n)
			}
		}
	}
}

func TestDNSBLNoAnswer(t *testing.T) {
	for _, fault := range []resolvertest.Fault{resolvertest.ServFail, resolvertest.Unavailable, resolvertest.Healthy} {
		z := resolvertest.NewZone(t, listedZone)
		z.Fail("*.zen.spamhaus.org", fault)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if fault == resolvertest.Healthy { // then it is the caller who stops
			z.Fail("*", resolvertest.Silence)
			cancel()
		}
		v, err := newDNSBL(t, z, 1).Check(ctx, request(func(r *policy.Request) { r.Sender = mailaddr.ParseInternal("x@abused.example") }), nil)
		var unknown *dnsbl.UnknownError
		if !errors.As(err, &unknown) || v.Kind != policy.None || v.Reason != record.DNSBLUnavailable || !strings.Contains(v.Detail, "zen.spamhaus.org: ") {
			t.Errorf("%s: %+v, %v", fault, v, err)
		}
		if fault != resolvertest.Healthy && v.Signals[policy.DBLAbused] != 1 {
			t.Errorf("%s: what is known is lost: %+v", fault, v)
		}
	}
}

// A refusal does not wait for a text that does not come.
func TestDNSBLWithoutWords(t *testing.T) {
	check := &DNSBL{Lists: wordless{}, Reply: Template{"{what} {zone} {meaning} {text} {score}"}}
	v, err := check.Check(t.Context(), request(nil), nil)
	if err != nil || v.Text != "192.0.2.1 bl.example 127.0.0.2 127.0.0.2 4" || v.Reason != record.DNSBLClientListed {
		t.Errorf("%+v, %v", v, err)
	}
}

type wordless struct{}

func (wordless) Check(context.Context, dnsbl.Query) (dnsbl.Result, error) {
	code := dnsbl.Code{Addr: netip.MustParseAddr("127.0.0.2"), Class: dnsbl.ClassListed, Name: "127.0.0.2"}
	return dnsbl.Result{Outcome: dnsbl.Listed, Score: 4, Asked: 1, Hits: []dnsbl.Hit{
		{Zone: "bl.example", Subject: "192.0.2.1", Weight: 4, Codes: []dnsbl.Code{code}}}}, nil
}

func (wordless) Text(ctx context.Context, _ *dnsbl.Hit) string {
	if _, ok := ctx.Deadline(); !ok {
		return "no deadline"
	}
	return ""
}

func TestParseTemplate(t *testing.T) {
	for text, want := range map[string]string{
		"": "empty", "  ": "empty", "{who} listed": "brace", "{what": "brace", "a } b": "brace", "{{what}}": "brace",
	} {
		if _, err := ParseTemplate(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{"no", DefaultDNSBLReply, "{score}{score}"} {
		if _, err := ParseTemplate(text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "allow")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExemptLists(t *testing.T) {
	check := newDNSBL(t, resolvertest.NewZone(t, listedZone), 1)
	check.Relays = allowlist.Networks{netip.MustParsePrefix("192.0.2.9/32")}
	var err error
	if check.AllowClients, err = allowlist.ReadClients(write(t, "192.0.2.7\nmx.good.example\n")); err != nil {
		t.Fatal(err)
	}
	if check.AllowRecipients, err = allowlist.ReadRecipients(write(t, "open@home.example\n")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		change func(*policy.Request)
		want   record.Reason
	}{
		{func(r *policy.Request) { client("192.0.2.7")(r); r.Client.Name = "" }, record.DNSBLClientExempt},
		{client("192.0.2.9"), record.DNSBLTrustedRelay},
		{client("192.0.2.8"), record.DNSBLClientExempt},                                                    // by its confirmed name
		{func(r *policy.Request) { client("192.0.2.8")(r); r.Client.Name = "" }, record.DNSBLClientListed}, // the reverse name proves nothing
		{func(r *policy.Request) {
			client("192.0.2.8")(r)
			r.Client.Name, r.Recipient = "", mailaddr.ParseInternal("open@home.example")
		}, record.DNSBLRecipientExempt},
	} {
		if v, err := check.Check(t.Context(), request(tt.change), nil); err != nil || v.Reason != tt.want {
			t.Errorf("%s, want %s, %v", v.Reason, tt.want, err)
		}
	}
}
