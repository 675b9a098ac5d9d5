package setup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postconf"
)

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
