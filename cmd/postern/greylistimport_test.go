package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
)

// An import that ends in the middle says what it has done. Its progress is for
// terminals.
func TestGreylistImportInterrupted(t *testing.T) {
	ctx, interrupt := context.WithCancelCause(t.Context())
	done := 0
	path := serveCommands(t, api.Policyd, map[string]admin.Handler{
		api.GreylistImport: admin.Typed(func(ctx context.Context, args api.GreylistImportArgs, _ func(any)) (any, error) {
			if done > 0 {
				interrupt(errSignal)
				<-ctx.Done()
				return nil, ctx.Err()
			}
			done = len(args.Entries)
			return api.GreylistImportResult{Imported: done}, nil
		}),
	})
	var dump strings.Builder
	dump.WriteString("VERSION=3\nformat=print\ntype=btree\nHEADER=END\n")
	for i := range 1000 {
		fmt.Fprintf(&dump, " 192.0.2.0/ann%d@x.example/bob@y.example\n 1790000000,1790000600\n", i)
	}
	dump.WriteString("DATA=END\n")
	file := filepath.Join(t.TempDir(), "postgrey.txt")
	if err := os.WriteFile(file, []byte(dump.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, stderr strings.Builder
	code := run(ctx, []string{"greylist", "import", "--admin", path, "--postgrey", file}, streams{&out, &stderr})
	want := fmt.Sprintf("%s; %d entries were imported and stay: run the command again, which takes them once\n", errSignal, done)
	if code != exitFailed || done == 0 || out.String() != "" || !strings.HasSuffix(stderr.String(), want) || strings.ContainsAny(stderr.String(), "\r") {
		t.Errorf("exit %d, %q, %q, want %q", code, &out, &stderr, want)
	}
}
