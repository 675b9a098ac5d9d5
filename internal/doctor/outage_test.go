package doctor

import "testing"

// What one server causes is one finding, whatever port our side had.
func TestOutages(t *testing.T) {
	policyd := &Daemon{Name: "postern-policyd", Problems: []string{
		"/etc/postern/policyd.toml:3: owners: table mysql:/etc/postfix/owners.cf cannot answer: 192.0.2.1:3306: read tcp 192.0.2.9:40001->192.0.2.1:3306: i/o timeout",
		"/etc/postern/policyd.toml:4: owner-aliases: table mysql:/etc/postfix/aliases.cf cannot answer: 192.0.2.1:3306: read tcp 192.0.2.9:40002->192.0.2.1:3306: i/o timeout",
		"/etc/postern/policyd.toml:5: limit-overrides: table ldap:/etc/postfix/limits.cf cannot answer: ldap://192.0.2.2: connection refused",
		"/etc/postern/policyd.toml:6: dqs-key-file: permission denied",
	}}
	milterd := &Daemon{Name: "postern-milterd", Problems: []string{
		"/etc/postern/milterd.toml:3: owners: table mysql:/etc/postfix/owners.cf cannot answer: 192.0.2.1:3306: read tcp 192.0.2.9:40003->192.0.2.1:3306: i/o timeout",
	}}
	var silent []*outage
	found := append(policyd.problems(&silent), milterd.problems(&silent)...)
	for _, o := range silent {
		found = append(found, o.finding())
	}
	const want = `fail : postern-policyd: /etc/postern/policyd.toml:6: dqs-key-file: permission denied; fix: correct this setting; postern-policyd --check-config looks again
fail : postern-policyd and postern-milterd: mysql:/etc/postfix/owners.cf, mysql:/etc/postfix/aliases.cf cannot answer: 192.0.2.1:3306: read tcp 192.0.2.1:3306: i/o timeout; fix: start that server, or correct how the tables name it; postern doctor --check settings looks again
fail : postern-policyd: /etc/postern/policyd.toml:5: limit-overrides: table ldap:/etc/postfix/limits.cf cannot answer: ldap://192.0.2.2: connection refused; fix: start that server, or correct how the table names it; postern-policyd --check-config --online looks again
`
	if got := show(found); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
