package setup_test

import (
	"cmp"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/golden"
	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/setup"
)

// Setup warns that users who log in without a domain are refused where that is true.
func TestLoginsWithoutADomain(t *testing.T) {
	postfixtest.Require(t)
	const refused = "if users log in without a domain, name it with --login-domain, or each of them is refused"
	for name, test := range map[string]struct {
		maps, table, policyd string
		domains              string // the lines of main.cf with the domains; "" for one local domain
		want                 string // "" for no warning
	}{
		"no table":                      {want: refused},
		"a table names users so":        {maps: "hash:ROOT/etc/postfix/logins", table: "a@example.org bob@example.org\npress@example.org bob@example.org, alice\n"},
		"a table names them otherwise":  {maps: "hash:ROOT/etc/postfix/logins", table: "press@example.org alice@example.org\n", want: refused},
		"a table that cannot be listed": {maps: "mysql:ROOT/etc/postfix/logins", table: "hosts = 127.0.0.1:1\nuser = u\npassword = p\ndbname = d\nquery = SELECT '%s'\n", want: refused + ", unless the tables of owners name them without one"},
		"a table of the administrator":  {policyd: "owners = [\"inline:{press@example.org=alice}\"]\n"},
		"no check of ownership":         {policyd: "checks = [\"limit\"]\nlimit = [\"login.recipients=300/1h\"]\n"},
		"an instance that only sends":   {domains: "mydestination =\n", want: refused},
		"localhost is no domain":        {domains: "mydestination = localhost\n", want: refused},
		"virtual mailboxes":             {domains: "mydestination = localhost\nvirtual_mailbox_domains = example.org\n"},
		"virtual aliases":               {domains: "mydestination =\nvirtual_alias_domains = example.org\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root, files := t.TempDir(), fromFiles()
			domains := cmp.Or(test.domains, "mydestination = lists.example.org\n")
			files["main.cf"] = "compatibility_level = 3.6\nmyhostname = mail.example.org\n" + domains + "myorigin = example.org\nalias_maps =\nsmtpd_sender_login_maps = " + test.maps + "\n"
			files["logins"] = test.table
			if test.policyd != "" {
				files["/etc/postern/policyd.toml"] = test.policyd
			}
			write(t, root, files)
			plan, err := setup.MakePlan(t.Context(), options(root, golden.Case{}))
			if err != nil {
				t.Fatal(err)
			}
			said := slices.DeleteFunc(plan.Warnings, func(w string) bool { return !strings.Contains(w, "log in without a domain") })
			if got := strings.Join(said, "\n"); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
