package arc

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/dkim"
	reader "github.com/postern-mail/postern/internal/golden"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

var update = flag.Bool("update", false, "sign the messages of testdata/golden anew")

// minGolden is how many cases there must be.
const minGolden = 30

// now is the clock of the golden cases.
var now = time.Unix(1_700_000_100, 0)

// golden is one file of testdata/golden: expectations, an empty line, and the
// message. The zone is in testdata/golden/zone.
type golden struct {
	name    string
	expect  map[string]string
	message string
}

func TestGolden(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	z := readZone(t, "testdata/golden/zone")
	files, err := filepath.Glob("testdata/golden/*.eml")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < minGolden || len(files) != len(recipes(t)) {
		t.Errorf("%d golden cases for %d recipes, want at least %d", len(files), len(recipes(t)), minGolden)
	}
	statuses := map[Status]int{}
	for _, file := range files {
		g := readGolden(t, file)
		t.Run(g.name, func(t *testing.T) {
			r := verify(t, z, g.message)
			statuses[r.Status]++
			g.check(t, r)
		})
	}
	for _, s := range []Status{None, Pass, Fail} {
		if statuses[s] == 0 {
			t.Errorf("status %s in no case", s)
		}
	}
}

func verify(t testing.TB, z dkim.Resolver, message string) Result {
	t.Helper()
	r := bufio.NewReader(dkim.NewCRLFReader(strings.NewReader(message)))
	fields, err := reader.Header[dkim.Field](r)
	if err != nil {
		t.Fatal(err)
	}
	v := Verifier{Resolver: z, Now: func() time.Time { return now }}
	m := v.Start(t.Context(), fields)
	if _, err := io.Copy(m, r); err != nil {
		t.Fatal(err)
	}
	return m.Finish()
}

func (g *golden) check(t *testing.T, r Result) {
	vouched, _ := r.Vouched(func(sealer string) bool {
		return slices.Contains(strings.Fields(g.expect["trusted"]), sealer)
	}, "author.example")
	actual := map[string]string{
		"want": string(r.Status), "reason": r.Reason, "sealer": r.Sealer, "oldest": fmt.Sprint(r.OldestPass),
		"sets": fmt.Sprint(len(r.Sets)), "vouched": vouched, "temporary": fmt.Sprint(r.Temporary),
	}
	if g.expect["why"] == "" || g.expect["want"] == "" {
		t.Fatal("a case needs want and why")
	}
	for key, value := range actual {
		if want, ok := g.expect[key]; ok && strings.TrimSuffix(want, "-") != value {
			t.Errorf("%s: got %q, want %q (error: %v)", key, value, want, r.Err)
		}
	}
	if (r.Status == Fail) != (r.Reason != "") {
		t.Errorf("status %s with reason %q", r.Status, r.Reason)
	}
}

func readZone(t testing.TB, file string) *resolvertest.Table {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	z := resolvertest.NewTable()
	z.Relative = true
	for line := range strings.Lines(string(text)) {
		name, record, ok := strings.Cut(strings.TrimSpace(line), " TXT ")
		switch {
		case record == "SERVFAIL":
			z.Add(name, record, "")
		case ok:
			z.Add(name, "TXT", record)
		}
	}
	return z
}

func readGolden(t testing.TB, file string) golden {
	c := reader.Files(t, file)[0]
	g := golden{name: c.Name, expect: map[string]string{}, message: c.Sections["message"]}
	for _, f := range c.Fields {
		g.expect[f.Key] = f.Value
	}
	return g
}

func writeGolden(t *testing.T) {
	if err := os.MkdirAll("testdata/golden", 0o755); err != nil {
		t.Fatal(err)
	}
	old, err := filepath.Glob("testdata/golden/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range old {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join("testdata/golden", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("zone", goldenZone(t))
	for _, r := range recipes(t) {
		write(r.name+".eml", strings.TrimSpace(r.expect)+"\n\n"+strings.ReplaceAll(r.build().String(), "\r\n", "\n"))
	}
}

func TestCancelledLookups(t *testing.T) {
	m := testMail()
	sealers().a.add(t, m)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	v := Verifier{Resolver: &resolvertest.Table{Relative: true}}
	verification := v.Start(ctx, m.fields)
	r := verification.Finish()
	if r.Status != Fail || !r.Temporary || !errors.Is(r.Err, context.Canceled) {
		t.Errorf("got %+v", r)
	}
}

// TestHeaderWork seals a header that is too long to be hashed for every
// message signature of the chain.
func TestHeaderWork(t *testing.T) {
	m := testMail()
	for range 4 {
		m.fields = append(m.fields, dkim.Field{Name: "X-Long", Value: strings.Repeat("x", 1<<20)})
	}
	for range 6 {
		sealers().a.add(t, m)
	}
	z := readZone(t, "testdata/golden/zone")
	verification := (&Verifier{Resolver: z}).Start(t.Context(), m.fields)
	if _, err := io.WriteString(verification, m.body); err != nil {
		t.Fatal(err)
	}
	r := verification.Finish()
	if r.Status != Pass || r.OldestPass != 4 {
		t.Errorf("got %s (%s), oldest pass %d; 3 of 6 message signatures may be hashed", r.Status, r.Reason, r.OldestPass)
	}
}

// TestLookups counts the questions of chains that are worth few of them.
func TestLookups(t *testing.T) {
	sealed := testMail()
	for range 10 {
		sealers().a.add(t, sealed)
		sealers().b.add(t, sealed)
	}
	forged := &mail{fields: slices.Clone(sealed.fields), body: sealed.body}
	seal := &forged.fields[indexOf(forged, fieldSeal)]
	seal.Value = strings.Replace(seal.Value, "t=17", "t=16", 1)
	broken := testMail()
	sealers().a.add(t, broken)
	broken.push(fieldSeal, " i=2")
	tests := []struct {
		name string
		mail *mail
		want int
	}{
		{"one question a name", sealed, 2}, {"last seal forged", forged, 1}, {"broken structure", broken, 0}, {"no chain", testMail(), 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := readZone(t, "testdata/golden/zone")
			verification := (&Verifier{Resolver: c}).Start(t.Context(), tt.mail.fields)
			if _, err := io.WriteString(verification, tt.mail.body); err != nil {
				t.Fatal(err)
			}
			verification.Finish()
			if got := len(c.Asked()); got != tt.want {
				t.Errorf("%d questions, want %d", got, tt.want)
			}
			if needs := verification.NeedsBody(); needs != (tt.want > 0) {
				t.Errorf("needs the body: %v", needs)
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	z := readZone(b, "testdata/golden/zone")
	for _, name := range []string{"none", "pass-ed25519", "pass-1", "pass-50"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			message := readGolden(b, "testdata/golden/"+name+".eml").message
			for b.Loop() {
				verify(b, z, message)
			}
		})
	}
}

// stuck is a resolver that waits for the end of its context.
type stuck struct{ asked chan string }

func (s stuck) LookupTXT(ctx context.Context, name string) ([]string, error) {
	s.asked <- name
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestCloseEndsLookups(t *testing.T) {
	m := testMail()
	sealers().a.add(t, m)
	sealers().b.add(t, m)
	s := stuck{make(chan string, 10)}
	verification := (&Verifier{Resolver: s}).Start(t.Context(), m.fields)
	if got := <-s.asked; got != "ed._domainkey.b.example" {
		t.Errorf("asked for %q first", got)
	}
	verification.Close()
	if len(s.asked) != 0 {
		t.Errorf("asked for %q although the last seal could not be verified", <-s.asked)
	}
}

func TestVouched(t *testing.T) {
	pass := MethodResult{"dmarc", "pass", map[string]string{"header.from": "Author.example"}}
	fail := MethodResult{"dmarc", "fail", map[string]string{"header.from": "author.example"}}
	other := MethodResult{"dmarc", "pass", map[string]string{"header.from": "other.example"}}
	bare := MethodResult{"dmarc", "pass", map[string]string{}}
	spf := MethodResult{"spf", "pass", nil}
	set := func(sealer string, results ...MethodResult) Set { return Set{Sealer: sealer, Results: results} }
	tests := []struct {
		name   string
		status Status
		sets   []Set
		want   string
	}{
		{"the only sealer", Pass, []Set{set("t1", pass)}, "t1"},
		{"chain broken", Fail, []Set{set("t1", pass)}, ""},
		{"no chain", None, nil, ""},
		{"not trusted", Pass, []Set{set("x", pass)}, ""},
		{"trusted behind one that is not", Pass, []Set{set("t1", pass), set("x", fail)}, ""},
		{"first of two trusted", Pass, []Set{set("t1", pass), set("t2", fail)}, "t1"},
		{"last of two trusted", Pass, []Set{set("t1", fail), set("t2", spf, pass)}, "t2"},
		{"invented before a trusted one", Pass, []Set{set("x", pass), set("t2", fail)}, ""},
		{"other author", Pass, []Set{set("t1", other)}, ""},
		{"no author", Pass, []Set{set("t1", bare)}, ""},
		{"both ways", Pass, []Set{set("t1", pass, fail)}, ""},
		{"no dmarc", Pass, []Set{set("t1", spf)}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := Result{Status: tt.status, Sets: tt.sets}
			got, ok := r.Vouched(func(s string) bool { return strings.HasPrefix(s, "t") }, "author.example")
			if got != tt.want || ok != (tt.want != "") {
				t.Errorf("got %q %v, want %q", got, ok, tt.want)
			}
		})
	}
}
