package spf

import (
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// publishedRecords seed the fuzzers: each golden record.
func publishedRecords(f *testing.F) []string {
	files, err := filepath.Glob("testdata/golden/*.txt")
	if err != nil || len(files) == 0 {
		f.Fatal("no golden files", err)
	}
	var out []string
	for _, file := range files {
		z, _ := readGolden(f, file)
		out = append(out, z.Values("TXT")...)
	}
	slices.Sort(out)
	return out
}

// FuzzParseRecord: a record that parses holds what it was parsed from.
func FuzzParseRecord(f *testing.F) {
	for _, r := range publishedRecords(f) {
		f.Add(r)
	}
	f.Add("v=spf1 " + strings.Repeat("%{", 200) + strings.Repeat("a/0//0 ", 200))
	f.Fuzz(func(t *testing.T, text string) {
		selected, err := selectRecord([]string{"x", text, ""})
		if err != nil {
			return
		}
		rec, err := parseRecord(selected)
		if err != nil {
			return
		}
		var terms []string
		for i := range rec.directives {
			d := &rec.directives[i]
			checkDirective(t, d)
			terms = append(terms, d.text)
		}
		again, err := parseRecord(version + " " + strings.Join(terms, " "))
		if err != nil {
			t.Fatalf("the terms alone do not parse: %v", err)
		}
		if len(again.directives) != len(rec.directives) || len(rec.directives) > 0 && !reflect.DeepEqual(again.directives, rec.directives) {
			t.Fatalf("parsed again: %+v, first: %+v", again.directives, rec.directives)
		}
	})
}

func checkDirective(t *testing.T, d *directive) {
	if d.text == "" || strings.ContainsAny(d.text, " \t\r\n") || !isASCII(d.text) {
		t.Fatalf("term %q", d.text)
	}
	if (d.kind == KindIP4 || d.kind == KindIP6) != d.network.IsValid() {
		t.Fatalf("%s with network %v", d.text, d.network)
	}
	if d.kind == KindIP4 != d.network.Addr().Is4() {
		t.Fatalf("%s with network %v", d.text, d.network)
	}
	if d.bits4 < 0 || d.bits4 > 32 || d.bits6 < 0 || d.bits6 > 128 {
		t.Fatalf("%s with /%d//%d", d.text, d.bits4, d.bits6)
	}
}

// FuzzExpand compares the expansion from the right with the plain one from
// the left, cut afterwards as RFC 7208 section 7.3 says.
func FuzzExpand(f *testing.F) {
	f.Add("%{ir}.%{v}._spf.%{d2}", "strong-bad", "email.example.com", "mx.example", uint32(0xc0000203))
	f.Add("%{l1r-}.%{o}.%{o}.%{o}.%{o}.%{o}.%{o}.%{o}.%{o}.%{o}.%{o}.%{o}.%{o}.%{o}.example.", "a-b", "some.long.example.com", "h", uint32(1))
	f.Add("%%%_%-%{H}.%{S}%{c}", "a@b", "x", "%{h}\x00", uint32(2))
	f.Add(strings.Repeat("a", 300), "", "", "", uint32(0))
	f.Add(strings.Repeat(".", 252)+"%{d}.", "", "a.b", "", uint32(0))
	f.Fuzz(func(t *testing.T, spec, local, domain, helo string, ip uint32) {
		m, err := parseMacros(spec, inUnknown)
		if err != nil {
			return
		}
		c := newCheck(newZone(), Args{
			IP: netip.AddrFrom4([4]byte{byte(ip >> 24), byte(ip >> 16), byte(ip >> 8), byte(ip)}), Helo: helo, Now: time.Unix(int64(ip), 0),
		}, Sender{local, domain})
		c.domain = domain
		got, ok := c.expandName(t.Context(), m)
		if len(got) > maxName {
			t.Fatalf("%d bytes", len(got))
		}
		c.work = 0
		want, whole := plainExpansion(t, c, m)
		if !whole {
			return // a value that cannot be used; from the right it may lie beyond the cut
		}
		if !ok || got != cutPlainly(want) {
			t.Fatalf("%q of %q, want %q", got, spec, cutPlainly(want))
		}
	})
}

func plainExpansion(t *testing.T, c *check, m *macroString) (string, bool) {
	if m.tokens == nil {
		return m.source, true
	}
	var b strings.Builder
	for _, tok := range m.tokens {
		value, ok := c.expandToken(t.Context(), tok)
		if !ok {
			return "", false
		}
		b.WriteString(value)
	}
	return b.String(), true
}

// cutPlainly removes labels from the left, one by one.
func cutPlainly(name string) string {
	name = strings.TrimSuffix(name, ".")
	for len(name) > maxName {
		_, rest, ok := strings.Cut(name, ".")
		if !ok {
			return ""
		}
		name = rest
	}
	return name
}

// FuzzCheck runs whole checks on a zone of lines "name TYPE data".
func FuzzCheck(f *testing.F) {
	f.Add("d.example TXT v=spf1 a mx ptr include:i.example exists:%{i}.x redirect=r.example\nd.example MX 1 m.example\nm.example A 192.0.2.9\ni.example SERVFAIL\nr.example TXT v=spf1 -all exp=e.example\ne.example TXT %{p} %{s}",
		[]byte{192, 0, 2, 1}, "mx.client.example", "alice", "d.example")
	f.Add("d.example CNAME d.example\nd.example TXT v=spf1 redirect=%{h}", []byte("0123456789abcdef"), "d.example", "", "")
	f.Add("d.example TXT v=spf1 include:d.example include:%{l} -all\n1.2.0.192.in-addr.arpa PTR d.example", []byte{192, 0, 2, 1}, "[x]", "\u00e9", "D.EXAMPLE.")
	for _, r := range publishedRecords(f) {
		f.Add("d.example TXT "+r+"\nd.example A 192.0.2.1\nd.example MX 1 d.example\n1.2.0.192.in-addr.arpa PTR d.example",
			[]byte{192, 0, 2, 1}, "h.example", "a-b+c", "d.example")
	}
	f.Fuzz(func(t *testing.T, zoneText string, ip []byte, helo, local, domain string) {
		addr, ok := netip.AddrFromSlice(ip)
		if !ok {
			return
		}
		z := fuzzZone(zoneText)
		args := Args{IP: addr, Helo: helo, Sender: Sender{local, domain}}
		got := CheckMailFrom(t.Context(), z, args)
		assertSound(t, got.Result)
		fieldKeys(t, got.ReceivedSPF(args))
		again := CheckMailFrom(t.Context(), z, args)
		again.Err, got.Err = nil, nil
		if !reflect.DeepEqual(again, got) {
			t.Fatalf("%+v, then %+v", got, again)
		}
		assertSound(t, CheckHelo(t.Context(), z, args).Result)
	})
}

func assertSound(t *testing.T, r Result) {
	broken := r.Status == None || r.Status == TempError || r.Status == PermError
	switch {
	case r.Queries > maxQueries || r.Lookups > MaxLookups || r.Voids > DefaultMaxVoids+1:
		t.Fatalf("over the limits: %+v", r)
	case broken != (r.Err != nil) || broken && r.Mechanism != "":
		t.Fatalf("%s, %q, error %v", r.Status, r.Mechanism, r.Err)
	case (r.Mechanism != "") != (len(r.Path) > 0) || (r.Mechanism != "") != (r.Kind != ""):
		t.Fatalf("mechanism without path: %+v", r)
	case len(r.Explanation) > maxExplanation || strings.ContainsFunc(r.Explanation, func(c rune) bool { return c < ' ' || c > '~' }):
		t.Fatalf("explanation %q", r.Explanation)
	case r.Kind == KindInclude:
		t.Fatal("an include is never the last word")
	}
}

// fuzzZone makes a zone of whatever lines can be records.
func fuzzZone(text string) *zone {
	z := newZone()
	for line := range strings.SplitSeq(text, "\n") {
		name, rest, _ := strings.Cut(line, " ")
		qtype, data, _ := strings.Cut(rest, " ")
		addr, err := netip.ParseAddr(data)
		switch {
		case qtype == "A" && (err != nil || !addr.Is4()), qtype == "AAAA" && (err != nil || !addr.Is6()):
		case qtype == "MX" && (len(data) < 2 || data[0] < '0' || data[0] > '9' || data[1] != ' '):
		default:
			z.Add(name, qtype, data)
		}
	}
	return z
}
