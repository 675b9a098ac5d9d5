package checks_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/policy"
)

// named is a zone with names for addresses.
type named struct {
	*zone
	ptr map[string]string
}

func (n *named) LookupAddr(_ context.Context, addr string) ([]string, error) {
	if name, ok := n.ptr[addr]; ok {
		return []string{name}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: addr, IsNotFound: true}
}

// pools is a zone with large senders, whose SPF records are broad, and a cloud.
func pools() *named {
	return &named{
		zone: &zone{
			txt: map[string]string{
				"contoso.example.":             "v=spf1 include:spf.protection.outlook.test -all",
				"spf.protection.outlook.test.": "v=spf1 ip4:40.92.0.0/15 ip4:52.100.0.0/15 ip6:2a01:100::/28 -all",
				"yahoo.test.":                  "v=spf1 ptr:yahoo.test -all",
				"crm.example.":                 "v=spf1 include:_spf.salesforce.test -all",
				"_spf.salesforce.test.":        "v=spf1 exists:%{i}._spf.mta.salesforce.test -all",
				"victim.example.":              "v=spf1 ip4:40.92.0.0/15 include:_spf.cloud.test -all",
				"all.example.":                 "v=spf1 +all",
				"half.example.":                "v=spf1 ip4:0.0.0.0/1 -all",
			},
			addr: map[string]string{
				"192.0.2.7._spf.mta.salesforce.test.": "127.0.0.2", "198.51.100.7._spf.mta.salesforce.test.": "127.0.0.2",
				"sonic1.mail.yahoo.test.": "192.0.2.7", "sonic2.ne1.yahoo.test.": "198.51.100.7",
			},
		},
		ptr: map[string]string{"192.0.2.7": "sonic1.mail.yahoo.test.", "198.51.100.7": "sonic2.ne1.yahoo.test."},
	}
}

func from(client, name, sender, recipient string) *policy.Request {
	r := rcpt(client, sender, recipient)
	r.Client.Name, r.Client.ReverseName = name, name
	return r
}

func TestPools(t *testing.T) {
	for _, test := range []struct {
		name, client, host, sender, want string
		shared                           bool // the pool's servers share their credit
	}{
		{"a network of /15", "40.92.18.5", "mail-a.outbound.protection.outlook.test", "x@contoso.example", "key=spf:contoso.example/outlook.test", true},
		{"IPv6 of /28", "2a01:101:2::5", "mail-a.outbound.protection.outlook.test", "x@contoso.example", "key=spf:contoso.example/outlook.test", true},
		{"ptr", "192.0.2.7", "sonic1.mail.yahoo.test", "x@yahoo.test", "key=spf:yahoo.test/yahoo.test", true},
		{"exists", "192.0.2.7", "smtp1.mta.salesforce.test", "x@crm.example", "key=spf:crm.example/salesforce.test", true},
		{"a name of another organization", "40.92.18.5", "mx.elsewhere.test", "x@contoso.example", "key=spf:contoso.example/elsewhere.test", false},
		{"no confirmed name", "40.92.18.5", "", "x@contoso.example", "key=40.92.18.0/24", false},
		{"the name of a machine that anyone rents", "40.92.18.5", "vm-40-92-18-5.cloud.test", "x@victim.example", "key=40.92.18.0/24", false},
		{"such a name that says static", "40.92.18.5", "static.5.18.92.40.cloud.test", "x@victim.example", "key=40.92.18.0/24", false},
		{"a public suffix", "40.92.18.5", "s3.amazonaws.com", "x@victim.example", "key=40.92.18.0/24", false},
		{"+all", "40.92.18.5", "mail-a.outlook.test", "x@all.example", "key=40.92.18.0/24", false},
		{"half of all addresses", "40.92.18.5", "mail-a.outlook.test", "x@half.example", "key=40.92.18.0/24", false},
	} {
		g := newGreylist(nil)
		g.Resolver = pools()
		v := ask(t, g, from(test.client, test.host, test.sender, "bob@home.example"))
		want := test.want + " sender=" + test.sender + " spf=pass"
		if test.shared {
			want += " credit=pool"
		}
		if v.Detail != want {
			t.Errorf("%s: %q, want %q", test.name, v.Detail, want)
		}
	}
}

// A mail that comes back from other networks of its pool waits only once. All
// of them share the credit of the pool, and no other client has it.
func TestPoolCredit(t *testing.T) {
	g := newGreylist(nil)
	g.Resolver = pools()
	g.Limits.AllowAfter = 1
	at := start
	see := func(client, host, sender, recipient string) record.Reason {
		t.Helper()
		r := from(client, host, sender, recipient)
		r.Received = at
		return ask(t, g, r).Reason
	}
	want := func(got, want record.Reason) {
		t.Helper()
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	const host = ".outbound.protection.outlook.test"
	want(see("40.92.18.5", "mail-a"+host, "boss@contoso.example", "bob@home.example"), record.GreylistNew)
	at = at.Add(g.Limits.Delay)
	want(see("52.100.2.3", "mail-b"+host, "boss@contoso.example", "bob@home.example"), record.GreylistWaited)
	at = at.Add(time.Minute)
	want(see("40.93.7.9", "mail-c"+host, "other@contoso.example", "eve@home.example"), record.GreylistAutoAllowed)
	// The same pass from another place earns no credit.
	want(see("40.92.77.7", "mx.bought.test", "other@contoso.example", "eve@home.example"), record.GreylistNew)
	want(see("40.92.78.7", "", "other@contoso.example", "eve@home.example"), record.GreylistNew)
	want(see("40.93.7.9", "mail-c"+host, "x@unknown.example", "eve@home.example"), record.GreylistNew)
}

// A cloud is not the pool of a domain whose record admits it: a customer of the
// cloud earns no credit for others.
func TestCloudEarnsNoCredit(t *testing.T) {
	g := newGreylist(nil)
	g.Resolver = pools()
	g.Limits.AllowAfter = 1
	at := start
	see := func(client, host, recipient string) record.Reason {
		t.Helper()
		r := from(client, host, "boss@victim.example", recipient)
		r.Received = at
		return ask(t, g, r).Reason
	}
	if got := see("40.92.18.5", "a.rented.test", "bob@home.example"); got != record.GreylistNew {
		t.Fatal(got)
	}
	at = at.Add(g.Limits.Delay)
	if got := see("40.92.18.5", "a.rented.test", "bob@home.example"); got != record.GreylistWaited {
		t.Fatal(got)
	}
	for _, other := range []string{"40.92.19.5", "40.93.1.1"} {
		if got := see(other, "b.rented.test", other+"@home.example"); got != record.GreylistNew {
			t.Errorf("%s, another machine of the cloud: %s", other, got)
		}
		at = at.Add(time.Minute)
	}
}

func TestNetworkKeyHasNoPool(t *testing.T) {
	g := newGreylist(nil)
	g.Resolver = pools()
	g.Keyer.NetworkKey = true
	g.OnlySuspicious = true // asks SPF
	r := from("40.92.18.5", "mail-a.outbound.protection.outlook.test", "x@contoso.example", "bob@home.example")
	if key := ask(t, g, r).Detail; key[:len("key=40.92.18.0/24 ")] != "key=40.92.18.0/24 " {
		t.Errorf("%q", key)
	}
}
