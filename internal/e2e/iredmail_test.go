package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/postfixtest/backendtest"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

const (
	iredAnn = "ann@ired.example"
	iredBob = "bob@ired.example"
	// iredSMTPS is the service of iRedMail at port 465.
	iredSMTPS = "465"
	// iredBack is where amavisd hands mail back.
	iredBack = "127.0.0.1:10025"
)

// What iRedMail has in main.cf and master.cf, as far as Postern's lines touch it.
const (
	iredMain = `compatibility_level = 3.6
swap_bangpath = no
allow_percent_hack = no
smtputf8_enable = no
smtpd_reject_unlisted_sender = yes
smtpd_sender_restrictions = reject_non_fqdn_sender reject_unlisted_sender permit_mynetworks permit_sasl_authenticated
smtpd_recipient_restrictions = reject_non_fqdn_recipient reject_unlisted_recipient check_policy_service inet:127.0.0.1:7777 permit_mynetworks permit_sasl_authenticated reject_unauth_destination check_policy_service inet:127.0.0.1:12340
recipient_delimiter = +
`
	iredMaster = `smtp inet n - n - - smtpd
submission inet n - n - - smtpd
  -o smtpd_sasl_auth_enable=yes
465 inet n - n - - smtpd
  -o smtpd_sasl_auth_enable=yes
127.0.0.1:10025 inet n - n - - smtpd
  -o smtpd_recipient_restrictions=permit_mynetworks,reject
  -o mynetworks=127.0.0.0/8
127.0.0.1:10028 inet n - n - - smtpd
  -o smtpd_recipient_restrictions=permit_mynetworks,reject
`
)

// TestIRedMail is a site with iRedMail's tables in a MariaDB.
func TestIRedMail(t *testing.T) {
	t.Parallel()
	postfixtest.Require(t)
	e := &example{name: "iredmail", dir: openDir(t), dns: resolvertest.New(t, awayZone+bankZone+Zones)}
	db := backendtest.NewMariaDB(t, e.shipped(t, "tables.sql"))
	e.addresses(t)
	e.replace = append(e.replace, "127.0.0.1:3306", db.Addr, "127.0.0.1:7777", quotaService(t), "127.0.0.1:12340", quotaService(t),
		"/etc/postfix/mysql/", e.dir+"/", "/etc/postern/", e.dir+"/", "shadow = [\"all\"]\n", "")
	for _, name := range []string{"sender_login_maps.cf", "aliases.cf", "alias-domains.cf"} {
		e.write(t, name)
	}
	e.startPolicyd(t, "policyd.toml", "--greylist-store", "memory:", "--greylist-delay", "1s")
	e.startMilterd(t, "milterd.toml", "--listen-verify", e.place("inet:127.0.0.1:10046"), "--listen-sign", e.place("inet:127.0.0.1:10047"), "--dkim-keys", "", "--mark-key-file", "")
	main, master := e.attach(t, iredMain, iredMaster)
	e.postfix = postfixtest.New(t, postfixtest.Config{
		Hostname: "mail.example.org", Domains: []string{"ired.example", "ired.test.example"},
		Users:      map[string]string{iredAnn: password, iredBob: password},
		Main:       slices.Concat(main, []string{"virtual_mailbox_maps = static:exists", "mynetworks ="}),
		Submission: master["submission"],
		More: []postfixtest.Service{
			{Name: iredSMTPS, Login: true, Options: master[iredSMTPS]},
			{Name: iredBack, Options: master[iredBack]},
		},
	})
	t.Run("ownership", e.iredOwnership)
	t.Run("inbound", e.iredInbound)
	t.Run("a change in the database", func(t *testing.T) {
		db.Exec("INSERT INTO vmail.forwardings (address, forwarding, domain, dest_domain, is_alias) VALUES ('new@ired.example', '" + iredBob + "', 'ired.example', 'ired.example', 1);\n")
		e.expect(t, postfixtest.Submission, As(iredBob, "new@ired.example", Stranger), 250, record.OwnerOwnedByAlias)
	})
}

func (e *example) iredOwnership(t *testing.T) {
	for _, c := range []struct {
		login, from string
		code        int
		reason      record.Reason
	}{
		{iredAnn, iredAnn, 250, record.OwnerSelf},
		{iredAnn, "ann+june@ired.example", 250, record.OwnerSelf},
		{iredAnn, "ann.smith@ired.example", 250, record.OwnerOwnedByAlias},
		{iredBob, "ann.smith@ired.example", 553, record.OwnerNotOwned},
		{iredBob, iredAnn, 553, record.OwnerNotOwned}, // to whom ann forwards
		{iredAnn, "ann@ired.test.example", 250, record.OwnerOwnedByAlias},
		{iredAnn, "ann.smith@ired.test.example", 250, record.OwnerOwnedByAlias},
		{iredBob, "ann@ired.test.example", 553, record.OwnerNotOwned},
		{iredAnn, "team@ired.example", 553, record.OwnerUnlisted}, // a list, see aliases.cf
		{iredAnn, "gone@ired.example", 553, record.OwnerUnlisted},
		{iredAnn, "o'hara@ired.example", 553, record.OwnerUnlisted},
	} {
		for _, service := range []string{postfixtest.Submission, iredSMTPS} {
			e.expect(t, service, As(c.login, c.from, Stranger), c.code, c.reason)
		}
	}
	e.delivered(t, Stranger)
	if got := e.send(t, postfixtest.Submission, As(iredAnn, `"' or '1'='1"@ired.example`, Stranger)); got.Code != 553 {
		t.Errorf("quotes in the sender: %s", got)
	}
}

func (e *example) iredInbound(t *testing.T) {
	e.expect(t, postfixtest.MX, client("198.51.100.7", "mx.away.example", iredAnn, iredBob), 553, record.OwnerNotLoggedIn)
	e.expect(t, postfixtest.MX, client("192.0.2.7", "mx.away.example", Stranger, iredBob), 550, record.DNSBLClientListed)
	m := fromOutside(Stranger, iredBob)
	e.expect(t, postfixtest.MX, m, 450, record.GreylistNew)
	eventually(t, func() bool { return e.send(t, postfixtest.MX, m).Code == 250 })
	d := e.delivered(t, iredBob)
	e.judgedOnce(t, d, "mail.example.org", "spf=pass")
	// amavisd hands it back.
	back := postfixtest.Mail{From: Stranger, To: []string{iredBob}, Message: strings.ReplaceAll(string(d.Data), "\r\n", "\n")}
	if err := e.accepted(t, iredBack, back); err != nil {
		t.Fatal(err)
	}
	e.judgedOnce(t, e.delivered(t, iredBob), "mail.example.org", "spf=pass")
	isVerify := func(r postfixtest.Record) bool { return r.Check == "verify" }
	// The record is read a moment after the reply.
	if _, err := e.milter.WaitLine(t.Context(), isVerify); err != nil {
		t.Fatal(err)
	}
	verified := 0
	for _, r := range e.milter.Records() {
		if isVerify(r) {
			verified++
		}
	}
	if verified != 1 {
		t.Errorf("the mail was judged %d times", verified)
	}
}
