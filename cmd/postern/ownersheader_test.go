package main

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
)

func TestOwnersCheckHeader(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mail.eml")
	message := "From x@y Mon Jan  1 00:00:00 2024\nReceived: by x\nfrom: Bob\n <bob@home.example>\nSubject: x\nResent-Sender: a@home.example\n\nFrom: body@home.example\n"
	if err := os.WriteFile(file, []byte(message), 0o600); err != nil {
		t.Fatal(err)
	}
	fields := []api.ExplainedField{{Name: "from", Value: " Bob\r\n <bob@home.example>"}, {Name: "Resent-Sender", Value: " a@home.example"}}
	for _, tt := range []struct {
		name   string
		args   []string
		answer api.OwnersHeaderResult
		asked  api.OwnersHeaderArgs
		code   int
		want   string
	}{
		{
			"yes", []string{"alice"}, api.OwnersHeaderResult{Allowed: true, Reason: "owned", Field: "From", Address: "bob@home.example", Map: "hash:/x", Key: "bob@home.example", Where: "/x:3"},
			api.OwnersHeaderArgs{Login: "alice", Sender: "alice", Fields: fields}, exitYes,
			"yes: alice may send " + file + " (owned)\n  field   From\n  address bob@home.example\n  map     hash:/x\n  key     bob@home.example\n  at      /x:3\n",
		},
		{
			"no", []string{"--sender", "s@home.example", "alice"},
			api.OwnersHeaderResult{Reason: "from_not_owned", Field: "From", Address: "bob\x1b@home.example", Reply: "no", Display: []string{"a@x.example", "b@x.example"}, Shadow: true},
			api.OwnersHeaderArgs{Login: "alice", Sender: "s@home.example", Fields: fields}, exitNo,
			"no: alice may not send " + file + " (from_not_owned)\n  field   From\n  address " + shown("bob\x1b@home.example") + "\n  shows   a@x.example, b@x.example\n  reply   no\n" +
				"  (From ownership is shadowed: mail is not refused)\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var asked api.OwnersHeaderArgs
			path := serveCommands(t, api.Milterd, map[string]admin.Handler{
				api.OwnersHeader: admin.Typed(func(_ context.Context, args api.OwnersHeaderArgs, _ func(any)) (any, error) {
					asked = args
					return tt.answer, nil
				}),
			})
			code, out, stderr := postern(t, append([]string{"owners", "check", "--admin", path, "--header", file}, tt.args...)...)
			if code != tt.code || out != tt.want || stderr != "" || strings.Contains(out, "\x1b") {
				t.Errorf("exit %d, %q, %q; want %d, %q", code, out, stderr, tt.code, tt.want)
			}
			if !reflect.DeepEqual(asked, tt.asked) {
				t.Errorf("asked %+v", asked)
			}
		})
	}
	path := serveCommands(t, api.Milterd, map[string]admin.Handler{})
	if code, _, stderr := postern(t, "owners", "check", "--admin", path, "--header", file, "alice"); code != exitFailed || !strings.Contains(stderr, "cannot judge a header") {
		t.Errorf("an older daemon: exit %d, %q", code, stderr)
	}
}
