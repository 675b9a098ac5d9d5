package verify

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/dkim"
	reader "github.com/postern-mail/postern/internal/golden"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// golden is one case of testdata/golden, which generate.py writes.
type golden struct {
	name, zone string
	envelope   Envelope
	options    []string
	faults     [][2]string
	want       string // the lines of what must come out
	message    string // with LF
}

const goldenHost = "mail.home.example"

func goldenNow() time.Time { return time.Unix(1_700_000_000, 0) }

func readGolden(t testing.TB) []golden {
	t.Helper()
	var all []golden
	for _, c := range reader.Files(t, "testdata/golden/*.txt") {
		all = append(all, parseGolden(t, c))
	}
	return all
}

func parseGolden(t testing.TB, c reader.Case) golden {
	t.Helper()
	g := golden{name: c.Name, zone: c.Sections["zone"], want: c.Sections["want"], message: c.Sections["message"], envelope: Envelope{MTA: goldenHost}}
	for _, f := range c.Fields {
		switch f.Key {
		case "why":
		case "ip":
			g.envelope.Client = netip.MustParseAddr(f.Value)
		case "helo":
			g.envelope.Helo = f.Value
		case "from":
			inner, _ := strings.CutPrefix(f.Value, "<")
			g.envelope.Sender = mailaddr.Parse(strings.TrimSuffix(inner, ">"))
		case "option":
			g.options = append(g.options, f.Value)
		case "fault":
			name, kind, _ := strings.Cut(f.Value, " ")
			g.faults = append(g.faults, [2]string{name, kind})
		default:
			t.Fatalf("%s: unknown key %q", f.At, f.Key)
		}
	}
	if g.message == "" || c.Get("why") == "" || g.want == "" || !g.envelope.Client.IsValid() {
		t.Fatalf("%s: a case needs ip, zone, want, why and a message", c.Name)
	}
	return g
}

func (g golden) spoil(fail func(name string, how resolvertest.Fault)) {
	for _, f := range g.faults {
		fail(f[0], resolvertest.Fault(f[1]))
	}
}

func (g golden) verifier(r Resolver) *Verifier {
	return New(Options{
		Resolver:    r,
		Now:         goldenNow,
		SPFReject:   slices.Contains(g.options, "spf-reject"),
		ReceivedSPF: slices.Contains(g.options, "received-spf"),
	})
}

// readMessage returns the header, and the body with CRLF.
func readMessage(t testing.TB, message string) ([]Field, []byte) {
	t.Helper()
	r := bufio.NewReader(dkim.NewCRLFReader(strings.NewReader(message)))
	fields, err := reader.Header[dkim.Field](r)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return fields, body
}

// run verifies the message of the case, the body in pieces of seven octets.
func (g golden) run(t testing.TB, r Resolver) Result {
	t.Helper()
	fields, body := readMessage(t, g.message)
	m := g.verifier(r).Start(t.Context(), g.envelope)
	defer m.Close()
	m.Header(fields)
	for chunk := range slices.Chunk(body, 7) {
		m.Write(chunk)
	}
	return m.Finish(t.Context())
}

// foldsIn matches the two ways in which fields are folded here.
var foldsIn = regexp.MustCompile(`\n[\t ]`)

// dmarcPart is the last result of Authentication-Results. The cases here are
// about the others; see TestDMARC for this one.
var dmarcPart = regexp.MustCompile(`; dmarc=[^;]*$`)

// spell gives a result in the form of the cases.
func spell(r Result) string {
	var b strings.Builder
	if len(r.Remove) > 0 {
		b.WriteString("remove")
		for _, p := range r.Remove {
			fmt.Fprintf(&b, " %d", p.Index)
		}
		b.WriteString("\n")
	}
	if r.Refusal != nil {
		fmt.Fprintf(&b, "refuse %d %s %s\n", r.Refusal.Code, r.Refusal.Status, r.Refusal.Text)
	}
	for _, f := range r.Fields {
		b.WriteString(f.Name + ":" + dmarcPart.ReplaceAllString(foldsIn.ReplaceAllString(f.Value, " "), "") + "\n")
	}
	return b.String()
}

func TestGolden(t *testing.T) {
	cases := readGolden(t)
	if len(cases) < 100 {
		t.Fatalf("%d cases, want at least 100", len(cases))
	}
	seen := map[string]bool{}
	for _, g := range cases {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			zone := resolvertest.NewZone(t, g.zone)
			g.spoil(zone.Fail)
			r := g.run(t, zone)
			if got := spell(r); got != g.want {
				t.Errorf("got\n%s\nwant\n%s", got, g.want)
			}
			checkFields(t, r)
		})
		for _, word := range regexp.MustCompile(`\b(spf|dkim|iprev)=[a-z]+`).FindAllString(g.want, -1) {
			seen[word] = true
		}
	}
	for method, values := range map[string]string{
		"spf":   "none pass fail softfail neutral temperror permerror",
		"dkim":  "none pass fail policy neutral temperror permerror",
		"iprev": "pass fail temperror permerror",
	} {
		for value := range strings.FieldsSeq(values) {
			if !seen[method+"="+value] {
				t.Errorf("no case has %s=%s", method, value)
			}
		}
	}
}

// checkFields asserts the rules for every field that is written.
func checkFields(t *testing.T, r Result) {
	t.Helper()
	if len(r.Fields) == 0 || r.Fields[0].Name != resultsField {
		t.Fatalf("the first field is not ours: %+v", r.Fields)
	}
	for _, f := range r.Fields {
		if !strings.HasPrefix(f.Value, " ") {
			t.Errorf("%s does not begin with a space", f.Name)
		}
		for line := range strings.SplitSeq(strings.TrimPrefix(f.Value, " "), "\n") {
			if strings.ContainsFunc(strings.TrimLeft(line, "\t "), func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("line %q", line)
			}
		}
	}
	if r.Reason == "" || r.Err != nil || r.Findings == nil {
		t.Errorf("reason %q, error %v", r.Reason, r.Err)
	}
}
