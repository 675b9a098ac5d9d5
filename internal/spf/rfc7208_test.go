package spf

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// suiteCases is how many cases the standard's test suite holds. A parser that
// overlooks one must not look green.
const suiteCases = 203

// TestStandardSuite runs the openspf test suite for RFC 7208 (2014.04), every
// case, explanations included. Its "skip" marks are another library's.
func TestStandardSuite(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "blitiri.com.ar/go/spf").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	dir := strings.TrimSpace(string(out))
	if dir == "" {
		t.Fatal("blitiri.com.ar/go/spf is not in the module cache: run go mod download")
	}
	text, err := os.ReadFile(filepath.Join(dir, "testdata", "rfc7208-tests.yml"))
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for doc := range strings.SplitSeq(string(text), "\n---\n") {
		y := parseYAML(t, doc)
		if y.get("tests") == nil {
			continue
		}
		z := suiteZone(y.get("zonedata"))
		for _, c := range y.get("tests").pairs {
			ran++
			t.Run(y.get("description").scalar+"/"+c.key, func(t *testing.T) { runSuiteCase(t, z, c.value) })
		}
	}
	if ran != suiteCases {
		t.Errorf("ran %d cases, want %d", ran, suiteCases)
	}
}

func runSuiteCase(t *testing.T, z *zone, c *node) {
	from := c.get("mailfrom").scalar
	at := strings.LastIndexByte(from, '@')
	args := Args{
		IP:       netip.MustParseAddr(c.get("host").scalar),
		Helo:     c.get("helo").scalar,
		Sender:   Sender{Domain: from[at+1:], Local: from[:max(at, 0)]},
		Receiver: "receiver.example.net",
		Now:      time.Unix(1_700_000_000, 0),
	}
	got := CheckMailFrom(context.Background(), z, args)
	if want := c.get("result").strings(); !slices.Contains(want, string(got.Status)) {
		t.Errorf("status %s, want %v (%v)", got.Status, want, got.Err)
	}
	want := c.get("explanation")
	if want == nil {
		return
	}
	if text := want.scalar; text == "DEFAULT" {
		want.scalar = ""
	}
	if got.Explanation != want.scalar {
		t.Errorf("explanation %q, want %q", got.Explanation, want.scalar)
	}
}

// suiteZone reads zonedata. Records of the obsolete type SPF stand for TXT
// where a name has no TXT entry; "TXT: NONE" says that there is none; TIMEOUT
// answers for the types that have no records.
func suiteZone(data *node) *zone {
	z := newZone()
	for _, name := range data.pairs {
		hasTXT := slices.ContainsFunc(name.value.items, func(r *node) bool { return r.pairs[0].key == "TXT" })
		for _, r := range name.value.items {
			addSuiteRecord(z, name.key, r.pairs[0].key, r.pairs[0].value, hasTXT)
		}
	}
	return z
}

func addSuiteRecord(z *zone, name, qtype string, value *node, hasTXT bool) {
	switch qtype {
	case "TIMEOUT":
		z.add(name, "TIMEOUT", "")
	case "CNAMELOOP":
		z.add(name, "LOOP", "")
	case "SPF":
		if !hasTXT {
			z.add(name, "TXT", strings.Join(value.strings(), ""))
		}
	case "TXT":
		if value.scalar != "NONE" {
			z.add(name, "TXT", strings.Join(value.strings(), ""))
		}
	case "MX":
		z.add(name, "MX", strings.Join(value.strings(), " "))
	default:
		z.add(name, qtype, value.scalar)
	}
}

// node is a value of the YAML subset that the suite is written in.
type node struct {
	scalar string
	items  []*node
	pairs  []pair
}

type pair struct {
	key   string
	value *node
}

func (n *node) get(key string) *node {
	for _, p := range n.pairs {
		if p.key == key {
			return p.value
		}
	}
	return nil
}

// strings is a scalar as a list of one, or the list.
func (n *node) strings() []string {
	if n.items == nil {
		return []string{n.scalar}
	}
	out := []string{}
	for _, i := range n.items {
		out = append(out, i.scalar)
	}
	return out
}

// yamlLines is what is left to parse. The subset: block mappings and lists by
// indentation, one-entry mappings as list items, flow lists on one line,
// block scalars (kept as one line: only descriptions use them), plain and
// quoted scalars on one line.
type yamlLines struct {
	t     *testing.T
	lines []string
}

func parseYAML(t *testing.T, doc string) *node {
	y := &yamlLines{t: t}
	for line := range strings.SplitSeq(doc, "\n") {
		if s := strings.TrimSpace(line); s != "" && s[0] != '#' && s != "---" {
			y.lines = append(y.lines, strings.TrimRight(line, " "))
		}
	}
	return y.block(0)
}

func indent(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }

// block parses the lines that are indented by at least n.
func (y *yamlLines) block(n int) *node {
	out := &node{}
	for len(y.lines) > 0 && indent(y.lines[0]) >= n {
		depth, line := indent(y.lines[0]), strings.TrimSpace(y.lines[0])
		y.lines = y.lines[1:]
		if item, ok := strings.CutPrefix(line, "- "); ok {
			key, rest := y.splitKey(item)
			out.items = append(out.items, &node{pairs: []pair{{key, y.flow(rest)}}})
			continue
		}
		key, rest := y.splitKey(line)
		value := &node{}
		switch {
		case rest == "" && len(y.lines) > 0 && indent(y.lines[0]) > depth:
			value = y.block(depth + 1)
		case rest != "" && rest[0] != '>' && rest[0] != '|':
			value = y.flow(rest)
			y.skipDeeper(depth)
		default:
			y.skipDeeper(depth)
		}
		out.pairs = append(out.pairs, pair{key, value})
	}
	return out
}

// skipDeeper drops the lines of a block scalar, or of a description that goes on.
func (y *yamlLines) skipDeeper(depth int) {
	for len(y.lines) > 0 && indent(y.lines[0]) > depth {
		y.lines = y.lines[1:]
	}
}

// splitKey cuts "key: value" or "key:".
func (y *yamlLines) splitKey(s string) (key, rest string) {
	if s[0] == '"' {
		end := strings.IndexByte(s[1:], '"') + 1
		return s[1:end], strings.TrimSpace(strings.TrimPrefix(s[end+1:], ":"))
	}
	if key, rest, ok := strings.Cut(s, ": "); ok {
		return key, strings.TrimSpace(rest)
	}
	key, ok := strings.CutSuffix(s, ":")
	if !ok {
		y.t.Fatalf("no key in %q", s)
	}
	return key, ""
}

func (y *yamlLines) flow(s string) *node {
	inner, ok := strings.CutPrefix(s, "[")
	if !ok {
		return &node{scalar: y.unquote(s)}
	}
	out := &node{items: []*node{}}
	inner = strings.TrimSpace(strings.TrimSuffix(inner, "]"))
	for inner != "" {
		end := strings.IndexByte(inner, ',')
		if q := inner[0]; q == '"' || q == '\'' {
			end = strings.IndexByte(inner[1:], q) + 2
			if end == len(inner) {
				end = -1
			}
		}
		if end < 0 {
			end = len(inner)
		}
		out.items = append(out.items, &node{scalar: y.unquote(strings.TrimSpace(inner[:end]))})
		inner = strings.TrimSpace(strings.TrimPrefix(inner[end:], ","))
	}
	return out
}

// unquote reads a scalar; \x80 is the byte itself, as DNS would carry it.
func (y *yamlLines) unquote(s string) string {
	switch {
	case s == "" || s[0] != '"' && s[0] != '\'':
		return s
	case s[0] == '\'':
		return strings.Trim(s, "'")
	}
	out, err := strconv.Unquote(strings.ReplaceAll(s, `\0`, `\x00`))
	if err != nil {
		y.t.Fatalf("scalar %s: %v", s, err)
	}
	return out
}
