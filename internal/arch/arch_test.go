package arch

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

const module = "github.com/postern-mail/postern"

// Sets of packages that several rows name. "p/..." is p and what lies below it.
var (
	// infrastructure knows no mail policy and no protocol of Postfix.
	infrastructure = []string{
		"internal/config", "internal/record", "internal/logging/...", "internal/metrics", "internal/daemon/...",
		"internal/admin/...", "internal/service/...", "internal/store/...", "internal/mailaddr", "internal/allowlist", "internal/resolver/...",
		"internal/transient", "internal/private", "internal/breaker", "internal/glob",
	}
	// library answers one question each, and says nothing to anybody but its caller.
	library = []string{"internal/mailaddr", "internal/allowlist", "internal/resolver/...", "internal/helo"}
)

// row allows the packages that match pkg to import those that match may.
type row struct {
	pkg string
	may []string
}

// rows are tried from the top; the first that matches a package decides.
var rows = []row{
	// Keys are made and printed without any daemon.
	// A mail is explained, and lists are asked, by the daemons' own code; entries of other programs are
	// read before they are sent.
	{"cmd/postern", []string{"internal/daemon", "internal/doctor", "internal/policyd", "internal/milterd", "internal/admin/...", "internal/service", "internal/maillog", "internal/replay", "internal/dmarcreport", "internal/rotate", "internal/reportread", "internal/resolver", "internal/setup", "milter/sign", "greylist/migrate", "dnsbl"}},
	// It reads Postfix and writes settings that the daemons describe.
	{"internal/setup", []string{"internal/config", "internal/daemon", "internal/postconf", "internal/postmap"}},
	{"cmd/...", []string{"internal/policyd/...", "internal/milterd/...", "internal/admin/...", "internal/service"}},

	// It looks at everything, and nothing looks at it but the command.
	{"internal/doctor", slices.Concat(infrastructure, []string{"internal/postconf", "internal/postmap", "internal/setup", "internal/policyd", "internal/milterd", "policy/checks", "milter/sign", "internal/rotate", "internal/spf", "internal/dkim", "internal/dmarc", "internal/dmarcreport", "dnsbl"})},
	{"internal/policyd/...", slices.Concat(infrastructure, []string{"internal/policyd/...", "policy/...", "greylist/...", "dnsbl/...", "internal/limit/...", "internal/ownership", "internal/postmap/...", "internal/spf", "internal/replay"})},
	{"internal/milterd/...", slices.Concat(infrastructure, []string{"internal/milterd/...", "internal/rotate", "milter/...", "dnsbl/...", "internal/ownership", "internal/postmap/...", "internal/spf", "internal/dkim", "internal/dmarc", "internal/arc", "internal/rsaengine", "internal/dmarcreport/...", "internal/reportread"})},

	{"policy/wire/...", []string{"policy/wire/..."}},
	{"policy/checks/...", slices.Concat(library, []string{"policy", "policy/checks/...", "greylist", "dnsbl", "internal/limit", "internal/ownership", "internal/spf", "internal/record"})},
	{"policy", []string{"policy/wire", "internal/mailaddr", "internal/record"}},

	{"milter/wire/...", []string{"milter/wire/..."}},
	{"milter/authres", []string{"internal/mailaddr"}},
	{"milter/mark", []string{"internal/private", "internal/author"}},
	{"milter/sign/...", slices.Concat(library, []string{"milter/sign/...", "internal/private", "milter/authres", "internal/author", "internal/dkim", "internal/record"})},
	{"milter/verify/...", slices.Concat(library, []string{"milter/verify/...", "milter/authres", "milter/mark", "internal/author", "internal/spf", "internal/dkim", "internal/dmarc", "internal/arc", "dnsbl", "internal/record"})},
	{"milter", []string{"milter/wire", "milter/sign", "milter/verify", "milter/authres", "milter/mark", "internal/author", "internal/ownership", "internal/mailaddr", "internal/record"}},

	{"greylist/...", []string{"greylist/...", "internal/mailaddr", "internal/breaker", "internal/store/...", "internal/transient"}},
	{"internal/limit/...", []string{"internal/limit/...", "internal/mailaddr", "internal/breaker", "internal/store/..."}},
	{"dnsbl/...", []string{"dnsbl/...", "internal/resolver"}},
	{"internal/reportread", slices.Concat(library, []string{"internal/spf", "internal/store/sqlitefile"})},
	{"internal/spf/...", slices.Concat(library, []string{"internal/spf/..."})},
	{"internal/dkim/...", slices.Concat(library, []string{"internal/dkim/..."})},
	{"internal/arc/...", slices.Concat(library, []string{"internal/arc/...", "internal/dkim"})},
	{"internal/dmarc/...", slices.Concat(library, []string{"internal/dmarc/...", "internal/author", "internal/spf", "internal/dkim"})},
	{"internal/rotate", []string{"internal/config", "internal/dkim", "internal/mailaddr", "internal/postconf", "internal/private", "internal/resolver/authority", "milter/sign"}},
	{"internal/ownership", []string{"internal/postmap", "internal/mailaddr", "internal/record"}},
	{"internal/postmap", []string{"internal/postmap/...", "internal/mailaddr"}},
	{"internal/postmap/sql", []string{"internal/postmap/conf", "internal/postmap/remote", "internal/postmap/mapfile", "internal/private"}},
	{"internal/postmap/ldap", []string{"internal/postmap/conf", "internal/postmap/remote"}},
	{"internal/postmap/remote", []string{"internal/postmap/mapfile", "internal/breaker"}},
	{"internal/postmap/conf", []string{"internal/postmap/mapfile", "internal/mailaddr", "internal/private"}},
	{"internal/postmap/mapfile", nil},

	// What is counted is known to no check, and mailed by the daemon that has the keys.
	{"internal/dmarcreport/...", slices.Concat(library, []string{"internal/dmarcreport/...", "internal/dmarc", "internal/store/..."})},

	{"internal/breaker", nil},
	{"internal/rsaengine", nil},
	{"internal/postconf", nil},
	{"internal/freeport", nil},
	{"internal/store/redistest/...", []string{"internal/store/...", "internal/freeport"}},
	{"internal/store/...", []string{"internal/store/...", "internal/transient", "internal/private"}},
	{"internal/transient", nil},
	{"internal/private", nil},
	{"internal/allowlist/...", []string{"internal/mailaddr"}},
	{"internal/author/...", []string{"internal/mailaddr"}},
	{"internal/helo/...", []string{"internal/mailaddr", "internal/resolver"}},
	{"internal/mailaddr/...", []string{"internal/mailaddr/..."}},
	{"internal/resolver/bindtest", []string{"internal/store/redistest/tied"}},
	{"internal/resolver/...", []string{"internal/resolver/...", "internal/breaker", "internal/transient"}},
	{"internal/record/...", nil},
	{"internal/glob", nil},
	{"internal/replay", []string{"internal/maillog", "internal/record", "policy", "policy/checks", "greylist/..."}},
	{"internal/maillog/...", []string{"internal/record", "internal/config", "internal/glob"}},
	{"internal/config/...", []string{"internal/config/...", "internal/mailaddr", "internal/private"}},
	{"internal/logging/...", []string{"internal/logging/...", "internal/record"}},
	{"internal/httplimit", nil},
	{"internal/metrics/...", []string{"internal/httplimit", "internal/metrics/...", "internal/record"}},
	{"internal/daemon/...", []string{"internal/daemon/...", "internal/config", "internal/transient"}},
	{"internal/admin/api", nil},
	{"internal/admin/...", infrastructure},
	// The life of a state knows nothing of what is kept in it.
	{"internal/service", []string{"internal/admin/...", "internal/config", "internal/daemon/...", "internal/logging/...", "internal/metrics", "internal/record", "internal/status", "internal/transient"}},
	// The page asks the daemon what the command asks it.
	{"internal/status/...", []string{"internal/admin/...", "internal/config", "internal/httplimit", "internal/logging", "internal/record"}},
	{"internal/service/lastgood", infrastructure},
	{"internal/service/tables", slices.Concat(infrastructure, []string{"internal/postmap/..."})},
	{"internal/service/owners", slices.Concat(infrastructure, []string{"internal/ownership", "internal/postmap/..."})},
	{"internal/service/dnslists", slices.Concat(infrastructure, []string{"dnsbl"})},
	{"internal/service/...", infrastructure},

	{"internal/postfixtest/...", []string{"internal/postfixtest/...", "internal/freeport", "internal/postconf", "internal/record"}},
	{"internal/e2e/faults", []string{"internal/manual"}},
	// The cost of the milter protocol alone is measured with a handler of the bench.
	{"internal/e2e/bench", slices.Concat(infrastructure, []string{"internal/e2e/...", "internal/postfixtest", "milter", "internal/manual"})},
	{"internal/e2e/...", slices.Concat(infrastructure, []string{"internal/e2e/...", "internal/postfixtest", "internal/rotate"})},
	{"internal/golden", nil},
	{"internal/arch", nil},
	// It asks the programs for their help; it is part of none.
	{"internal/manual/manualtest", []string{"internal/manual", "internal/metrics"}},
	{"internal/manual/...", nil},
	// It reads what is noted in any program.
	{"internal/sbom", nil},
}

// silent packages return what they found to their caller: they log nothing.
var (
	silent  = []string{"greylist/...", "internal/limit/...", "dnsbl/...", "internal/spf/...", "internal/dkim/...", "internal/dmarc/...", "internal/arc/...", "internal/author/...", "internal/ownership/...", "internal/postmap/...", "internal/allowlist/...", "internal/helo/...", "internal/breaker", "internal/reportread", "internal/store/...", "internal/rsaengine"}
	loggers = []string{"go.uber.org/zap", "go.uber.org/zap/zapcore", "log", "log/slog", "log/syslog"}
)

// top is what may stand at the top of the tree, beside dot files and what a
// build or a profile leaves there.
var top = []string{
	"cmd", "policy", "greylist", "dnsbl", "milter", "internal", "deploy",
	"go.mod", "go.sum", "README.md", "Makefile", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md",
	"bin", "dist", ".*", "*.test", "*.prof",
}

func TestImportsPointOneWay(t *testing.T) {
	imports, err := readImports(os.DirFS(root(t)))
	if err != nil {
		t.Fatal(err)
	}
	if len(imports["internal/arch"]) != 0 || len(imports) < 2 {
		t.Fatalf("read %d packages: the tree was not found", len(imports))
	}
	for _, wrong := range violations(imports) {
		t.Error(wrong)
	}
}

func TestTopLevel(t *testing.T) {
	entries, err := os.ReadDir(root(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.ContainsFunc(top, func(pattern string) bool {
			ok, err := path.Match(pattern, e.Name())
			return ok && err == nil
		}) {
			t.Errorf("%s does not belong at the top of the tree", e.Name())
		}
	}
}

// TestRules feeds the rules what they must catch.
func TestRules(t *testing.T) {
	tests := []struct {
		name, file, source, want string
	}{
		{"against the way", "policy/wire/a.go", `import _ "github.com/postern-mail/postern/policy"`, "policy/wire must not import policy"},
		{"sideways", "milter/sign/a.go", `import _ "github.com/postern-mail/postern/milter/verify"`, "milter/sign must not import milter/verify"},
		{"logging", "greylist/a.go", `import _ "go.uber.org/zap"`, "greylist must not log (go.uber.org/zap)"},
		{"with a build tag", "dnsbl/a_windows.go", `import _ "log/slog"`, "dnsbl must not log (log/slog)"},
		{"unknown package", "internal/misc/a.go", ``, "internal/misc: no row says what it may import"},
		{"allowed", "policy/checks/a.go", `import _ "github.com/postern-mail/postern/policy"`, ""},
		{"below", "internal/dkim/key/a.go", `import _ "github.com/postern-mail/postern/internal/dkim"`, ""},
		{"tables know no owners", "internal/postmap/a.go", `import _ "github.com/postern-mail/postern/internal/ownership"`, "internal/postmap must not import internal/ownership"},
		{"similar name", "policy/a.go", `import _ "github.com/postern-mail/postern/policy/wirelike"`, "policy must not import policy/wirelike"},
		{"tests may", "policy/wire/a_test.go", `import _ "github.com/postern-mail/postern/policy"`, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tree := fstest.MapFS{test.file: {Data: []byte("package p\n" + test.source)}}
			imports, err := readImports(tree)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(violations(imports), "; "); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// violations returns one line for each import that no row allows.
func violations(imports map[string][]string) []string {
	var wrong []string
	for pkg, all := range imports {
		i := slices.IndexFunc(rows, func(r row) bool { return matches(r.pkg, pkg) })
		if i < 0 {
			wrong = append(wrong, pkg+": no row says what it may import")
			continue
		}
		for _, imported := range all {
			ours, ok := strings.CutPrefix(imported, module+"/")
			switch {
			case ok && !matchesAny(rows[i].may, ours):
				wrong = append(wrong, fmt.Sprintf("%s must not import %s", pkg, ours))
			case matchesAny(silent, pkg) && slices.Contains(loggers, imported):
				wrong = append(wrong, fmt.Sprintf("%s must not log (%s)", pkg, imported))
			}
		}
	}
	slices.Sort(wrong)
	return wrong
}

func matches(pattern, pkg string) bool {
	base, below := strings.CutSuffix(pattern, "/...")
	return pkg == base || below && strings.HasPrefix(pkg, base+"/")
}

func matchesAny(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, pkg) })
}

// readImports returns the imports of every package below tree, whatever the
// build tags of a file; test files are free to import what they test against.
func readImports(tree fs.FS) (map[string][]string, error) {
	imports := map[string][]string{}
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		found, err := fileImports(tree, name)
		pkg := path.Dir(name)
		imports[pkg] = append(imports[pkg], found...)
		return err
	})
	return imports, err
}

func fileImports(tree fs.FS, name string) ([]string, error) {
	source, err := fs.ReadFile(tree, name)
	if err != nil {
		return nil, err
	}
	file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.ImportsOnly)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		found = append(found, imported)
	}
	return found, nil
}

// root returns the directory of go.mod.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		t.Fatal(err)
	}
	return dir
}
