package policyd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/postfixtest/backendtest"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/policy"
)

// mysqlExample is a file of the example for MySQL.
func mysqlExample(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../deploy/examples/mysql", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Limits of their own that logins have in a column of a real database, with the query
// of the example: more, less, none, what cannot be read, and what happens when the
// server is away.
func TestLimitOverridesMySQL(t *testing.T) {
	m := backendtest.NewMariaDB(t, mysqlExample(t, "tables.sql"), `ALTER TABLE user ADD COLUMN send_limit VARCHAR(200) NULL;
INSERT INTO user (username, password, send_limit) VALUES ('more', 'x', 'recipients=5/1h'), ('less', 'x', 'recipients=1/1h'), ('free', 'x', 'off'), ('typo', 'x', 'recipients=many');
`)
	maps := filepath.Join(t.TempDir(), "mysql-limits.cf")
	if err := os.WriteFile(maps, []byte(strings.Replace(mysqlExample(t, "mysql-limits.cf"), "/run/mysqld/mysqld.sock", m.Socket, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _ := inForceWith(t, "--checks=limit", "--limit-store=memory:", "--limit=login=3/1h", "--limit-on-error=defer", "--login-domain=cacert.example", "--limit-overrides=mysql:"+maps)
	for login, want := range map[string]int{"more": 5, "less": 1, "free": 9, "typo": 3, "ann": 3, "o'hara": 3, "stranger@x.example": 3} {
		if n := asks(t, c, login, login, 9); n != want {
			t.Errorf("%s: %d passed, want %d", login, n, want)
		}
	}
	if d := ask(t, c, limitRequest("More@CACERT.example", "again")); d.Kind != policy.Defer {
		t.Errorf("another spelling has limits of its own: %+v", d)
	}
	show := adminAsk[api.LimitsShowResult](t, c, api.LimitsShow, api.LimitsOfArgs{Value: "more"})
	if show.Override == nil || show.Override.Entry != "recipients=5/1h" || show.Override.Table != "mysql:"+maps {
		t.Errorf("show: %+v", show.Override)
	}
	pass, _ := inForceWith(t, "--checks=limit", "--limit-store=memory:", "--limit=login=3/1h", "--limit=network=11/1h", "--login-domain=cacert.example", "--limit-overrides=mysql:"+maps)
	if n := asks(t, pass, "less", "less", 2); n != 1 {
		t.Errorf("%d passed", n)
	}
	m.Kill()
	if d := ask(t, c, limitRequest("new@cacert.example", "a")); d.Kind != policy.Defer || d.Reason != record.LimitUnavailable {
		t.Errorf("without the server: %+v", d)
	}
	// With pass, its own limit holds where it is known. Else the mail is counted, and only the
	// limit of the network refuses it.
	if n := asks(t, pass, "less", "later", 2); n != 0 {
		t.Errorf("%d passed beyond the last known limit", n)
	}
	for i := range 10 {
		d := ask(t, pass, limitRequest("new@cacert.example", fmt.Sprint("pass", i)))
		if d.Kind != policy.Pass || d.Reason != record.LimitUnavailable || d.Err == nil || !strings.Contains(d.Steps[0].Verdict.Detail, "used=") {
			t.Errorf("mail %d without the server: %+v", i, d)
		}
	}
	if d := ask(t, pass, limitRequest("new@cacert.example", "beyond")); d.Kind != policy.Defer || d.Reason != record.LimitRecipients {
		t.Errorf("beyond the limit of the network: %+v", d)
	}
	if list := adminAsk[api.LimitsListResult](t, pass, api.LimitsList, api.LimitsListArgs{}); list.Unknown == "" || len(list.Uses) != 3 {
		t.Errorf("list: %+v", list)
	}
	if show := adminAsk[api.LimitsShowResult](t, pass, api.LimitsShow, api.LimitsOfArgs{Value: "new"}); show.Unknown == "" || len(show.Uses) != 1 || show.Uses[0].Used != 10 || show.Uses[0].Action != "defer" {
		t.Errorf("show: %+v", show)
	}
	m.Start()
	for d := ask(t, c, limitRequest("later@cacert.example", "a")); d.Kind != policy.Pass; d = ask(t, c, limitRequest("later@cacert.example", "a")) {
		if d.Reason != record.LimitUnavailable {
			t.Fatalf("until the server is back: %+v", d)
		}
	}
	for d := ask(t, pass, limitRequest("new@cacert.example", "back")); ; d = ask(t, pass, limitRequest("new@cacert.example", "back")) {
		if d.Kind == policy.Defer && strings.Contains(d.Steps[0].Verdict.Detail, "limit=login") && d.Steps[0].Unanswered() == nil {
			break // what was counted meanwhile counts
		} else if d.Steps[0].Unanswered() == nil {
			t.Fatalf("when the server is back: %+v", d)
		}
	}
}
