package ownership_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/ownership"
	"github.com/postern-mail/postern/internal/postmap"
)

// BenchmarkCheck100k measures one ownership question on a hash: table of 100,000
// senders: granted, granted without the extension, refused, and unlisted.
func BenchmarkCheck100k(b *testing.B) {
	var text strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&text, "user%06d@mail.example.com login%06d@mail.example.com\n", i, i)
	}
	table, err := postmap.Open("hash:"+file(b, "owners", text.String()), postmap.Options{})
	if err != nil {
		b.Fatal(err)
	}
	owners, err := ownership.New(ownership.Config{
		Owners: []postmap.Table{table}, SelfOwned: true, Delimiters: "+",
		LoginDomain: "example.com", LocalDomains: []string{"mail.example.com"},
	})
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name, sender, login string
		owned               bool
	}{
		{"owned", "user077777@mail.example.com", "login077777@mail.example.com", true},
		{"extension", "user077777+tag@mail.example.com", "login077777@mail.example.com", true},
		{"refused", "user077777@mail.example.com", "login000001@mail.example.com", false},
		{"unlisted", "nobody@elsewhere.example.com", "login000001@mail.example.com", false},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				answer, err := owners.Check(b.Context(), mailaddr.ParseInternal(c.sender), c.login)
				if err != nil || answer.Owned != c.owned {
					b.Fatal(answer, err)
				}
			}
		})
	}
}

// file writes a table file and returns its path.
func file(tb testing.TB, name, text string) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// A decision with its detail makes three allocations: the values of the entry,
// its place, and the detail.
func TestDecisionAllocates(t *testing.T) {
	table, err := postmap.Open("hash:"+file(t, "owners", "user@mail.example.com login@mail.example.com\n"), postmap.Options{})
	if err != nil {
		t.Fatal(err)
	}
	owners, err := ownership.New(ownership.Config{Owners: []postmap.Table{table}, Delimiters: "+"})
	if err != nil {
		t.Fatal(err)
	}
	judge := ownership.Judge{Owners: owners}
	sender := mailaddr.ParseInternal("user@mail.example.com")
	allocations := testing.AllocsPerRun(100, func() {
		ruling, err := judge.Decide(t.Context(), sender, "login@mail.example.com")
		if err != nil || ruling.Kind != ownership.Allowed || ruling.Detail() == "" {
			t.Error(ruling, err)
		}
	})
	if allocations > 3 {
		t.Errorf("%v allocations", allocations)
	}
}
