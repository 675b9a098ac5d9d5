package resolver

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

func TestCanonical(t *testing.T) {
	label := strings.Repeat("a", 63)
	longest := label + "." + label + "." + label + "." + strings.Repeat("b", 61)
	for _, c := range []struct{ name, want string }{
		{"example.org", "example.org"},
		{"example.org.", "example.org"},
		{"eXample.ORG", "example.org"},
		{".", ""},
		{"with space.and%percent.example", "with space.and%percent.example"},
		{"\xc3\x84\xff\x00.example", "\xc3\x84\xff\x00.example"},
		{`back\slash.example`, `back\slash.example`},
		{label + ".example", label + ".example"},
		{longest, longest},
		{longest + ".", longest},
	} {
		if got, err := canonical(c.name); got != c.want || err != nil {
			t.Errorf("canonical(%q) = %q, %v; want %q", c.name, got, err, c.want)
		}
	}
	for _, name := range []string{"", "..", ".example", "a..b", "a.b..", label + "a.example", longest + "b", strings.Repeat("a.", 500)} {
		if got, err := canonical(name); !errors.Is(err, ErrBadName) {
			t.Errorf("canonical(%q) = %q, %v; want ErrBadName", name, got, err)
		}
	}
}

func TestReverseName(t *testing.T) {
	for _, c := range []struct{ addr, want string }{
		{"192.0.2.7", "7.2.0.192.in-addr.arpa."},
		{"::ffff:192.0.2.7", "7.2.0.192.in-addr.arpa."},
		{"2001:db8::1f", "f.1.0.0." + strings.Repeat("0.", 20) + "8.b.d.0.1.0.0.2.ip6.arpa."},
	} {
		if got := reverseName(netip.MustParseAddr(c.addr)); got != c.want {
			t.Errorf("reverseName(%s) = %s; want %s", c.addr, got, c.want)
		}
	}
}

func TestIsHostname(t *testing.T) {
	for name, want := range map[string]bool{
		"mx1.Example-host.org.": true, "_x.example.": true, ".": true,
		"a b.": false, "a\r\nb.": false, "a(b).": false, "\xe4.": false,
	} {
		if isHostname(name) != want {
			t.Errorf("isHostname(%q) = %v", name, !want)
		}
	}
}

// A name that canonical accepts must fit into a packet and be the same when it is
// read back.
func FuzzQuery(f *testing.F) {
	for _, name := range []string{"example.org", ".", "a b.%x", "\x00.\xff", strings.Repeat("a.", 126), strings.Repeat("x", 64)} {
		f.Add(name, uint16(7), true)
	}
	f.Fuzz(func(t *testing.T, name string, id uint16, edns bool) {
		asked, err := canonical(name)
		if err != nil {
			return
		}
		if again, err := canonical(asked + "."); err != nil || again != asked {
			t.Fatalf("canonical(%q) = %q, %v", asked, again, err)
		}
		q := question{asked, TypeTXT}
		packet, err := q.pack(make([]byte, querySize), id, edns)
		if err != nil || len(packet) > querySize {
			t.Fatalf("%d bytes, %v", len(packet), err)
		}
		var p dnsmessage.Parser
		h, err := p.Start(packet)
		if err != nil || h.ID != id || !h.RecursionDesired || !h.AuthenticData {
			t.Fatalf("header %+v, %v", h, err)
		}
		got, err := p.Question()
		if err != nil || string(got.Name.Data[:got.Name.Length-1]) != asked {
			t.Fatalf("%q came back as %q, %v", asked, got.Name.String(), err)
		}
		echo := slices.Clone(packet)
		echo[2] |= 0x80
		if _, err := decode(echo, packet, q); err != nil {
			t.Fatalf("an echo is no answer: %v", err)
		}
	})
}

// Callers never see escapes of presentation form: names and texts are raw bytes.
func TestEscapes(t *testing.T) {
	for _, c := range []struct {
		presented, raw string
		dotted         bool
	}{
		{"example.org.", "example.org.", false}, {".", ".", false}, {`a\\b.`, `a\b.`, false}, {`\255\000x.`, "\xff\x00x.", false},
		{`a\.b.org.`, "a.b.org.", true}, {`a\046b.`, "a.b.", true}, {`a\\.b.`, `a\.b.`, false}, {`\(\"\ .`, `(" .`, false},
		{`x\`, `x\`, false}, {`\12`, "12", false},
	} {
		if raw, dotted := unescape(c.presented); raw != c.raw || dotted != c.dotted {
			t.Errorf("unescape(%q) = %q, %v", c.presented, raw, dotted)
		}
	}
	if name, ok := canonicalOf(`A\\B.Org.`); name != `a\b.org` || !ok {
		t.Errorf("%q, %v", name, ok)
	}
}
