package setup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/golden"
	"github.com/postern-mail/postern/internal/milterd"
	"github.com/postern-mail/postern/internal/policyd"
	"github.com/postern-mail/postern/internal/postconf"
	"github.com/postern-mail/postern/internal/postfixtest"
)

// once carries a plan out as an Applier does, without the daemons: our files, and both files
// of Postfix.
func once(t *testing.T, p *Plan) {
	t.Helper()
	for _, f := range p.Files {
		if err := errors.Join(os.MkdirAll(filepath.Dir(f.Path), 0o755), os.WriteFile(f.Path, f.Text, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := edit(t.Context(), p.Postfix.Dir, p.Changes); err != nil {
		t.Fatal(err)
	}
	if err := asPlanned(t.Context(), p.Postfix.Dir, p.Changes); err != nil {
		t.Fatal(err)
	}
}

// After each plan of testdata/plans is carried out, a second run with the same flags has
// nothing to do.
func TestPlansAgain(t *testing.T) {
	postfixtest.Require(t)
	for _, c := range golden.Files(t, "testdata/plans/*.txt") {
		if c.Name == "watched" { // the run after --shadow=false writes from-ownership: SETUP.md
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			o := Options{
				ConfigDirectory: filepath.Join(root, "etc/postfix"), Root: root, User: "postern",
				Policyd: Daemon{policyd.Program(), filepath.Join(root, "etc/postern/policyd.toml")},
				Milterd: Daemon{milterd.Program(), filepath.Join(root, "etc/postern/milterd.toml")},
				Policy:  DefaultPolicy, Verify: DefaultVerify, Sign: DefaultSign,
				Only: c.Get("only"), Signer: c.Get("signer"), Greylister: c.Get("greylister"),
			}
			for field, endpoint := range map[string]*string{"policy": &o.Policy, "verify": &o.Verify, "sign": &o.Sign} {
				if value := c.Get(field); value != "" {
					*endpoint = value
				}
			}
			if shadow, err := strconv.ParseBool(c.Get("shadow")); err == nil {
				o.Shadow = &shadow
			}
			delete(c.Sections, "message")
			for name, text := range c.Sections {
				path := filepath.Join(o.ConfigDirectory, name)
				if strings.HasPrefix(name, "/") {
					path = filepath.Join(root, name)
				}
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(strings.ReplaceAll(text, "ROOT", root)), 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			if err := postconf.Settle(o.ConfigDirectory); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			plan, err := MakePlan(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			once(t, plan)
			again, err := MakePlan(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if again.Nothing() {
				return
			}
			var out strings.Builder
			again.Print(&out, func(s string) string { return s })
			t.Errorf("a second run would change more:\n%s", &out)
		})
	}
}

// A last line without an end does not take in the parameter that comes after it, and undo
// gives the line back as it was.
func TestLastLine(t *testing.T) {
	t.Parallel()
	for _, last := range []string{"# a comment", "biff = no"} {
		s := newSite(t)
		for name, end := range map[string]string{"main.cf": siteMain + "\n" + last, "master.cf": strings.TrimSpace(siteMaster)} {
			path := filepath.Join(s.ConfigDirectory, name)
			if err := os.WriteFile(path, []byte(strings.ReplaceAll(end, "%[1]s", s.dir)), 0o640); err != nil {
				t.Fatal(err)
			}
		}
		if err := postconf.Settle(s.ConfigDirectory); err != nil {
			t.Fatal(err)
		}
		before := s.tree(t)
		if err := s.apply(t.Context()); err != nil {
			t.Fatalf("after %q: %v", last, err)
		}
		text, err := os.ReadFile(filepath.Join(s.ConfigDirectory, "main.cf"))
		if err != nil || !strings.Contains(string(text), "\n"+last+"\n") {
			t.Errorf("main.cf is now\n%s, %v", text, err)
		}
		if err := s.Undo(t.Context()); err != nil {
			t.Fatal(err)
		}
		sameTree(t, before, s.tree(t))
	}
}
