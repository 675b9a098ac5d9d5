package resolver

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func addrPorts(list ...string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, s := range list {
		out = append(out, netip.MustParseAddrPort(s))
	}
	return out
}

func TestParseServers(t *testing.T) {
	in := []string{"127.0.0.1", "127.0.0.1:53", "192.0.2.1:5353", "::1", "[2001:db8::1]", "[2001:db8::1]:54", "fe80::1%eth0", "::ffff:192.0.2.9"}
	want := addrPorts("127.0.0.1:53", "192.0.2.1:5353", "[::1]:53", "[2001:db8::1]:53", "[2001:db8::1]:54", "[fe80::1%eth0]:53", "192.0.2.9:53")
	got, err := parseServers(in)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	for _, bad := range []string{"", "localhost", "dns.example:53", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:99999", "[::1", "192.0.2.300", "192.0.2.1:dns"} {
		if got, err := parseServers([]string{bad}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", bad)) {
			t.Errorf("%q: %v, %v", bad, got, err)
		}
	}
}

func TestParseResolvConf(t *testing.T) {
	many := ""
	for i := range 20 {
		many += fmt.Sprintf("nameserver 192.0.2.%d\n", i)
	}
	for _, c := range []struct {
		name, text string
		want       []netip.AddrPort
		err        string
	}{
		{"usual", "# comment\ndomain example.org\nnameserver 192.0.2.1\n\tnameserver\t::1 # x\r\noptions timeout:1\n", addrPorts("192.0.2.1:53", "[::1]:53"), ""},
		{"repeated", "nameserver 192.0.2.1\nnameserver 192.0.2.1", addrPorts("192.0.2.1:53"), ""},
		{"zone", "nameserver fe80::1%eth0\n", addrPorts("[fe80::1%eth0]:53"), ""},
		{"no address", "\nnameserver \n", nil, "f:2: nameserver without"},
		{"name", "nameserver dns.example\n", nil, `f:1: nameserver "dns.example" is not`},
		{"too long", strings.Repeat("# filler\n", 10_000), nil, "longer than"},
		{"line too long", "nameserver " + strings.Repeat("x", 70_000), nil, "f: "},
	} {
		got, err := parseResolvConf(strings.NewReader(c.text), "f")
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
	if got, err := parseResolvConf(strings.NewReader(many), "f"); len(got) != maxServers || err != nil {
		t.Errorf("many: %v, %v", got, err)
	}
}

func TestAddressesFromFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	c := Config{ResolvConf: path}
	if _, err := c.addresses(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("missing file: %v", err)
	}
	for text, want := range map[string]string{"options x\n": "has no nameserver line", "nameserver 192.0.2.1\n": ""} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := c.addresses()
		if want == "" && (err != nil || len(got) != 1) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	var nine []string
	for i := range maxServers + 1 {
		nine = append(nine, fmt.Sprintf("192.0.2.%d", i))
	}
	if _, err := (&Config{Servers: nine}).addresses(); err == nil {
		t.Error("nine servers taken")
	}
}

func FuzzParseResolvConf(f *testing.F) {
	for _, s := range []string{"nameserver 192.0.2.1\n", "nameserver\n", "nameserver fe80::1%\n", "nameserver \x00", strings.Repeat("nameserver ::1\n", 99)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseResolvConf(strings.NewReader(text), "f")
		if len(got) > maxServers || err != nil && got != nil {
			t.Fatalf("%v, %v", got, err)
		}
		for _, a := range got {
			if again, err := parseServer(a.String()); err != nil || again != a {
				t.Fatalf("%v read again: %v, %v", a, again, err)
			}
		}
	})
}

func TestPublicResolver(t *testing.T) {
	for addr, want := range map[string]string{
		"8.8.8.8": "Google", "2001:4860:4860::8844": "Google", "1.1.1.1": "Cloudflare", "1.0.0.2": "Cloudflare",
		"2606:4700:4700::1001": "Cloudflare", "9.9.9.9": "Quad9", "149.112.112.112": "Quad9", "2620:fe::fe": "Quad9",
		"208.67.222.222": "OpenDNS", "2620:119:53::53": "OpenDNS", "::ffff:8.8.4.4": "Google", "185.12.64.2": "Hetzner",
		"168.63.129.16": "Microsoft Azure", "127.0.0.1": "", "::1": "", "192.0.2.1": "", "8.8.8.9": "", "fe80::1%eth0": "",
	} {
		if got := PublicResolver(netip.MustParseAddr(addr)); got != want {
			t.Errorf("PublicResolver(%s) = %q; want %q", addr, got, want)
		}
	}
	for _, p := range publicNetworks {
		for n := range strings.FieldsSeq(p.networks) {
			if got := PublicResolver(netip.MustParsePrefix(n).Addr()); got != p.operator {
				t.Errorf("%s is of %q and %q", n, p.operator, got)
			}
		}
	}
}
