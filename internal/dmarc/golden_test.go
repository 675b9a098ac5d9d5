package dmarc

import (
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/author"
	reader "github.com/postern-mail/postern/internal/golden"
	"github.com/postern-mail/postern/internal/spf"
)

// golden is one case of testdata/golden. A file holds a zone, and cases on it:
// what is given of the message, what is expected, and why.
type golden struct {
	name   string
	header [][2]string
	dkim   []Signature
	fields map[string]string
}

var goldenKeys = []string{
	"spf", "method", "sample", "enforce", "flags", "signals", "resolver", // given
	"want", "reason", "policy", "published", "domain", "policydomain", "org", "aligned", "queries", "psl", // expected of the verdict
	"domains", "defect", "malformed", "action", "rule", "override", // of the header and the table
	"why",
}

// minGolden is how many cases there must be.
const minGolden = 80

func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/golden/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	total, statuses := 0, map[Status]int{}
	for _, file := range files {
		z, cases := readGolden(t, file)
		for _, g := range cases {
			total++
			t.Run(strings.TrimSuffix(filepath.Base(file), ".txt")+"/"+g.name, func(t *testing.T) {
				statuses[g.run(t, z).Verdict.Status]++
			})
		}
	}
	if total < minGolden {
		t.Errorf("%d golden cases, want at least %d", total, minGolden)
	}
	for _, s := range []Status{None, Pass, Fail, TempError, PermError} {
		if statuses[s] < 3 {
			t.Errorf("status %s in %d cases", s, statuses[s])
		}
	}
}

func readGolden(t testing.TB, file string) (*zone, []golden) {
	world, all := reader.List(t, file)
	z := newZone()
	for _, f := range world {
		qtype, data, _ := strings.Cut(f.Value, " ")
		z.Add(f.Key, qtype, goldenText(t, f, strings.TrimSpace(data)))
	}
	var cases []golden
	for _, c := range all {
		g := golden{name: c.Name, fields: map[string]string{}}
		for _, f := range c.Fields {
			if !g.set(t, f) {
				t.Fatalf("%s: unknown key %q", f.At, f.Key)
			}
		}
		cases = append(cases, g)
	}
	return z, cases
}

// set reads one line of a case. "from" and "header" give header fields in their
// order, "dkim" one signature each.
func (g *golden) set(t testing.TB, f reader.Field) bool {
	switch f.Key {
	case "from":
		g.header = append(g.header, [2]string{"From", " " + goldenText(t, f, f.Value)})
	case "header":
		name, text, _ := strings.Cut(goldenText(t, f, f.Value), ":")
		g.header = append(g.header, [2]string{name, text})
	case "dkim":
		result, domain, _ := strings.Cut(f.Value, " ")
		s := Signature{Domain: goldenText(t, f, domain)}
		switch result {
		case "pass":
			s.Status = SignaturePass
		case "temperror":
			s.Status = SignatureTempError
		}
		g.dkim = append(g.dkim, s)
	default:
		if !slices.Contains(goldenKeys, f.Key) {
			return false
		}
		g.fields[f.Key] = goldenText(t, f, f.Value)
	}
	return true
}

// goldenText reads a part of a field. %N*text% is text N times.
func goldenText(t testing.TB, f reader.Field, part string) string {
	f.Value = part
	s := reader.Text(t, f)
	for {
		start := strings.IndexByte(s, '%')
		end := start + 1 + strings.IndexByte(s[start+1:], '%')
		if start < 0 || end <= start {
			return s
		}
		count, text, ok := strings.Cut(s[start+1:end], "*")
		n, err := strconv.Atoi(count)
		if !ok || err != nil {
			return s
		}
		s = s[:start] + strings.Repeat(text, n) + s[end+1:]
	}
}

func (g *golden) author() author.Author {
	return author.ParseFrom(pairs(g.header))
}

func pairs(header [][2]string) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, f := range header {
			if !yield(f[0], f[1]) {
				return
			}
		}
	}
}

func (g *golden) message(t testing.TB) Message {
	m := Message{Author: g.author(), Signatures: g.dkim}
	if s := g.fields["spf"]; s != "" {
		words := strings.Fields(s)
		m.SPF.Status, m.SPF.Domain = spf.Status(words[0]), words[1]
		m.SPF.NullSender = len(words) > 2
	}
	if s := g.fields["sample"]; s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		m.Sample = n
	}
	return m
}

func (g *golden) run(t testing.TB, z *zone) Report {
	if g.fields["why"] == "" || g.fields["want"] == "" || g.fields["action"] == "" {
		t.Fatal("a case needs want, action and why")
	}
	e := Evaluator{Resolver: z.Full(), Method: Method(g.fields["method"])}
	if g.fields["resolver"] == "plain" {
		e.Resolver = z
	}
	report := e.Evaluate(t.Context(), g.message(t))
	v := report.Verdict
	actual := map[string]string{
		"want": string(v.Status), "reason": string(v.Reason), "policy": orDash(string(v.Policy)),
		"published": orDash(string(v.Published)), "domain": orDash(v.Domain), "policydomain": orDash(v.PolicyDomain),
		"org": orDash(v.Org), "aligned": v.alignedText(), "queries": fmt.Sprint(report.Queries),
		"psl":     map[bool]string{true: "differs", false: "same"}[v.PSL.Differs],
		"domains": orDash(strings.Join(report.Author.Domains, " ")), "defect": orDash(string(report.Author.Defect)),
		"malformed": map[bool]string{true: "yes", false: "no"}[report.Author.Malformed],
	}
	for key, value := range actual {
		if want, ok := g.fields[key]; ok && want != value {
			t.Errorf("%s: got %q, want %q (error: %v)", key, value, want, v.Err)
		}
	}
	checkInvariants(t, report)
	return report
}

func (r *Result) alignedText() string {
	var words []string
	for _, mechanism := range []string{"spf", "dkim"} {
		if r.Aligned(mechanism) {
			words = append(words, mechanism)
		}
	}
	return orDash(strings.Join(words, " "))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// checkInvariants holds what is true of every report.
func checkInvariants(t testing.TB, r Report) {
	for _, result := range r.Results {
		if (result.Status == Pass) != (result.Aligned("spf") || result.Aligned("dkim")) {
			t.Errorf("%s: %s, aligned: %s", result.Domain, result.Status, result.alignedText())
		}
		if (result.Status == Fail || result.Status == Pass) != (result.Policy != "" && result.Status != TempError) {
			t.Errorf("%s: %s with policy %q", result.Domain, result.Status, result.Policy)
		}
		for _, w := range result.Walks {
			if len(w.Steps) > MaxWalkQueries || len(w.Steps) == 0 {
				t.Errorf("%s: walk from %s of %d steps", result.Domain, w.Start, len(w.Steps))
			}
		}
		if severity(result) > severity(r.Verdict) {
			t.Errorf("%s is stricter than the verdict on %s", result.Domain, r.Verdict.Domain)
		}
	}
	if r.Verdict.Status == "" || r.Verdict.Reason == "" || len(r.Results) > MaxDomains {
		t.Errorf("verdict %+v, %d results", r.Verdict, len(r.Results))
	}
}
