package dnsbl

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// world is a DNS with three lists that pass their self-tests.
const world = `
2.0.0.127.zen.spamhaus.org.        IN A   127.0.0.2
2.0.0.127.zen.spamhaus.org.        IN A   127.0.0.4
2.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.zen.spamhaus.org. IN A 127.0.0.2
7.2.0.192.zen.spamhaus.org.        IN A   127.0.0.2
7.2.0.192.zen.spamhaus.org.        IN A   127.0.0.4
7.2.0.192.zen.spamhaus.org.        IN TXT "Listed by SBL, see https://check.spamhaus.org/sbl/query/SBL1"
8.2.0.192.zen.spamhaus.org.        IN A   127.0.0.10
1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.zen.spamhaus.org. IN A 127.0.0.3
dbltest.com.dbl.spamhaus.org.      IN A   127.0.1.2
spam.example.dbl.spamhaus.org.     IN A   127.0.1.2
*.spam.example.dbl.spamhaus.org.   IN A   127.0.1.2
abused.example.dbl.spamhaus.org.   IN A   127.0.1.102
2.0.0.127.list.dnswl.org.          IN A   127.0.10.0
7.2.0.192.list.dnswl.org.          IN A   127.0.5.3
9.2.0.192.list.dnswl.org.          IN A   127.0.9.1
`

const secret = "ABCDEFGHIJKLMNOPQRSTUVWXY9"

type testKey string

func (k testKey) Reveal() string { return string(k) }
func (testKey) String() string   { return "***" }

func sites(t testing.TB, specs string) []Site {
	t.Helper()
	var out []Site
	for spec := range strings.FieldsSeq(specs) {
		s, err := ParseSite(spec)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
	return out
}

// newLists returns lists that ask a zone. c needs only the settings that differ
// from the defaults.
func newLists(t testing.TB, z DNS, addresses, names string, c Config) *Lists {
	t.Helper()
	c.DNS, c.Addresses, c.Names = z, sites(t, addresses), sites(t, names)
	if c.Threshold == 0 {
		c.Threshold = 1
	}
	l, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestReversed(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.99":     "99.2.0.192",
		"127.0.0.2":      "2.0.0.127",
		"2001:db8::1":    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2",
		"::ffff:7f00:2":  "2.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0",
		"2001:db8::a:bc": "c.b.0.0.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2",
	} {
		if got := Reversed(addr(in)); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestAskableAddress(t *testing.T) {
	for in, want := range map[string]bool{
		"192.0.2.1": true, "198.51.100.7": true, "203.0.113.9": true, "2001:db8::1": true, "8.8.8.8": true, "::ffff:192.0.2.1": true,
		"10.1.2.3": false, "172.16.0.1": false, "172.32.0.1": true, "192.168.1.1": false, "127.0.0.2": false, "::1": false,
		"169.254.1.1": false, "fe80::1": false, "fd00::1": false, "0.0.0.0": false, "::": false, "224.0.0.1": false,
		"::ffff:10.0.0.1": false, "100.64.0.1": false, "100.127.255.254": false, "100.128.0.1": true, "100.63.0.1": true, "0.1.2.3": false,
		"198.18.0.1": false, "198.19.255.1": false, "198.20.0.1": true, "240.0.0.1": false, "255.255.255.255": false, "fe80::1%eth0": false, "ff02::1": false,
	} {
		if got := AskableAddress(addr(in)); got != want {
			t.Errorf("%s: %v", in, got)
		}
	}
	if AskableAddress(netip.Addr{}) {
		t.Error("no address")
	}
}

func TestAskableName(t *testing.T) {
	long := strings.Repeat("a", 63)
	for in, want := range map[string]bool{
		"example.org": true, "a.b.example.org": true, "xn--bcher-kva.example": true, "_dmarc.example.org": true, "1.2.3.example": true,
		long + ".example": true,
		"":                false, "localhost": false, "test": false, "192.0.2.1": false, "example.123": false, "[192.0.2.1]": false,
		"a..b": false, ".example.org": false, "example.org.": false, "-a.example": false, "a-.example": false, "a b.example": false,
		"Example.org": false, "bücher.example": false, long + "a.example": false, "a@b.example": false,
		"2.0.0.127.in-addr.arpa": false, strings.Repeat("a.", 126) + "example": false,
	} {
		if got := AskableName(in); got != want {
			t.Errorf("%q: %v", in, got)
		}
	}
}

func TestParseSite(t *testing.T) {
	for in, want := range map[string]string{
		"zen.spamhaus.org":                        "zen.spamhaus.org*1",
		"Zen.Spamhaus.ORG.":                       "zen.spamhaus.org*1",
		"zen.spamhaus.org=127.0.0.[2..11;30]*1":   "zen.spamhaus.org=127.0.0.[2..11;30]*1",
		"list.dnswl.org=127.0.[2..20].[0..3]*-4":  "list.dnswl.org=127.0.[2..20].[0..3]*-4",
		"b.example*+3":                            "b.example*3",
		"b.example=127.0.0.4*0":                   "b.example=127.0.0.4*0",
		"b.example=[127].[0;1].[0..0;255].[2]*-1": "b.example=[127].[0;1].[0..0;255].[2]*-1",
	} {
		s, err := ParseSite(in)
		if err != nil || s.String() != want {
			t.Errorf("%s: %s, %v", in, s, err)
			continue
		}
		if again, err := ParseSite(s.String()); err != nil || again != s {
			t.Errorf("%s is not read back: %v, %v", s, again, err)
		}
	}
}

func TestParseSiteErrors(t *testing.T) {
	for in, want := range map[string]string{
		"":                                      "not the name of a list",
		"a.example,b.example":                   "one list a setting",
		"a.example b.example":                   "not the name of a list",
		"192.0.2.1":                             "not the name of a list",
		"a.example=":                            "an octet is a number",
		"a.example=127.0.0":                     "four octets",
		"a.example=127.0.0.2.3":                 "four octets",
		"a.example=127.0.0.[2]3":                "four octets",
		"a.example=127.0.0.[2":                  "not closed",
		"a.example=127.0.0.[]":                  "an octet is a number",
		"a.example=127.0.0.[2;]":                "an octet is a number",
		"a.example=127.0.0.[11..2]":             "from the lower",
		"a.example=127.0.0.[2..]":               "an octet is a number",
		"a.example=127.0.0.256":                 "an octet is a number",
		"a.example=127.0.0.0002":                "an octet is a number",
		"a.example=127.0.0.-2":                  "an octet is a number",
		"a.example=192.0.2.1":                   "can never match",
		"a.example*":                            "weight",
		"a.example*1.5":                         "weight",
		"a.example*1001":                        "weight",
		"a.example*-1001":                       "weight",
		"a.example*1*1":                         "weight",
		strings.Repeat("a.", 90) + "org":        "not the name of a list",
		"a.example*" + strings.Repeat("9", 600): "more than",
	} {
		if s, err := ParseSite(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v", in, s, err)
		}
	}
}

func FuzzParseSite(f *testing.F) {
	for _, seed := range []string{"zen.spamhaus.org=127.0.0.[2..11;30]*1", "a.b=[127..127].0.0.[0..255]*-1", "a=[[127].0.0.1", "a.b=127.0.0.[2..11*1", "*", "=", "a.b=...", "a.b=127.0.0.[;;]"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSite(text)
		if err != nil {
			return
		}
		again, err := ParseSite(s.String())
		if err != nil || again != s {
			t.Errorf("%q: %q read back as %q, %v", text, s, again, err)
		}
		if s.Weight < -maxWeight || s.Weight > maxWeight || len(s.Zone) > maxZoneName {
			t.Errorf("%q: out of bounds: %+v", text, s)
		}
	})
}

func TestFilterMatches(t *testing.T) {
	s := sites(t, "a.example=127.0.[0;2..3].[2..11;30]")[0]
	for in, want := range map[string]bool{
		"127.0.0.2": true, "127.0.0.11": true, "127.0.0.30": true, "127.0.2.5": true, "127.0.3.5": true,
		"127.0.0.12": false, "127.0.1.2": false, "127.1.0.2": false, "126.0.0.2": false, "::ffff:127.0.0.2": false,
	} {
		if got := s.Filter.Matches(addr(in)); got != want {
			t.Errorf("%s: %v", in, got)
		}
	}
}

func TestNewErrors(t *testing.T) {
	var many []string
	for c := range 33 {
		many = append(many, "l"+strings.Repeat("x", c+1)+".example")
	}
	z := resolvertest.NewZone(t, "")
	for _, c := range []struct {
		addresses, names string
		threshold        int
		key              Key
		want             string
	}{
		{"zen.spamhaus.org", "", 0, nil, "threshold"},
		{strings.Join(many, " "), "", 1, nil, "at most 32"},
		{"dbl.spamhaus.org", "", 1, nil, "put it under --dbl"},
		{"", "zen.spamhaus.org", 1, nil, "put it under --dnsbl"},
		{"", "dbl.spamhaus.org=127.0.0.[2..11]", 1, nil, "can never match: the codes of this list look like 127.0.1."},
		{"zen.spamhaus.org=127.0.1.2", "", 1, nil, "can never match"},
		{"authbl.dq.spamhaus.net", "", 1, testKey(secret), "for submission"},
		{"", "zrd.dq.spamhaus.net", 1, nil, "--dqs-key-file"},
		{secret + ".zen.dq.spamhaus.net", "", 1, nil, "put the key into a file"},
		{"zen.spamhaus.org", "", 1, testKey("short"), "not a DQS key"},
		{"zen.spamhaus.org", "", 1, testKey(secret[:20] + ".evil"), "not a DQS key"},
		{"zen.spamhaus.org", "", 1, testKey(strings.Repeat("a", 64)), "not a DQS key"},
	} {
		_, err := New(Config{DNS: z, Addresses: sites(t, c.addresses), Names: sites(t, c.names), Threshold: c.threshold, Key: c.key})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		if text := strings.ToLower(err.Error()); strings.Contains(text, strings.ToLower(secret[:20])) {
			t.Errorf("the key is in %q", err)
		}
	}
}

func TestHideKeys(t *testing.T) {
	for in, want := range map[string]string{
		"x " + secret + ".Zen.dq.spamhaus.net=127.0.0.2":          "x ***.Zen.dq.spamhaus.net=127.0.0.2",
		"1.2.3.4." + secret + ".dbl.dq.spamhaus.net, zen.example": "1.2.3.4.***.dbl.dq.spamhaus.net, zen.example",
		"zrd.dq.spamhaus.net":                                     "zrd.dq.spamhaus.net",
		"zen.spamhaus.org":                                        "zen.spamhaus.org",
	} {
		if got := HideKeys(in); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
