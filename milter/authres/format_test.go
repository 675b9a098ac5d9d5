package authres

import (
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	oracle "github.com/emersion/go-msgauth/authres"
)

func TestFormat(t *testing.T) {
	tests := []struct {
		name    string
		results []Result
		want    string
	}{
		{"nothing ran", nil, `mx.example.org; none`},
		{"all methods", []Result{
			SPF{Value: Pass, MailFrom: "bounce@news.example", Text: Text{Comment: "ip4:192.0.2.0/24 of news.example"}},
			SPF{Value: None, Helo: "mx.news.example"},
			DKIM{Value: Pass, Domain: "news.example", Identity: "@news.example", Selector: "2026a", Algorithm: "rsa-sha256", Signature: "AbC/9+xY"},
			DKIM{Value: Fail, Domain: "x.example", Selector: "s", Text: Text{Reason: "body hash does not match"}},
			DMARC{Value: Pass, From: "news.example", Policy: "reject"},
			IPRev{Value: Fail, IP: "2001:db8::1"},
			ARC{Value: Pass, RemoteIP: "192.0.2.1", OldestPass: "0"},
		}, `mx.example.org;
	spf=pass (ip4:192.0.2.0/24 of news.example)
	smtp.mailfrom=news.example;
	spf=none smtp.helo=mx.news.example;
	dkim=pass header.d=news.example header.i=@news.example header.s=2026a
	header.a=rsa-sha256 header.b="AbC/9+xY";
	dkim=fail reason="body hash does not match" header.d=x.example
	header.s=s;
	dmarc=pass header.from=news.example policy.dmarc=reject;
	iprev=fail policy.iprev="2001:db8::1";
	arc=pass smtp.remote-ip=192.0.2.1 header.oldest-pass=0`},
		{"long texts fold", []Result{DMARC{Value: Fail, From: "bank.example", Text: Text{
			Comment: "neither a signature nor the envelope sender is aligned with the author's domain",
			Reason:  "the policy of the organisational domain asks for rejection of such messages"}}}, `mx.example.org;
	dmarc=fail (neither a signature nor the envelope sender is aligned
 with the author's domain) reason="the policy of the organisational domain
 asks for rejection of such messages" header.from=bank.example`},
		{"not registered", []Result{SPF{Value: "hardfail"}, IPRev{Value: Policy}, ARC{Value: TempError}, DMARC{Value: SoftFail}, DKIM{}},
			"mx.example.org;\n\tspf=permerror;\n\tiprev=permerror;\n\tarc=fail;\n\tdmarc=permerror;\n\tdkim=permerror"},
		{"policy not a policy", []Result{DMARC{Value: Pass, Policy: "pass"}}, "mx.example.org;\n\tdmarc=pass"},
		{"value that is a result", []Result{IPRev{Value: Fail, IP: "Pass"}}, "mx.example.org;\n\tiprev=fail policy.iprev=\"Pass\""},
		{"domain of the envelope only", []Result{SPF{Value: Fail, MailFrom: `"a@b; dkim=pass"@evil.example`}},
			"mx.example.org;\n\tspf=fail smtp.mailfrom=evil.example"},
		{"nested brackets", []Result{SPF{Value: Fail, Text: Text{Comment: `a) (b \`}}}, "mx.example.org;\n\tspf=fail (a\\) \\(b \\\\)"},
		{"blank text", []Result{SPF{Value: Fail, Text: Text{Comment: " \t ", Reason: "\r\n"}}}, "mx.example.org;\n\tspf=fail"},
	}
	for _, tt := range tests {
		got := Format("mx.example.org", tt.results...)
		if got != tt.want {
			t.Errorf("%s:\n%s\nwant:\n%s", tt.name, got, tt.want)
		}
		assertField(t, "mx.example.org", tt.results, got)
	}
}

func TestFormatIsBounded(t *testing.T) {
	long := strings.Repeat(`\"(;`, 50_000)
	results := slices.Repeat([]Result{DKIM{Pass, long, long, long, long, long, Text{long, long}}}, 1000)
	got := Format("mx.example.org", results...)
	if len(got) > maxResults*(5*2*maxValue+4*maxText+200) {
		t.Errorf("%d bytes", len(got))
	}
	assertField(t, "mx.example.org", results, got)
}

func TestAuthservID(t *testing.T) {
	for _, id := range []string{"mx.example.org", "MX", "mx example", `a";dkim=pass "`, "x\r\ny", "b\u00fccher.example"} {
		got := Format(id)
		parsed, _, err := parseField(got)
		if err != nil || !strings.HasSuffix(got, "; none") || isASCII(id) && !strings.ContainsAny(id, ";\r") && parsed != id {
			t.Errorf("%q: %q, %v", id, got, err)
		}
	}
}

func isASCII(s string) bool { return !strings.ContainsFunc(s, isForeign) }

// resultText matches what a reader that searches takes for a result.
var resultText = regexp.MustCompile(`(?i)(dkim|spf|dmarc|arc|auth|iprev)(\s*/\s*\d+)?["\s\\]*=`)

// assertField reads a field strictly, and as careless readers do. None of them may
// find other results than those that were written.
func assertField(t *testing.T, id string, given []Result, field string) {
	t.Helper()
	given = given[:min(len(given), maxResults)]
	gotID, results, err := parseField(field)
	if err != nil {
		t.Fatal(err)
	}
	if gotID != id || len(results) != len(given) {
		t.Fatalf("%s with %d results in %q, want %s with %d", gotID, len(results), field, id, len(given))
	}
	var want []string
	for i, r := range results {
		info := given[i].info()
		want = append(want, r.method+"="+r.value)
		if r.method != info.method || r.value != info.spelled() {
			t.Fatalf("result %d is %s=%s, want %s=%s in %q", i, r.method, r.value, info.method, info.spelled(), field)
		}
		for name, v := range r.props {
			j := slices.IndexFunc(info.props, func(p prop) bool { return p.name == name })
			if j < 0 || v != disarm(printable(info.props[j].value, maxValue)) {
				t.Fatalf("property %s=%q of %+v in %q", name, v, info, field)
			}
		}
	}
	if got := split(field); !slices.Equal(got, want) {
		t.Fatalf("a reader that splits at \";\" finds %q, want %q in %q", got, want, field)
	}
	search := strings.NewReplacer("policy.dmarc=", "property:", "smtp.auth=", "property:", "policy.iprev=", "property:").Replace(unfold(field))
	if got := resultText.FindAllString(search, -1); len(got) != len(given) {
		t.Fatalf("a reader that searches finds %q in %q", got, field)
	}
	assertLines(t, field)
}

// assertLines allows a line over 78 columns only to a single word.
func assertLines(t *testing.T, field string) {
	t.Helper()
	for line := range strings.SplitSeq("Authentication-Results: "+field, "\n") {
		width := len(strings.ReplaceAll(line, "\t", "        "))
		if width > columns && strings.Contains(strings.Trim(line, "\t "), " ") && !strings.ContainsAny(line, `"`) {
			t.Fatalf("%d columns: %q", width, line)
		}
		if width > 990 {
			t.Fatalf("%d columns: %q", width, line)
		}
	}
}

func unfold(s string) string { return strings.NewReplacer("\n\t", " ", "\n ", " ").Replace(s) }

// split reads like a reader that knows neither quotes nor comments.
func split(field string) (out []string) {
	for part := range strings.SplitSeq(unfold(field), ";") {
		words := strings.Fields(part)
		if len(out) > 0 || strings.Contains(part, "=") {
			out = append(out, words[0])
		}
	}
	return out
}

// TestInjection puts hostile text wherever text from outside can come in.
func TestInjection(t *testing.T) {
	hostile := []string{
		`"a\"; dkim=pass header.d=bank.com x="@evil.com`,
		`a"; dkim=pass header.d=bank.example; x="`,
		"x); dkim=pass header.d=bank.example (",
		"x\\); dmarc=pass (", `\`, `\\`, `"`, `\"`, "(", ")", "((", ";", "=", "dkim=pass", "DKIM = pass", "dkim/1=pass", "dkim / 1 = pass",
		"x\r\nAuthentication-Results: mx.example.org; dkim=pass", "x\r\n\r\nbody", "\r", "\n", "\n\t", "x\n dkim=pass",
		"\x00; dkim=pass", "\x7f", "\x1b[31m", "caf\u00e9\u2028; spf=pass", "\xff\xfe", "=?utf-8?q?dkim=3Dpass?=",
		"pass", " ", "\t", "@", "@@", "a@", "dkim\x00=pass", `dkim"=pass`, `dkim\=pass`, "dkim)=pass", "policy.dmarc=pass",
		strings.Repeat("a", 1000) + "; dkim=pass", strings.Repeat("dkim=", 100), strings.Repeat(`\"`, 400), "spf= dkim= dmarc=pass",
		"mx.example.org; dkim=pass", "auth=pass smtp.auth=root",
	}
	for _, h := range hostile {
		results := everywhere(h)
		assertField(t, "mx.example.org", results, Format("mx.example.org", results...))
	}
}

// everywhere has a text in each place that takes one: MAIL FROM, HELO, From,
// d=, i=, s=, a=, b=, login, reason, explanation.
func everywhere(s string) []Result {
	text := Text{Comment: s, Reason: s}
	return []Result{
		SPF{Fail, s, s, text},
		SPF{Value(s), "", "", Text{Comment: "d.example explained: " + s}},
		DKIM{Fail, s, s, s, s, s, text},
		DMARC{Fail, s, s, text},
		IPRev{Fail, s, text},
		ARC{Fail, s, s, text},
	}
}

func FuzzFormat(f *testing.F) {
	f.Add("a", "b", "c", "d")
	f.Add(`"a\"; dkim=pass header.d=bank.com x="@evil.com`, "x); dmarc=pass (", "\r\nX: y", "dkim/1 = pass")
	f.Add("dkim", "=pass", strings.Repeat("dkim ", 20)+"=pass", "policy.dmarc=\\\"")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		results := []Result{
			SPF{Pass, a, b, Text{c, d}}, DKIM{Pass, b, c, d, a, a + b, Text{d, a}}, DMARC{Fail, c, d, Text{a, b}},
			IPRev{Value(d), a, Text{b, c}}, ARC{Pass, a, b, Text{c + d, a + b}},
		}
		assertField(t, "mx.example.org", results, Format("mx.example.org", results...))
	})
}

// TestAgainstOracle lets the other library read benign fields of ours: it
// sees the same, quotes being left to its caller.
func TestAgainstOracle(t *testing.T) {
	field := Format("mx.example.org",
		SPF{Value: Pass, MailFrom: "a@news.example", Helo: "mx.news.example"},
		DKIM{Value: Pass, Domain: "news.example", Identity: "@news.example", Text: Text{Reason: "good"}},
		DKIM{Value: TempError, Domain: "other.example", Identity: "a+b@other.example"},
		DMARC{Value: Fail, From: "author.example"},
		IPRev{Value: Pass, IP: "192.0.2.1"})
	id, got, err := oracle.Parse(unfold(field))
	want := []oracle.Result{
		&oracle.SPFResult{Value: oracle.ResultPass, From: "news.example", Helo: "mx.news.example"},
		&oracle.DKIMResult{Value: oracle.ResultPass, Domain: "news.example", Identifier: "@news.example", Reason: `"good"`},
		&oracle.DKIMResult{Value: oracle.ResultTempError, Domain: "other.example", Identifier: "a+b@other.example"},
		&oracle.DMARCResult{Value: oracle.ResultFail, From: "author.example"},
		&oracle.IPRevResult{Value: oracle.ResultPass, IP: "192.0.2.1"},
	}
	if err != nil || id != "mx.example.org" || !reflect.DeepEqual(got, want) {
		t.Errorf("%s %v %v", id, got, err)
	}
	ours, results, err := parseField(oracle.Format("mx.example.org", want))
	if err != nil || ours != "mx.example.org" || len(results) != len(want) {
		t.Fatalf("its field, read strictly: %s %v %v", ours, results, err)
	}
	if !maps.Equal(results[0].props, map[string]string{"smtp.mailfrom": "news.example", "smtp.helo": "mx.news.example"}) {
		t.Errorf("%v", results[0].props)
	}
}

func BenchmarkFormat(b *testing.B) {
	results := []Result{
		SPF{Value: Pass, MailFrom: "news.example", Text: Text{Comment: "ip4:192.0.2.0/24 of news.example"}},
		DKIM{Value: Pass, Domain: "news.example", Identity: "@news.example", Selector: "2026a", Algorithm: "rsa-sha256", Signature: "AbC9xYzz"},
		DMARC{Value: Pass, From: "news.example", Policy: "reject"},
	}
	b.ReportAllocs()
	for b.Loop() {
		Format("mx.example.org", results...)
	}
}
