package main

import (
	"context"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
)

func TestOwnersCheck(t *testing.T) {
	tests := []struct {
		name   string
		answer api.OwnersCheckResult
		code   int
		want   string
	}{
		{
			name: "yes",
			answer: api.OwnersCheckResult{
				Allowed: true, Verdict: "pass", Reason: "owned",
				Map: "hash:/etc/postfix/owners", Key: "press@b.example", Entry: "alice, bob", Where: "/etc/postfix/owners:12",
			},
			code: exitYes,
			want: "yes: bob may use press@b.example (owned)\n" +
				"  map     hash:/etc/postfix/owners\n  key     press@b.example\n  entry   alice, bob\n  at      /etc/postfix/owners:12\n",
		},
		{
			name: "no",
			answer: api.OwnersCheckResult{
				Verdict: "reject", Reason: "not_owned", Reply: "not owned by user bob", Map: "static:x", Key: "press@b.example", Owners: []string{"x", "y"},
			},
			code: exitNo,
			want: "no: bob may not use press@b.example (not_owned)\n" +
				"  map     static:x\n  key     press@b.example\n  owners  x, y\n  reply   not owned by user bob\n",
		},
		{
			name:   "no, but only watched",
			answer: api.OwnersCheckResult{Verdict: "reject", Reason: "sender_unlisted", Shadow: true},
			code:   exitNo,
			want:   "no: bob may not use press@b.example (sender_unlisted)\n  (the check is shadowed: mail is not refused)\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var asked api.OwnersCheckArgs
			path := serveCommands(t, api.Policyd, map[string]admin.Handler{
				"owners.check": admin.Typed(func(_ context.Context, args api.OwnersCheckArgs, _ func(any)) (any, error) {
					asked = args
					return tt.answer, nil
				}),
			})
			code, out, stderr := postern(t, "owners", "check", "--admin", path, "press@b.example", "bob")
			if code != tt.code || out != tt.want || stderr != "" {
				t.Errorf("exit %d, %q, %q", code, out, stderr)
			}
			if want := (api.OwnersCheckArgs{Sender: "press@b.example", Login: "bob"}); asked != want {
				t.Errorf("the daemon is asked %+v", asked)
			}
			code, out, _ = postern(t, "owners", "check", "press@b.example", "bob", "--json", "--admin="+path)
			var got api.OwnersCheckResult
			if err := json.Unmarshal([]byte(out), &got); err != nil || code != tt.code || !reflect.DeepEqual(got, tt.answer) {
				t.Errorf("JSON: exit %d, %+v, %v", code, got, err)
			}
		})
	}
}

func TestOwnersCheckWantsTwoArguments(t *testing.T) {
	const want = "postern owners check: wrong number of arguments; usage: postern owners check [flags] SENDER LOGIN\n"
	for _, args := range [][]string{nil, {"a@b.example"}, {"a@b.example", "b", "c"}} {
		code, out, stderr := postern(t, append([]string{"owners", "check"}, args...)...)
		if code != exitFailed || out != "" || stderr != want {
			t.Errorf("%q: exit %d, %q, %q", args, code, out, stderr)
		}
	}
}
