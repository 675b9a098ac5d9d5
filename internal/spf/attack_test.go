package spf

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// maxQueries is the most that one check may ask: the record; ten terms, each
// one query and ten names; the client's PTR names and their addresses, once;
// the explanation.
const maxQueries = 1 + MaxLookups*(1+MaxNames) + 1 + MaxNames + 1

// flood returns n numbered records of one type at name. Each points to a host that
// is named by pattern.
func flood(z *zone, n int, name, qtype, pattern string) {
	for i := range n {
		z.Add(name, qtype, fmt.Sprintf(pattern, i))
	}
}

// includeTree is a zone where each record includes ten others, deeper than
// any check may go: without a limit 10^12 queries.
func includeTree() *zone {
	z := newZone()
	for depth := range 12 {
		var b strings.Builder
		b.WriteString("v=spf1")
		for i := range 10 {
			fmt.Fprintf(&b, " include:%%{d1r}.%d.d%d.example", i, depth+1)
		}
		for i := range 10 {
			z.Add(fmt.Sprintf("d%d.%d.d%d.example", depth-1, i, depth), "TXT", b.String())
			z.Add(fmt.Sprintf("x.%d.d%d.example", i, depth), "TXT", strings.ReplaceAll(b.String(), "%{d1r}", "x"))
		}
	}
	return z
}

// attackZones are hostile publications, each at attack.example.
func attackZones() map[string]*zone {
	tree := includeTree()
	tree.Add("attack.example", "TXT", "v=spf1 include:x.0.d1.example include:x.1.d1.example -all")

	mx := newZone()
	mx.Add("attack.example", "TXT", "v=spf1"+strings.Repeat(" mx:m.example", 10)+" -all")
	flood(mx, 10, "m.example", "MX", "1 h%d.example.")
	for i := range 10 {
		flood(mx, 200, fmt.Sprintf("h%d.example", i), "A", "203.0.113.%d")
	}

	mxes := newZone()
	mxes.Add("attack.example", "TXT", "v=spf1 mx -all")
	flood(mxes, 5000, "attack.example", "MX", "1 h%d.example.")

	void := newZone()
	void.Add("attack.example", "TXT", "v=spf1"+strings.Repeat(" exists:%{l}.gone.example", 600)+" -all")

	ptr := newZone()
	ptr.Add("attack.example", "TXT", "v=spf1"+strings.Repeat(" ptr", 9)+" exists:%{p}.%{p}.%{p}.example -all exp=why.example")
	ptr.Add("why.example", "TXT", strings.Repeat("%{p}", 1000))
	flood(ptr, 3000, "1.2.0.192.in-addr.arpa", "PTR", "h%d.attack.example.")

	long := newZone()
	long.Add("attack.example", "TXT", "v=spf1 "+strings.Repeat("ip4:192.0.2.2 ", 100_000))
	many := newZone()
	flood(many, 20_000, "attack.example", "TXT", "v=spf1 ip4:192.0.2.2 exp=%d.example")

	bomb := newZone()
	bomb.Add("attack.example", "TXT", macroBomb(maxRecord))
	bomb.Add("why.example", "TXT", strings.Repeat("%{s1r-.+}", maxRecord/9))

	return map[string]*zone{"include tree": tree, "mx flood": mx, "5000 mx": mxes, "void flood": void,
		"ptr flood": ptr, "long record": long, "20000 records": many, "macro bomb": bomb}
}

// macroBomb is a record of about n bytes, one term of it as many macros as fit,
// whose values are empty, so that no length limit ends the expansion early.
func macroBomb(n int) string {
	const head, tail = "v=spf1 a:", " -all exp=why.example"
	return head + strings.Repeat("%{l1r-.+}", (n-len(head)-len(tail))/9) + tail
}

// bombArgs is a client whose local part makes each macro of the bomb split a
// kilobyte into empty parts.
func bombArgs() Args {
	args := argsFor("192.0.2.1", "a@attack.example")
	args.Sender.Local = strings.Repeat(".", maxMacroValue)
	return args
}

func TestAttacksAreBounded(t *testing.T) {
	// The client's PTR names never cause an error.
	want := map[string]Status{"include tree": PermError, "mx flood": Fail, "5000 mx": PermError, "void flood": PermError,
		"ptr flood": Fail, "long record": PermError, "20000 records": PermError, "macro bomb": PermError}
	most := map[string]int{"include tree": 11, "mx flood": 111, "5000 mx": 2, "void flood": 4,
		"ptr flood": 23, "long record": 1, "20000 records": 1, "macro bomb": 1}
	for name, z := range attackZones() {
		t.Run(name, func(t *testing.T) {
			got := CheckMailFrom(t.Context(), z, bombArgs())
			if got.Status != want[name] {
				t.Errorf("status %s, want %s (%v)", got.Status, want[name], got.Err)
			}
			if got.Queries > most[name] || got.Queries != len(z.Asked()) {
				t.Errorf("%d queries (%d seen), want at most %d", got.Queries, len(z.Asked()), most[name])
			}
		})
	}
}

// TestLimitsOfOneCheck combines the most expensive records of each kind.
func TestLimitsOfOneCheck(t *testing.T) {
	z := newZone()
	z.Add("attack.example", "TXT", "v=spf1"+strings.Repeat(" mx:%{p}.m.example", 10)+" -all exp=why.example")
	z.Add("why.example", "TXT", "no")
	flood(z, 50, "1.2.0.192.in-addr.arpa", "PTR", "h%d.attack.example.")
	flood(z, 10, "unknown.m.example", "MX", "1 h%d.example.")
	z.Add("h9.example", "A", "203.0.113.9")
	got := CheckMailFrom(t.Context(), z, bombArgs())
	if got.Status != Fail || got.Queries != maxQueries {
		t.Errorf("%s after %d queries, want fail after %d", got.Status, got.Queries, maxQueries)
	}
}

func TestExpansionLength(t *testing.T) {
	z := newZone()
	z.Add("d.example", "TXT", "v=spf1 -all exp=why.example")
	z.Add("why.example", "TXT", strings.Repeat("%{o}", 113)+"1234567")
	args := argsFor("192.0.2.1", "a@d.example")
	if got := CheckMailFrom(t.Context(), z, args); len(got.Explanation) != maxExplanation {
		t.Errorf("%d bytes", len(got.Explanation))
	}
	z.Remove("why.example")
	z.Add("why.example", "TXT", strings.Repeat("%{o}", 113)+"12345678")
	if got := CheckMailFrom(t.Context(), z, args); got.Explanation != "" {
		t.Errorf("%d bytes, want none past the limit", len(got.Explanation))
	}
	z.Remove("why.example")
	z.Add("why.example", "TXT", strings.Repeat("x", maxExplanation+1))
	if got := CheckMailFrom(t.Context(), z, args); got.Explanation != "" {
		t.Errorf("%d literal bytes, want none past the limit", len(got.Explanation))
	}
}

func TestLongMacroValueDoesNotMatch(t *testing.T) {
	z := zoneOf("d.example TXT v=spf1 exists:%{l1}.d.example -all", "x.d.example A 127.0.0.2")
	args := argsFor("192.0.2.1", "a@d.example")
	args.Sender.Local = strings.Repeat("a.", maxMacroValue/2-1) + ".x"
	if got := CheckMailFrom(t.Context(), z, args); got.Status != Pass {
		t.Errorf("%s for %d bytes", got.Status, len(args.Sender.Local))
	}
	args.Sender.Local = "a" + args.Sender.Local
	if got := CheckMailFrom(t.Context(), z, args); got.Status != Fail || got.Lookups != 1 || got.Queries != 1 {
		t.Errorf("%+v for %d bytes", got, len(args.Sender.Local))
	}
}

// BenchmarkMacroBomb shows that the cost of the worst record grows no faster
// than its length: ns/byte falls once the check's macro work is used up.
func BenchmarkMacroBomb(b *testing.B) {
	for _, size := range []int{256, 512, 1 << 10, 4 << 10, maxRecord} {
		z := newZone()
		z.Add("attack.example", "TXT", macroBomb(size))
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				CheckMailFrom(context.Background(), z, bombArgs())
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(size), "ns/byte")
		})
	}
}

// BenchmarkAttacks measures the cost of each hostile publication.
func BenchmarkAttacks(b *testing.B) {
	for name, z := range attackZones() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				CheckMailFrom(context.Background(), z, bombArgs())
			}
		})
	}
}

// BenchmarkPass measures a usual pass with DNS from memory: two includes, the match
// in the second.
func BenchmarkPass(b *testing.B) {
	z := zoneOf("d.example TXT v=spf1 mx include:_spf.one.example include:_spf.two.example ~all",
		"d.example MX 10 mx1.d.example.", "mx1.d.example A 203.0.113.7",
		"_spf.one.example TXT v=spf1 ip4:198.51.100.0/24 ip4:203.0.113.64/26 ip6:2001:db8:1::/48 ~all",
		"_spf.two.example TXT v=spf1 ip4:192.0.2.0/25 ip4:192.0.2.128/25 ip6:2001:db8:2::/48 ~all")
	args := argsFor("192.0.2.200", "alice@d.example")
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if CheckMailFrom(ctx, z, args).Status != Pass {
			b.Fatal("no pass")
		}
	}
}

// BenchmarkPassDirect measures the cheapest pass: one record, no further names. The
// resolver only returns stored values, so that its cost does not count.
func BenchmarkPassDirect(b *testing.B) {
	r := held{txt: []string{"v=spf1 ip4:198.51.100.0/24 ip4:192.0.2.0/24 -all"}}
	args := argsFor("192.0.2.200", "alice@d.example")
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if CheckMailFrom(ctx, &r, args).Status != Pass {
			b.Fatal("no pass")
		}
	}
}

type held struct {
	*zone
	txt []string
}

func (h *held) LookupTXT(context.Context, string) ([]string, error) { return h.txt, nil }

func (h *held) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) { return nil, nil }

// silentReverse is a resolver that never answers for the reverse zone of the
// client.
type silentReverse struct{ *zone }

func (s silentReverse) LookupAddr(ctx context.Context, _ string) ([]string, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// A client whose reverse zone is silent still gets its fail.
func TestSilentReverseZone(t *testing.T) {
	for _, record := range []string{"v=spf1 ptr -all", "v=spf1 ptr ptr:a.example exists:%{p}.gone.example -all"} {
		synctest.Test(t, func(t *testing.T) {
			z := newZone()
			z.Add("legit.example", "TXT", record)
			const limit = 8 * time.Second
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			began := time.Now()
			r := CheckMailFrom(ctx, silentReverse{z}, Args{IP: netip.MustParseAddr("192.0.2.1"), Helo: "mx.attack.example",
				Sender: Sender{Local: "a", Domain: "legit.example"}, Receiver: "mail.home.example"})
			if took := time.Since(began); r.Status != Fail || took != limit/2 {
				t.Errorf("%s: %s after %v: %v", record, r.Status, took, r.Err)
			}
		})
	}
}
