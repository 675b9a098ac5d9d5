package manual

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/zap/zapcore"

	"github.com/postern-mail/postern/internal/milterd"
	"github.com/postern-mail/postern/internal/policyd"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/service"
)

const root = "../.."

// manuals are the pages that an administrator reads.
var manuals = []string{"README.md", "policy/README.md", "policy/LIMITS.md", "dnsbl/README.md", "greylist/README.md", "milter/README.md", "milter/SIGNING.md", "milter/FROM.md", "milter/DMARC.md", "milter/DKIM-ROTATION.md", "milter/REPORTS.md", "milter/CONFORMANCE.md", "deploy/README.md", "deploy/STATUS.md"}

// commandPages are about the postern command, whose flags are in the tables too.
var commandPages = []string{"deploy/LOG.md", "milter/READING-REPORTS.md"}

func read(t *testing.T, path string) Page {
	t.Helper()
	page, err := Read(root, path)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

// Every link leads to a file of the tree, and to a heading that is there. Links into
// the network are not followed.
func TestLinks(t *testing.T) {
	pages, err := Pages(root)
	if err != nil || len(pages) < len(manuals) {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	followed := 0
	for _, page := range pages {
		for _, target := range page.Links() {
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			followed++
			path, anchor, _ := strings.Cut(target, "#")
			file := page.Path
			if path != "" {
				file = filepath.Join(filepath.Dir(page.Path), path)
			}
			if _, err := os.Stat(filepath.Join(root, file)); err != nil {
				t.Errorf("%s: link to %s: no such file", page.Path, target)
				continue
			}
			if anchor != "" && !read(t, file).Anchors()[anchor] {
				t.Errorf("%s: link to %s: no such heading", page.Path, target)
			}
		}
	}
	if followed < 20 {
		t.Errorf("only %d links were found", followed)
	}
}

func TestFirstPageIsShort(t *testing.T) {
	if n := strings.Count(read(t, "README.md").Text, "\n"); n > 200 {
		t.Errorf("README.md has %d lines", n)
	}
}

// flags are those of a daemon, from its own help.
func flags(t *testing.T, main func(service.Process) int) map[string]bool {
	t.Helper()
	var out bytes.Buffer
	if code := main(service.Process{Args: []string{"--help"}, Stdout: &out, Stderr: &out}); code != 0 {
		t.Fatalf("--help: exit %d, %s", code, &out)
	}
	all := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^ +(?:-\w, )?--([a-z0-9-]+)`).FindAllStringSubmatch(out.String(), -1) {
		all[m[1]] = true
	}
	if len(all) < 20 {
		t.Fatalf("%d flags in\n%s", len(all), &out)
	}
	return all
}

// Every flag of the daemons has a row in a table of the manuals, and every flag in
// a first cell is one of theirs.
func TestFlags(t *testing.T) {
	documented := make(map[string]bool)
	for _, path := range manuals {
		for _, row := range Rows(read(t, path).Text) {
			for _, code := range Code(row.First) {
				if name, ok := strings.CutPrefix(code, "--"); ok {
					documented[regexp.MustCompile(`^[a-z0-9-]*`).FindString(name)] = true
				}
			}
		}
	}
	known := flags(t, policyd.Main)
	maps.Copy(known, flags(t, milterd.Main))
	compare(t, "flag", slices.Collect(maps.Keys(known)), slices.Collect(maps.Keys(documented)))
}

// compare reports what is in one list only.
func compare(t *testing.T, what string, known, documented []string) {
	t.Helper()
	for _, name := range known {
		if !slices.Contains(documented, name) {
			t.Errorf("%s %s is in no table of the manuals", what, name)
		}
	}
	for _, name := range documented {
		if !slices.Contains(known, name) {
			t.Errorf("%s %s is documented, and there is none", what, name)
		}
	}
}

// foreign are flags of other programs that the manuals mention.
var foreign = []string{"delete-after", "privacy", "user", "now", "system", "no-create-home", "shell", "create", "strip-components", "ignore-missing", "print-architecture", "kill-who"}

// Flags are mentioned in the text too: each is one of the daemons, of the command,
// or of another program.
func TestMentionedFlags(t *testing.T) {
	known := flags(t, policyd.Main)
	maps.Copy(known, flags(t, milterd.Main))
	for _, name := range commandFlags(t) {
		known[name] = true
	}
	for _, path := range slices.Concat(manuals, commandPages) {
		for _, m := range regexp.MustCompile(`(?:^|[\s(\x60])--([a-z][a-z0-9-]*[a-z0-9])`).FindAllStringSubmatch(read(t, path).Text, -1) {
			if !known[m[1]] && !slices.Contains(foreign, m[1]) {
				t.Errorf("%s mentions --%s, which no program has", path, m[1])
			}
		}
	}
}

// commandFlags are the names of flags in the source of the command, whose package
// cannot be imported.
func commandFlags(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, file := range parsed(t, "cmd/postern") {
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if of, ok := call.Fun.(*ast.SelectorExpr); ok {
				if x, ok := of.X.(*ast.Ident); ok && x.Name == "fs" {
					all = append(all, literals(call)...)
				}
			}
			return true
		})
	}
	if !slices.Contains(all, "json") {
		t.Fatalf("the command's flags were not found: %q", all)
	}
	return append(all, "help")
}

func literals(n ast.Node) []string {
	var all []string
	ast.Inspect(n, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if text, err := strconv.Unquote(lit.Value); err == nil {
				all = append(all, text)
			}
		}
		return true
	})
	return all
}

func parsed(t *testing.T, dir string) []*ast.File {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var all []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, file)
	}
	return all
}

// reasons are the constants of type Reason.
func reasons(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, file := range parsed(t, "internal/record") {
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.ValueSpec); ok {
				if of, ok := spec.Type.(*ast.Ident); ok && of.Name == "Reason" {
					all = append(all, literals(spec)...)
				}
			}
			return true
		})
	}
	if len(all) < 40 {
		t.Fatalf("%d reasons were found", len(all))
	}
	return all
}

func TestReasons(t *testing.T) {
	text, ok := read(t, "deploy/README.md").Section("### Reasons")
	if !ok {
		t.Fatal("deploy/README.md has no section on reasons")
	}
	var documented []string
	for _, row := range Rows(text) {
		documented = append(documented, Code(row.First)...)
	}
	compare(t, "reason", reasons(t), documented)
}

// deploy/ALLOW.md has a way out for every reason for which mail does not pass.
func TestWaysOut(t *testing.T) {
	page := read(t, "deploy/ALLOW.md")
	text, _ := page.Section("## 2. Let it through")
	named := Code(text)
	for _, l := range append(decisions(), record.Known("from_ownership", false)...) {
		reason := string(l.Reason)
		if l.Verdict == "pass" || l.Verdict == "error" || strings.HasSuffix(reason, "_unavailable") {
			continue
		}
		if !slices.ContainsFunc(named, func(name string) bool {
			before, after, ok := strings.Cut(name, "…")
			return name == reason || ok && strings.HasPrefix(reason, before) && strings.HasSuffix(reason, after)
		}) {
			t.Errorf("%s %s %s: no row and no sentence has the reason", l.Check, l.Verdict, reason)
		}
	}
}

// update has TestMeanings and TestFigures write what they compare.
var update = flag.Bool("update", false, "write internal/record/meaning.go from deploy/README.md, and the pages of measured figures from their JSON")

// meanings is the file that explains reasons in the words of their rows.
func meanings(t *testing.T) string {
	t.Helper()
	text, _ := read(t, "deploy/README.md").Section("### Reasons")
	var out strings.Builder
	out.WriteString("package record\n\n// Meanings returns what each reason means. It is written from deploy/README.md, by\n" +
		"//\n//\tgo test ./internal/manual -run TestMeanings -update\n" +
		"func Meanings() map[Reason]string {\n\treturn map[Reason]string{\n")
	for _, row := range Rows(text) {
		for _, reason := range Code(row.First) {
			cell, _ := splitCell(row.Rest)
			plain := strings.TrimSpace(strings.ReplaceAll(regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`).ReplaceAllString(cell, "$1"), "`", ""))
			fmt.Fprintf(&out, "%q: %q,\n", reason, plain)
		}
	}
	out.WriteString("}\n}\n")
	formatted, err := format.Source([]byte(out.String()))
	if err != nil {
		t.Fatal(err)
	}
	return string(formatted)
}

// The program explains a reason in the words of its row.
func TestMeanings(t *testing.T) {
	path, want := filepath.Join(root, "internal/record/meaning.go"), meanings(t)
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil || string(have) != want {
		t.Errorf("internal/record/meaning.go does not have the words of deploy/README.md (%v); run go test ./internal/manual -run TestMeanings -update", err)
	}
}

// recordKeys are the keys of a record with everything in it.
func recordKeys(t *testing.T) (top, step []string) {
	t.Helper()
	full := record.Record{Steps: []record.Step{{Err: os.ErrInvalid}}, Err: os.ErrInvalid, Duration: 1}
	fill(&full)
	fill(&full.Steps[0])
	e := zapcore.NewMapObjectEncoder()
	if err := full.MarshalLogObject(e); err != nil {
		t.Fatal(err)
	}
	line, err := json.Marshal(e.Fields)
	if err != nil {
		t.Fatal(err)
	}
	var keys struct {
		Steps []map[string]any
	}
	if err := json.Unmarshal(line, &keys); err != nil || len(keys.Steps) != 1 {
		t.Fatalf("%v: %s", err, line)
	}
	return append(slices.Collect(maps.Keys(e.Fields)), "ts", "level", "msg"), slices.Collect(maps.Keys(keys.Steps[0]))
}

// fill gives every text of a struct a value.
func fill(v any) {
	s := reflect.ValueOf(v).Elem()
	for i := range s.NumField() {
		if f := s.Field(i); f.Kind() == reflect.String {
			f.SetString("x")
		}
	}
}

func TestRecordKeys(t *testing.T) {
	text, ok := read(t, "deploy/README.md").Section("## Records")
	if !ok {
		t.Fatal("deploy/README.md has no section on records")
	}
	text, _, _ = strings.Cut(text, "### Reasons")
	var documented []string
	top, step := recordKeys(t)
	for _, row := range Rows(text) {
		documented = append(documented, Code(row.First)...)
		if slices.Contains(Code(row.First), "steps") {
			for _, key := range step {
				if !slices.Contains(Code(row.Rest), key) {
					t.Errorf("the row of steps does not name %s", key)
				}
			}
		}
	}
	compare(t, "record key", top, documented)
}

// The quick start of the first page is a part of the guide that a test runs, in its
// order.
func TestQuickStart(t *testing.T) {
	quick, _ := read(t, "README.md").Section("## Quick start")
	rest := read(t, "deploy/examples/package/README.md").Text
	n := 0
	inBlock := false
	for line := range strings.Lines(quick) {
		switch {
		case strings.HasPrefix(line, "```"):
			inBlock = line == "```sh\n"
			continue
		case !inBlock:
			continue
		}
		n++
		at := strings.Index("\n"+rest, "\n"+line)
		if at < 0 {
			t.Errorf("the guide does not have, in this order, %q", line)
			continue
		}
		rest = rest[at+len(line)-1:]
	}
	if n < 6 {
		t.Errorf("the quick start has %d lines", n)
	}
}

// Every line of jq in the documents reads a journal with the lines of systemd in it.
func TestJournalLines(t *testing.T) {
	journal := "Started postern-policyd.service.\n{not JSON}\n" +
		`{"level":"info","ts":"2026-11-26T15:17:44.832Z","msg":"started","listen":[]}` + "\n" +
		`{"level":"info","ts":"2026-11-26T15:17:44.832Z","msg":"decision","check":"ownership","verdict":"reject","reason":"not_owned","mode":"shadow","sender":"a@b.example","steps":[{"check":"ownership","verdict":"reject","reason":"not_owned"}]}` + "\n"
	pages, err := Pages(root)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, page := range pages {
		for _, m := range regexp.MustCompile(`(?m)journalctl .*?\| (jq -[^|\n]* '[^'\n]*')`).FindAllStringSubmatch(page.Text, -1) {
			n++
			cmd := exec.CommandContext(t.Context(), "sh", "-c", m[1])
			cmd.Stdin = strings.NewReader(journal)
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "ownership") && !strings.Contains(string(out), "a@b.example") {
				t.Errorf("%s: %s: %v, %q", page.Path, m[1], err, out)
			}
		}
		if regexp.MustCompile(`journalctl .*\| grep`).MatchString(page.Text) {
			t.Errorf("%s: reads the journal with grep; use jq -R 'fromjson?'", page.Path)
		}
	}
	if n < 4 {
		t.Errorf("%d lines of jq were found", n)
	}
}

// The documents spell replies as the code sends them.
func TestReplies(t *testing.T) {
	for _, path := range manuals {
		if strings.Contains(read(t, path).Text, "450 4.7.1") {
			t.Errorf("%s: the greylist answers 450 4.2.0", path)
		}
	}
}
