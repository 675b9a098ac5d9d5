package main

import (
	"context"
	"encoding/json"
	"errors"
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
