package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
)

// TestDMARCBounce shows after which failures Postfix tries again.
func TestDMARCBounce(t *testing.T) {
	answering := func(err error) string {
		return serveCommands(t, api.Milterd, map[string]admin.Handler{
			api.DMARCReportBounce: func(context.Context, json.RawMessage, func(any)) (any, error) { return api.DMARCReportBounced{}, err },
		})
	}
	const recipient = "reports+b.abcdefghijklmnop@home.example"
	for name, test := range map[string]struct {
		path, recipient string
		code            int
		says            string
	}{
		"taken":                {answering(nil), recipient, exitYes, ""},
		"not running":          {t.TempDir() + "/none.sock", recipient, exitAgain, "is postern-milterd running?"},
		"the store is away":    {answering(errors.New("redis: no answer")), recipient, exitAgain, "redis: no answer"},
		"of no report of ours": {answering(&admin.Error{Code: admin.CodeBadArgs, Message: "no report"}), recipient, exitFailed, "no report"},
		"without a token":      {answering(nil), "reports@home.example", exitFailed, "LOCAL+b.TOKEN@DOMAIN"},
	} {
		code, _, said := postern(t, "dmarc", "bounce", test.recipient, "--admin", test.path)
		if code != test.code || !strings.Contains(said, test.says) || test.says != "" && !strings.HasPrefix(said, "postern dmarc bounce: ") {
			t.Errorf("%s: exit status %d, %q", name, code, said)
		}
	}
}

// TestReportsToAFolderThatOthersWrite: a link that has the name of a report is replaced,
// and the file that it leads to stays. A report that is cut off leaves no file.
func TestReportsToAFolderThatOthersWrite(t *testing.T) {
	folder := t.TempDir()
	secret, report := filepath.Join(t.TempDir(), "secret"), filepath.Join(folder, "a.xml.gz")
	if err := errors.Join(os.WriteFile(secret, []byte("kept"), 0o600), os.Symlink(secret, report)); err != nil {
		t.Fatal(err)
	}
	var fails error
	path := serveCommands(t, api.Milterd, map[string]admin.Handler{
		api.DMARCReportPreview: func(_ context.Context, _ json.RawMessage, progress func(any)) (any, error) {
			progress(api.DMARCReportFile{Report: &api.DMARCReport{File: filepath.Base(report)}, Data: []byte("new ")})
			progress(api.DMARCReportFile{Data: []byte("report")})
			return api.DMARCReportDone{Reports: 1}, fails
		},
	})
	preview := func() (code int) {
		code, _, _ = postern(t, "dmarc", "report", "preview", "--to-dir", folder, "--admin", path)
		return code
	}
	if code := preview(); code != exitYes {
		t.Fatal("exit status", code)
	}
	expect := func(name, want string) {
		t.Helper()
		if text, err := os.ReadFile(name); string(text) != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", name, text, err, want)
		}
	}
	expect(secret, "kept")
	expect(report, "new report")
	if info, err := os.Lstat(report); err != nil || info.Mode() != 0o640 {
		t.Error(info, err)
	}
	if err := os.Remove(report); err != nil {
		t.Fatal(err)
	}
	if fails = errors.New("the store is away"); preview() != exitFailed {
		t.Error("an error, and the exit status has none")
	}
	if left, err := os.ReadDir(folder); len(left) != 0 || err != nil {
		t.Error("left behind:", left, err)
	}
}
