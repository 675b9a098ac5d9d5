package main

import (
	"context"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
)

func TestOwnersList(t *testing.T) {
	tests := []struct {
		name   string
		args   []string
		answer api.OwnersListResult
		code   int
		want   string
	}{
		{
			name: "entries of every kind",
			args: []string{"ann@x.example"},
			answer: api.OwnersListResult{Entries: []api.OwnersListEntry{
				{Sender: "ann@x.example", How: "self", Entry: "ann@x.example"},
				{Sender: "@all.example", How: "map", Map: "hash:/etc/postfix/owners", Entry: "ann@x.example", Where: "/etc/postfix/owners:2"},
				{Sender: "all@x.example", How: "alias", Map: "inline:{...}", Via: []string{"info@x.example", "pr@x.example"}},
			}},
			code: exitYes,
			want: "ann@x.example  self   \n" +
				"@all.example   map    /etc/postfix/owners:2\n" +
				"all@x.example  alias  inline:{...} via info@x.example, pr@x.example\n",
		},
		{
			name:   "nothing, in tables that cannot be listed",
			args:   []string{"eve", "pr@x.example", "@x.example"},
			answer: api.OwnersListResult{Entries: []api.OwnersListEntry{}, Unread: []string{"mysql:/etc/postfix/owners.cf", "ldap:/etc/postfix/a.cf", "mysql:/etc/postfix/owners.cf"}},
			code:   exitNo,
			want: "ldap:/etc/postfix/a.cf, mysql:/etc/postfix/owners.cf cannot be listed: such a table says who owns a sender, not what a login owns; " +
				"name senders after LOGIN to ask for them\n",
		},
		{
			name:   "too many",
			args:   []string{"root"},
			answer: api.OwnersListResult{Entries: []api.OwnersListEntry{{Sender: "a@x.example", How: "map", Map: "m"}}, Truncated: true},
			code:   exitYes,
			want:   "a@x.example  map  m\n(there are more)\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var asked api.OwnersListArgs
			path := serveCommands(t, api.Policyd, map[string]admin.Handler{
				"owners.list": admin.Typed(func(_ context.Context, args api.OwnersListArgs, _ func(any)) (any, error) {
					asked = args
					return tt.answer, nil
				}),
			})
			code, out, stderr := postern(t, append([]string{"owners", "list", "--admin", path}, tt.args...)...)
			if code != tt.code || out != tt.want || stderr != "" {
				t.Errorf("exit %d, %q, %q", code, out, stderr)
			}
			if want := append([]string{asked.Login}, asked.Senders...); !reflect.DeepEqual(want, tt.args) {
				t.Errorf("the daemon is asked %+v", asked)
			}
			code, out, _ = postern(t, append([]string{"owners", "list", "--json", "--admin", path}, tt.args...)...)
			var got api.OwnersListResult
			if err := json.Unmarshal([]byte(out), &got); err != nil || code != tt.code || !reflect.DeepEqual(got, tt.answer) {
				t.Errorf("JSON: exit %d, %+v, %v", code, got, err)
			}
		})
	}
}

func TestOwnersListFails(t *testing.T) {
	const usage = "postern owners list: wrong number of arguments; usage: postern owners list [flags] LOGIN [SENDER ...]\n"
	if code, out, stderr := postern(t, "owners", "list"); code != exitFailed || out != "" || stderr != usage {
		t.Errorf("without a login: exit %d, %q, %q", code, out, stderr)
	}
	path := serveCommands(t, api.Policyd, map[string]admin.Handler{
		"owners.list": admin.Typed(func(context.Context, api.OwnersListArgs, func(any)) (any, error) {
			return nil, &admin.Error{Code: admin.CodeFailed, Message: "table mysql:x: no route to host"}
		}),
	})
	if code, out, stderr := postern(t, "owners", "list", "--admin", path, "ann"); code != exitFailed || out != "" || stderr != "postern owners list: table mysql:x: no route to host\n" {
		t.Errorf("a daemon that fails: exit %d, %q, %q", code, out, stderr)
	}
}
