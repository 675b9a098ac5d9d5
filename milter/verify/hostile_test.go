package verify

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/internal/author"
	"github.com/postern-mail/postern/internal/dmarc"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// deadFor never answers questions about names below one domain.
type deadFor struct {
	Resolver
	domain string
}

func (d deadFor) LookupTXT(ctx context.Context, name string) ([]string, error) {
	if strings.HasSuffix(name, d.domain+".") {
		<-ctx.Done()
		return nil, &net.DNSError{Err: ctx.Err().Error(), Name: name, IsTimeout: true}
	}
	return d.Resolver.LookupTXT(ctx, name)
}

// A sender's own DNS that never answers must not use up the time in which the
// victim's policy is looked up, wherever the message asks for it.
func TestDeadDNSHidesNoPolicy(t *testing.T) {
	const zoneText = `_dmarc.reject.example. TXT "v=DMARC1; p=reject"
away.example. TXT "v=spf1 ip4:192.0.2.2 -all"
`
	tests := map[string]string{
		"key":        "DKIM-Signature: v=1; a=rsa-sha256; d=x.dead.example; s=s; h=from; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=QUJD\nFrom: <a@reject.example>\n",
		"author":     "From: <a@dead.example>, <a@reject.example>\n",
		"authors":    "From: <a@a.dead.example>, <a@b.dead.example>, <a@c.dead.example>, <a@d.dead.example>, <a@reject.example>\n",
		"two fields": "From: <a@dead.example>\nFrom: <a@sub.reject.example>\n",
		"seal": "ARC-Seal: i=1; cv=none; a=rsa-sha256; d=dead.example; s=s; b=QUJD\n" +
			"ARC-Message-Signature: i=1; a=rsa-sha256; d=dead.example; s=s; h=from; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=QUJD\n" +
			"ARC-Authentication-Results: i=1; mx.dead.example; dmarc=pass header.from=reject.example\nFrom: <a@reject.example>\n",
	}
	for name, header := range tests {
		for _, sender := range []string{"a@away.example", "a@dead.example"} {
			t.Run(name+" "+sender, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					began := time.Now()
					zone := resolvertest.NewZone(t, zoneText)
					m := New(Options{Resolver: deadFor{zone, "dead.example"}, Now: goldenNow}).Start(t.Context(), Envelope{
						Client: netip.MustParseAddr("192.0.2.2"), Helo: "mx.away.example", Sender: mailaddr.Parse(sender), MTA: goldenHost})
					defer m.Close()
					fields, _ := readMessage(t, header+"\n")
					m.Header(fields)
					r := m.Finish(t.Context())
					if v := r.Findings.DMARC.Verdict; v.Status != dmarc.Fail || !strings.HasSuffix(v.Domain, "reject.example") {
						t.Errorf("%s %s for %q: %v", v.Status, v.Reason, v.Domain, v.Err)
					}
					if !judge(r).marked {
						t.Errorf("not marked: %q", r.Fields)
					}
					if took := time.Since(began); took > DefaultDeadline {
						t.Errorf("took %v", took)
					}
				})
			})
		}
	}
}

// strangers verifies a message of strangers. Their own results count for nothing.
func strangers(t *testing.T, r Resolver, header string, options func(*DMARCOptions)) Result {
	t.Helper()
	o := Options{Resolver: r, Now: goldenNow}
	if options != nil {
		options(&o.DMARC)
	}
	m := New(o).Start(t.Context(), Envelope{
		Client: netip.MustParseAddr("192.0.2.2"), Helo: "mx.away.example", Sender: mailaddr.Parse("x@away.example"), MTA: goldenHost})
	defer m.Close()
	fields, body := readMessage(t, header+"Subject: x\n\nHi\n")
	m.Header(fields)
	m.Write(body)
	result := m.Finish(t.Context())
	checkFields(t, result)
	return result
}

// txt spells a TXT record of any length and content, cut into strings.
func txt(name, value string) string {
	const longest = 255
	var b strings.Builder
	b.WriteString(name + ". TXT")
	for piece := range slices.Chunk([]byte(value), longest) {
		b.WriteString(` "`)
		for _, c := range piece {
			fmt.Fprintf(&b, `\%03d`, c)
		}
		b.WriteString(`"`)
	}
	return b.String() + "\n"
}

// storm is many records that are not DMARC's.
func storm(name string, n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(txt(name, fmt.Sprintf("v=spf1 include:%d.storm.example -all", i)))
	}
	return b.String()
}

const hostileName = "_dmarc.hostile.example"

// Every record has a defined outcome, with the same few questions.
func TestHostileRecords(t *testing.T) {
	const (
		refuse  = "fail (p=reject dis=quarantine) header.from=hostile.example policy.dmarc=reject"
		broken  = "permerror (bad_record dis=none) header.from=hostile.example"
		reports = "fail (p=none dis=none) header.from=hostile.example policy.dmarc=\"none\""
		nothing = "none header.from=hostile.example"
		unknown = "temperror (DNS lookup failed) header.from=hostile.example"
	)
	tests := []struct {
		name, zone string
		fault      resolvertest.Fault
		want       string
		why        string
	}{
		{"10,000 octets, the policy first", txt(hostileName, "v=DMARC1; p=reject; rua=mailto:"+strings.Repeat("a", 9969)), "", refuse,
			"any length that DNS carries is read"},
		{"10,000 octets, the policy last", txt(hostileName, "v=DMARC1; x="+strings.Repeat("y", 9978)+"; p=reject"), "", refuse,
			"unknown tags are ignored, of any length"},
		{"10,000 octets of tags", txt(hostileName, "v=DMARC1; p=reject;"+strings.Repeat("x=y;", 2496)), "", refuse,
			"in any number"},
		{"10,000 octets of policies", txt(hostileName, "v=DMARC1;"+strings.Repeat("p=reject;", 1110)), "", broken,
			"a tag that is given twice says nothing"},
		{"cut within the policy", txt(hostileName, "v=DMARC1; x="+strings.Repeat("y", 255-len("v=DMARC1; x=; p=rej"))+"; p=reject"), "", refuse,
			"strings are joined without anything between them"},
		{"NUL in the policy", txt(hostileName, "v=DMARC1; p=rej\x00ect"), "", broken, "the value is not valid; nobody asks for reports"},
		{"NUL behind the policy", txt(hostileName, "v=DMARC1; p=reject\x00"), "", broken, "a NUL ends nothing"},
		{"NUL in the policy, with reports", txt(hostileName, "v=DMARC1; p=rej\x00ect; rua=mailto:a@hostile.example"), "", reports, "RFC 9989 section 4.10.1"},
		{"NUL in an unknown tag", txt(hostileName, "v=DMARC1; x\x00=\x00; p=reject"), "", refuse, "it breaks its own tag alone"},
		{"NUL behind the version", txt(hostileName, "v=DMARC1\x00; p=reject"), "", nothing, "another version"},
		{"8-bit in the policy", txt(hostileName, "v=DMARC1; p=r\xe9ject"), "", broken, "as with a NUL"},
		{"8-bit space before the policy", txt(hostileName, "v=DMARC1; p=\xa0reject"), "", broken, "white space is blank and tab"},
		{"8-bit elsewhere", txt(hostileName, "v=DMARC1; \xe9=\xff; p=reject; rua=mailto:\xfc@hostile.example"), "", refuse, "as with a NUL"},
		{"200 records, one of them DMARC's", storm(hostileName, 199) + txt(hostileName, "v=DMARC1; p=reject"), "", refuse, "the others are dropped"},
		{"200 records, two of them DMARC's", storm(hostileName, 198) + txt(hostileName, "v=DMARC1; p=reject") + txt(hostileName, "v=DMARC1; p=none"), "", nothing,
			"two are as good as none"},
		{"200 of DMARC's", strings.Join(slices.Collect(func(yield func(string) bool) {
			for i := range 200 {
				if !yield(txt(hostileName, fmt.Sprint("v=DMARC1; p=reject; x=", i))) {
					return
				}
			}
		}), ""), "", nothing, "likewise"},
		{"2,000 records", storm(hostileName, 1999) + txt(hostileName, "v=DMARC1; p=reject"), "", unknown, "an answer of that size is an error, and is never cut"},
		{"a chain of aliases", chainOf(8) + txt("8."+hostileName, "v=DMARC1; p=reject"), "", refuse, "the resolver follows it"},
		{"an alias to nothing", hostileName + ". CNAME nothing.example.\n", "", nothing, "no record"},
		{"an alias to itself", hostileName + ". CNAME " + hostileName + ".\n", "", unknown, "a circle is no answer"},
		{"aliases in a circle", "", resolvertest.CNAMELoop, unknown, "likewise"},
		{"aliases without end", "", resolvertest.CNAMEChase, unknown, "likewise"},
		{"more octets than announced", "", resolvertest.Garbage, unknown, "noise is no answer"},
		{"10,000 records announced", txt(hostileName, "v=DMARC1; p=reject"), resolvertest.Claims, unknown, "nor is one with less in it than it says"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			zone := resolvertest.NewZone(t, "example. SOA ns.example. h.example. 1 1 1 1 1\n"+test.zone)
			zone.Fail(hostileName, test.fault)
			zone.Fail("*."+hostileName, test.fault)
			r := strangers(t, zone, "From: <a@hostile.example>\n", nil)
			j := judge(r)
			if j.dmarc != test.want || j.marked != strings.Contains(test.want, "dis=quarantine") {
				t.Errorf("%s, marked %v; want %s: %s", j.dmarc, j.marked, test.want, test.why)
			}
			if n := r.Findings.DMARC.Queries; n > 2 {
				t.Errorf("%d questions", n)
			}
		})
	}
}

// chainOf leads from the record's name to another over aliases.
func chainOf(n int) string {
	var b strings.Builder
	name := hostileName
	for i := range n {
		next := fmt.Sprintf("%d.%s", i+1, hostileName)
		b.WriteString(name + ". CNAME " + next + ".\n")
		name = next
	}
	return b.String()
}

// fromZone has the domain that is spoofed and one of the attacker.
const fromZone = `_dmarc.reject.example. TXT "v=DMARC1; p=reject"
_dmarc.xn--rejct-dsa.example. TXT "v=DMARC1; p=reject"
_dmarc.none.example. TXT "v=DMARC1; p=none"
`

// Every From has a defined outcome.
func TestHostileFrom(t *testing.T) {
	const (
		spoofed  = "fail (p=reject dis=quarantine) header.from=reject.example policy.dmarc=reject"
		harmless = "fail (p=none dis=none) header.from=none.example policy.dmarc=\"none\""
		many     = "permerror (too_many_domains dis=quarantine)"
		unusable = "permerror (from_unusable dis=quarantine)"
	)
	const victim, own = "a@reject.example", "b@none.example"
	thousand := strings.Repeat(own+",", author.MaxAddresses-1)
	long := strings.Repeat("x.", 119) + "reject.example" // 252 octets: _dmarc does not fit before it
	tests := []struct{ name, header, want string }{
		{"1,000 addresses, the victim's last", "From: " + thousand + victim, spoofed},
		{"1,001 addresses, the victim's last", "From: " + thousand + own + "," + victim, many},
		{"1,001 addresses, the victim's first", "From: " + victim + "," + thousand + own, spoofed},
		{"1,001 addresses in two fields", "From: " + thousand + own + "\nFrom: " + victim, many},
		{"six domains, the victim's last", "From: a@a.example, a@b.example, a@c.example, a@d.example, a@e.example, " + victim, many},
		{"64 KiB, the victim's behind them", "From: " + strings.Repeat("x", author.MaxField) + " <" + victim + ">", many},
		{"64 KiB of blanks", "From:" + strings.Repeat(" ", author.MaxField) + victim, many},
		{"64 KiB in lines", "From:" + strings.Repeat(" \n ", author.MaxField/8) + victim, spoofed},
		{"64 KiB in another field", "From: " + strings.Repeat("x", author.MaxField) + "\nFrom: " + victim, many},
		{"encoded address", "From: =?utf-8?b?PGFAcmVqZWN0LmV4YW1wbGU+?= <" + own + ">", harmless},
		{"encoded address in a list", "From: =?utf-8?b?PGFAcmVqZWN0LmV4YW1wbGU+?=, <" + own + ">", spoofed},
		{"encoded address alone", "From: =?utf-8?q?a=40reject.example?=", spoofed},
		{"encoded at sign", "From: =?utf-8?q?a=40?=reject.example", spoofed},
		{"address in two encoded words", "From: =?utf-8?q?a=40rej?= =?utf-8?q?ect.example?=, " + own, spoofed},
		{"encoded in an unknown charset", "From: =?x-none?q?a=40reject.example?=, " + own, spoofed},
		{"empty group", "From: undisclosed-recipients:;", "none"},
		{"group", "From: us: " + own + ", " + victim + ";", spoofed},
		{"groups in a group", "From: a:b:" + victim + ";;", spoofed},
		{"group without an end", "From: us: " + victim, spoofed},
		{"end of no group", "From: " + victim + ";", spoofed},
		{"10,000 groups", "From: " + strings.Repeat("a:", 10_000) + victim + strings.Repeat(";", 10_000), many},
		{"comments in 10,000 comments", "From: " + strings.Repeat("(", 10_000) + own + strings.Repeat(")", 10_000) + victim, spoofed},
		{"10,000 comments without an end", "From: " + strings.Repeat("(", 10_000) + victim, spoofed},
		{"comment in the domain", "From: a@rej(x)ect.example", spoofed},
		{"comment in the domain, and a stray bracket", "From: <a@rej(x)ect.example>>", spoofed},
		{"space in the domain", "From: <a@rej ect.example>", spoofed},
		{"space in the domain, and a stray bracket", "From: <a@rej\n ect.example>>", spoofed},
		{"quotes in the domain", `From: a@rej"e"ct.example`, spoofed},
		{"quotes around the domain", `From: a@"reject.example"`, spoofed},
		{"escape in the domain", `From: <a@reject\.example>`, spoofed},
		{"escape and control character", "From: <a@\\r\x01eject.example>", spoofed},
		{"comment before the domain", "From: a@(x)reject.example", spoofed},
		{"route", "From: <@none.example:" + victim + ">", spoofed},
		{"route with the victim in it", "From: <@reject.example,@x.example:" + own + ">", spoofed},
		{"U-label", "From: a@rej\u00e9ct.example", "fail (p=reject dis=quarantine) header.from=xn--rejct-dsa.example policy.dmarc=reject"},
		{"full-width dot", "From: a@reject\uff0eexample", spoofed},
		{"soft hyphen", "From: a@re\u00adject.example", spoofed},
		{"8-bit that is no UTF-8", "From: a@rej\xe9ct.example", unusable},
		{"trailing dot", "From: " + victim + ".", spoofed},
		{"two trailing dots", "From: " + victim + "..", spoofed},
		{"quoted at sign", `From: "a@none.example"@reject.example`, spoofed},
		{"at sign in a quoted name", `From: "` + victim + `" <` + own + ">", harmless},
		{"two at signs", "From: a@none.example@reject.example", spoofed},
		{"NUL before the at sign", "From: a\x00@reject.example", spoofed},
		{"NUL in the domain", "From: a@rej\x00ect.example", spoofed},
		{"NUL behind another domain", "From: a@none.example\x00 <" + victim + ">", spoofed},
		{"NUL in the name of the field", "F\x00rom: " + victim + "\nFrom: " + own, spoofed},
		{"space in the name of the field", "From : " + victim, spoofed},
		{"lower case", "from: " + victim, spoofed},
		{"another beside it", "From: " + own + "\nfROM\t: " + victim, spoofed},
		{"no field", "Sender: " + victim, "permerror (from_missing dis=quarantine)"},
		{"empty field", "From:", "permerror (from_missing dis=quarantine)"},
		{"blank field beside it", "From: \nFrom: " + victim, spoofed},
		{"no address", "From: reject.example", "none"},
		{"literal", "From: a@[192.0.2.1]", "none"},
		{"300 labels", "From: a@" + strings.Repeat("x.", 298) + "reject.example", unusable},
		{"a label of 64", "From: a@" + strings.Repeat("x", 64) + ".reject.example", unusable},
		{"252 octets", "From: a@" + long, "fail (p=reject dis=quarantine) header.from=" + long + " policy.dmarc=reject"},
		{"300 labels beside a good address", "From: " + own + ", a@" + strings.Repeat("x.", 298) + "reject.example", unusable},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			zone := resolvertest.NewZone(t, fromZone)
			r := strangers(t, zone, test.header+"\n", nil)
			if j := judge(r); j.dmarc != test.want || j.marked != strings.Contains(test.want, "dis=quarantine") {
				t.Errorf("%s, marked %v; want %s (%+v)", j.dmarc, j.marked, test.want, r.Findings.Author)
			}
			if n, most := r.Findings.DMARC.Queries, (dmarc.MaxWalkQueries+1)*len(r.Findings.Author.Domains); n > most {
				t.Errorf("%d questions for %q", n, r.Findings.Author.Domains)
			}
		})
	}
}

// sets are n ARC sets of a server whose keys are nowhere, as its fields and then
// with tags of one set replaced.
func sets(n int, replace ...string) string {
	var b strings.Builder
	for i := n; i > 0; i-- {
		cv := "pass"
		if i == 1 {
			cv = "none"
		}
		fmt.Fprintf(&b, "ARC-Seal: i=%d; cv=%s; a=rsa-sha256; d=sealer.example; s=s; b=QUJD\n"+
			"ARC-Message-Signature: i=%[1]d; a=rsa-sha256; d=sealer.example; s=s; h=from; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=QUJD\n"+
			"ARC-Authentication-Results: i=%[1]d; mx.sealer.example; dmarc=pass header.from=reject.example\n", i, cv)
	}
	return strings.NewReplacer(replace...).Replace(b.String())
}

// No chain that a stranger can invent overrides a failure, even if its sealer is
// trusted, and none needs more than one question.
func TestHostileChains(t *testing.T) {
	const none = "arc=fail (ARC-Seal: i= is not a number from 1 to 50)"
	tests := []struct {
		name, header, want string
		questions          int
	}{
		{"no key", sets(2), "arc=fail (seal 2: no key)", 1},
		{"50 sets", sets(50), "arc=fail (seal 50: no key)", 1},
		{"51 sets", sets(51), none, 0},
		{"1,000 sets", sets(1000), none, 0},
		{"a set twice", sets(2) + sets(1), "arc=fail (ARC-Seal: instance 1 occurs twice)", 0},
		{"50 sets of one instance", strings.Repeat(sets(1), 50), "arc=fail (ARC-Seal: instance 1 occurs twice)", 0},
		{"two results", sets(1) + "ARC-Authentication-Results: i=1; mx.sealer.example\n", "arc=fail (ARC-Authentication-Results: instance 1 occurs twice)", 0},
		{"instance 0", sets(1, "i=1;", "i=0;"), none, 0},
		{"instance 99999999999", sets(1, "i=1;", "i=99999999999;"), none, 0},
		{"instance 2^64+1", sets(1, "i=1;", "i=18446744073709551617;"), none, 0},
		{"instance -1", sets(1, "i=1;", "i=-1;"), none, 0},
		{"instance 001", sets(1, "i=1;", "i=001;"), none, 0},
		{"no instance", sets(1, "i=1;", ""), none, 0},
		{"a gap", sets(3, "i=2;", "i=4;"), "arc=fail (instance 2 is missing)", 0},
		{"a seal alone", "ARC-Seal: i=1; cv=none; a=rsa-sha256; d=sealer.example; s=s; b=QUJD\n", "arc=fail (set 1 is incomplete)", 0},
		{"50,000 names in h=", sets(1, "h=from", "h=from"+strings.Repeat(":x", 50_000)), "arc=fail (ARC-Message-Signature: too many names in h=)", 0},
		{"seals in h=", sets(1, "h=from", "h=from:arc-seal"), "arc=fail (ARC-Message-Signature: h= must not name ARC-Seal)", 0},
		{"cv=fail", sets(2, "cv=pass", "cv=fail"), "arc=fail (seal 2 has a cv= other than pass)", 0},
		{"cv=none twice", sets(2, "cv=pass", "cv=none"), "arc=fail (seal 2 has a cv= other than pass)", 0},
		{"cv=pass first", sets(2, "cv=none", "cv=pass"), "arc=fail (seal 1 has a cv= other than none)", 0},
		{"cv= twice", sets(1, "cv=none", "cv=none; cv=pass"), "arc=fail", 0},
		{"no cv=", sets(1, "cv=none;", ""), "arc=fail (seal 1 has a cv= other than none)", 0},
		{"keys in a circle", sets(2, "d=sealer.example", "d=circle.example"), "arc=fail (DNS lookup failed)", 1},
		{"keys along aliases without end", sets(2, "d=sealer.example", "d=chase.example"), "arc=fail (DNS lookup failed)", 1},
		{"NUL in d=", sets(1, "d=sealer.example", "d=sealer.example\x00.evil.example"), "arc=fail", 0},
		{"results in 10,000 comments", sets(1, "mx.sealer", strings.Repeat("(", 10_000)+strings.Repeat(")", 10_000)+"mx.sealer"), "arc=fail (seal 1: no key)", 1},
		{"results in a comment without an end", sets(1, "mx.sealer", strings.Repeat("(", 10_000)+"mx.sealer"), "arc=fail (ARC-Authentication-Results: comment without an end)", 0},
	}
	trusting := lists(t, func(*DMARCOptions) {}, "", "", "sealer.example\ncircle.example\nchase.example\nevil.example\n")
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			zone := resolvertest.NewZone(t, fromZone)
			zone.Fail("s._domainkey.circle.example", resolvertest.CNAMELoop)
			zone.Fail("*.chase.example", resolvertest.CNAMEChase)
			r := strangers(t, zone, test.header+"From: <a@reject.example>\n", trusting)
			ours := foldsIn.ReplaceAllString(r.Fields[0].Value, " ")
			if !strings.Contains(ours, "; "+test.want) || !judge(r).marked || r.Findings.Evidence.Sealer != "" {
				t.Errorf("marked %v, vouched for by %q, want %s: %s", judge(r).marked, r.Findings.Evidence.Sealer, test.want, ours)
			}
			asked := map[string]bool{}
			for _, q := range zone.Queries() {
				if strings.HasPrefix(q.Name, "s._domainkey.") {
					asked[q.Name] = true
				}
			}
			if len(asked) != test.questions {
				t.Errorf("keys asked for: %v, want %d", asked, test.questions)
			}
		})
	}
}

// maxGrowth is how much more work four times the input may be: four times, and
// something for what grows in steps.
const maxGrowth = 6

// TestWorkIsLinear counts what verifying a header costs, and that of four times the
// length. What is cut off by a bound costs less.
func TestWorkIsLinear(t *testing.T) {
	repeat := func(piece, end string) func(n int) string {
		return func(n int) string { return "From: " + strings.Repeat(piece, n) + end + "\n" }
	}
	const victim = "a@reject.example"
	ours := "Authentication-Results: " + goldenHost
	tests := []struct {
		name   string
		n      int
		header func(n int) string
	}{
		{"addresses", 250, repeat("b@none.example,", victim)},
		{"fields", 250, func(n int) string { return strings.Repeat("From: b@none.example\n", n) }},
		{"domains", 1000, func(n int) string {
			var b strings.Builder
			for i := range n {
				fmt.Fprintf(&b, "From: b@%d.example\n", i)
			}
			return b.String()
		}},
		{"labels", 4000, repeat("a@x.", victim)},
		{"U-labels", 4000, repeat("a@\u00e4.", victim)},
		{"comments", 4000, repeat("()", victim)},
		{"nested comments", 4000, func(n int) string { return "From: " + strings.Repeat("(", n) + strings.Repeat(")", n) + victim + "\n" }},
		{"comments without an end", 4000, repeat("(", victim)},
		{"closed comments before one without an end", 2000, repeat("(x)@(", victim)},
		{"quotes", 4000, repeat(`"a"`, victim)},
		{"quotes without an end", 4000, repeat(`"a`, victim+`"`)},
		{"escapes", 4000, repeat(`\\`, victim)},
		{"brackets", 4000, repeat("<", victim)},
		{"groups", 200, repeat("a:", victim)},
		{"routes", 1000, repeat("<@a.example,", ":"+victim+">")},
		{"at signs", 4000, repeat("@", victim)},
		{"control characters", 4000, repeat("@a\x01", victim)},
		{"space in brackets", 4000, repeat("<a@ ", victim+">")},
		{"encoded words", 1000, repeat("=?utf-8?q?x?= ", "@"+victim)},
		{"encoded words without an end", 1000, repeat("=?utf-8?b? ", victim+"?=")},
		{"lines", 2000, repeat("\n ", victim)},
		{"ARC sets", 12, func(n int) string { return sets(n) + "From: " + victim + "\n" }},
		{"ARC sets beyond the bound", 100, func(n int) string { return sets(n) + "From: " + victim + "\n" }},
		{"names in h=", 15, func(n int) string {
			return sets(1, "h=from", "h=from"+strings.Repeat(":x", n)) + "From: " + victim + "\n"
		}},
		{"ARC results", 500, func(n int) string {
			return sets(1, "mx.sealer.example;", "mx.sealer.example;"+strings.Repeat("a=b c.d=e;", n)) + "From: " + victim + "\n"
		}},
		{"signatures", 100, func(n int) string {
			return strings.Repeat("DKIM-Signature: v=1; a=rsa-sha256; d=none.example; s=s; h=from; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=QUJD\n", n) + "From: " + victim + "\n"
		}},
		{"results that claim to be ours", MaxRemoved / 4, func(n int) string { return strings.Repeat(ours+"; dkim=pass\n", n) + "From: " + victim + "\n" }},
		{"results in comments", 4000, func(n int) string { return ours[:24] + strings.Repeat("(", n) + "x\nFrom: " + victim + "\n" }},
		{"marks", MaxRemoved / 4, func(n int) string {
			return strings.Repeat("X-Postern-Quarantine: dmarc\n", n) + "From: " + victim + "\n"
		}},
	}
	zone := resolvertest.NewZone(t, fromZone)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			small, large := workOf(t, zone, test.header(test.n)), workOf(t, zone, test.header(4*test.n))
			if large.allocs > maxGrowth*small.allocs || large.octets > maxGrowth*small.octets || large.questions > maxGrowth*small.questions {
				t.Errorf("%d: %+v, %d: %+v", test.n, small, 4*test.n, large)
			}
		})
	}
}

// work is what a message costs.
type work struct{ allocs, octets, questions float64 }

func workOf(t *testing.T, zone *resolvertest.Zone, header string) work {
	t.Helper()
	fields, _ := readMessage(t, header+"\n")
	v := New(Options{Resolver: zone, Now: goldenNow})
	run := func() {
		m := v.Start(t.Context(), Envelope{Client: netip.MustParseAddr("192.0.2.2"), Helo: "mx.away.example", Sender: mailaddr.Parse("x@away.example"), MTA: goldenHost})
		defer m.Close()
		m.Header(fields)
		m.Finish(t.Context())
	}
	const runs = 3
	zone.ResetLog()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	w := work{allocs: testing.AllocsPerRun(runs, run)}
	runtime.ReadMemStats(&after)
	w.octets = float64(after.TotalAlloc - before.TotalAlloc)
	w.questions = float64(zone.Total())
	return w
}
