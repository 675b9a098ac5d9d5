package doctor

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
	"github.com/postern-mail/postern/milter/sign"
)

// trouble is a Postern with something wrong: one change to a site that works.
type trouble struct {
	name string
	// edit changes Postfix's files, the DNS, or what else is on the disk, while the
	// daemons of the site that works run.
	edit func(*site)
	// dns changes the DNS before the daemons start, who remember what it says.
	dns func(*site)
	// policyd and milterd are settings that replace or follow those of the site. The
	// daemons are down then, and other findings may say so.
	policyd, milterd string
	down, up         bool // up: the daemons run with these settings
	// own: the edit concerns more than Postfix's files, so that the site is not shared.
	own bool

	check string
	level Level
	text  string // in the finding
	fix   string // in its fix
}

// troubles are what administrators really get wrong.
func troubles() []trouble {
	return []trouble{
		// What Postfix asks, and where.
		{name: "nothing attached", edit: func(s *site) {
			s.postconf("-X", "smtpd_milters", "non_smtpd_milters")
			s.postconf("-e", "smtpd_recipient_restrictions = permit_mynetworks, reject_unauth_destination")
			s.postconf("-PX", "submission/inet/smtpd_sender_restrictions", "submission/inet/smtpd_milters")
		}, check: "attached", level: Fail, text: "asks neither daemon", fix: "postern setup"},
		{name: "attached until an upgrade", edit: func(s *site) {
			s.setupWrote("")
			s.postconf("-X", "smtpd_milters", "non_smtpd_milters")
			s.postconf("-e", "smtpd_recipient_restrictions = permit_mynetworks, reject_unauth_destination")
			s.postconf("-PX", "submission/inet/smtpd_sender_restrictions", "submission/inet/smtpd_milters")
		}, check: "attached", level: Fail, text: "asks neither daemon any more", fix: "postern setup --apply again"},
		{name: "nothing attached to one of several instances", edit: func(s *site) {
			s.postconf("-X", "smtpd_milters", "non_smtpd_milters")
			s.postconf("-e", "smtpd_recipient_restrictions = permit_mynetworks, reject_unauth_destination", "multi_instance_directories = /etc/postfix-in")
			s.postconf("-PX", "submission/inet/smtpd_sender_restrictions", "submission/inet/smtpd_milters")
		}, check: "attached", level: Fail, text: "asks neither daemon", fix: "look at that one (--config-directory /etc/postfix-in)"},
		{name: "a port that no one listens on", edit: func(s *site) { s.replace("etc/main.cf", "inet:"+s.policy, "inet:127.0.0.1:10045") },
			check: "attached", level: Fail, text: "asks inet:127.0.0.1:10045, where postern-policyd does not listen", fix: "write inet:127.0.0.1:"},
		{name: "no kind of socket", edit: func(s *site) {
			s.replace("etc/main.cf", "check_policy_service { inet:"+s.policy+", {", "check_policy_service { 127.0.0.1:10045, {")
		},
			check: "attached", level: Fail, text: "127.0.0.1:10045 is no socket as Postfix spells them", fix: "write inet:HOST:PORT"},
		{name: "a milter as libmilter spells it", edit: func(s *site) {
			s.replace("etc/main.cf", "\nsmtpd_milters = ", "\nsmtpd_milters = inet:8899@127.0.0.1 ")
		},
			check: "attached", level: Fail, text: "milter inet:8899@127.0.0.1 is no socket as Postfix spells them", fix: "write inet:HOST:PORT"},
		{name: "another program's hook in capitals", edit: func(s *site) {
			s.alsoAsks("INET:127.0.0.1:12340")
		},
			check: "attached", level: Fail, text: "INET:127.0.0.1:12340 is no socket as Postfix spells them: smtpd does not start", fix: "write inet:HOST:PORT"},
		{name: "a brace that is not closed", edit: func(s *site) { s.replace("etc/main.cf", "default_action=DUNNO }", "default_action=DUNNO") },
			check: "postfix", level: Fail, text: "smtpd_recipient_restrictions: a brace is not closed", fix: "close every brace"},
		{name: "a brace that is not closed where cleanup reads it", edit: func(s *site) {
			s.replace("etc/main.cf", "{ inet:"+s.sign+", default_action=accept }", "{ inet:"+s.sign+", default_action=accept")
		},
			check: "postfix", level: Fail, text: "non_smtpd_milters: a brace is not closed: cleanup does not start", fix: "close every brace in non_smtpd_milters"},
		{name: "a line that is none", edit: func(s *site) { s.replace("etc/main.cf", "mynetworks =", "mynetworks") },
			check: "postfix", level: Fail, text: "missing '='", fix: "correct the file"},
		{name: "a milter's port that no one listens on", edit: func(s *site) { s.postconf("-e", "smtpd_milters = { inet:localhost:10046, default_action=accept }") },
			check: "attached", level: Fail, text: "milter inet:localhost:10046, where postern-milterd does not listen", fix: "listen-verify"},
		{name: "the policy hook leads to the milter", edit: func(s *site) {
			s.replace("etc/main.cf", "check_policy_service { inet:"+s.policy+", {", "check_policy_service { inet:"+s.verify+", {")
		},
			check: "attached", level: Fail, text: "does not speak the policy protocol", fix: "name the socket of postern-policyd"},
		{name: "the milter list leads to the policy daemon", edit: func(s *site) { s.postconf("-e", "smtpd_milters = inet:"+s.policy) },
			check: "attached", level: Fail, text: "does not speak the milter protocol", fix: "name a socket of postern-milterd"},
		{name: "a socket outside of the chroot", edit: func(s *site) {
			s.replace("etc/main.cf", "check_policy_service { inet:"+s.policy+", {", "check_policy_service { unix:"+s.path("run/outside.sock")+", {")
		},
			check: "sockets", level: Fail, text: "smtpd of smtp/inet runs in a chroot", fix: "unix:postern/outside.sock"},
		{name: "a milter's socket outside of the chroot", edit: func(s *site) {
			s.postconf("-e", "smtpd_milters = { unix:"+s.path("run/verify.sock")+", default_action=accept }")
		},
			check: "sockets", level: Fail, text: "runs in a chroot", fix: "unix:postern/verify.sock"},
		{name: "a socket that Postfix may not connect to", edit: func(s *site) {
			s.replace("etc/main.cf", "check_policy_service { inet:"+s.policy+", {", "check_policy_service { unix:postern/policyd.sock, {")
			s.must(os.Chmod(s.path("queue/postern/policyd.sock"), 0o600))
		}, own: true, check: "sockets", level: Fail, text: "may not connect to unix:", fix: `socket-group = "postfix"`},
		{name: "a folder that Postfix may not enter", edit: func(s *site) {
			s.replace("etc/main.cf", "check_policy_service { inet:"+s.policy+", {", "check_policy_service { unix:postern/policyd.sock, {")
			s.must(os.Chmod(s.path("queue/postern"), 0o700))
		}, own: true, check: "sockets", level: Fail, text: "may not connect to unix:", fix: "into the folder"},

		// What the hooks name.
		{name: "contexts without inner braces", edit: func(s *site) {
			s.replace("etc/main.cf", "{ policy_context = dnsbl, greylist }", "policy_context=dnsbl, greylist")
		},
			check: "context", level: Fail, text: "a comma ends policy_context", fix: "{ policy_context = dnsbl, greylist }"},
		{name: "a context with a typing error", edit: func(s *site) { s.replace("etc/main.cf", "dnsbl, greylist", "dnsbl, greylist, graylist") },
			check: "context", level: Fail, text: `names "graylist", which is no check`, fix: "the words are ownership"},
		{name: "a context for a check that does not run", policyd: "checks = [\"ownership\", \"dnsbl\"]\n",
			check: "context", level: Fail, text: "names greylist, which postern-policyd does not run", fix: `add "greylist" to checks`},
		{name: "a check that no hook asks for", edit: func(s *site) {
			s.replace("etc/main.cf", "{ policy_context = dnsbl, greylist }", "policy_context=greylist")
		},
			check: "context", level: Warn, text: "the check dnsbl runs, and no hook", fix: "policy_context"},
		{name: "limits where no one logs in", policyd: "limit = [\"client.recipients=300/1h\"]\nlimit-store = \"memory:\"\n", edit: func(s *site) { s.postconf("-MX", "submission/inet") },
			check: "context", level: Warn, text: "the check limit runs, and no hook", fix: "no one logs in here; name limit in the policy_context of the hook in smtpd_recipient_restrictions"},

		// Who is asked for ownership.
		{name: "Debian's undefined parameter", edit: func(s *site) {
			s.postconf("-e", "smtpd_sender_restrictions = $postern_ownership")
			s.postconf("-P", "submission/inet/smtpd_sender_restrictions=$mua_sender_restrictions")
		}, check: "ownership", level: Fail, text: "$mua_sender_restrictions, which is not defined", fix: "postconf -P 'submission/inet/smtpd_sender_restrictions="},
		{name: "a list of its own", edit: func(s *site) {
			s.postconf("-e", "smtpd_sender_restrictions = $postern_ownership")
			s.postconf("-P", "submission/inet/smtpd_sender_restrictions=reject_unknown_sender_domain")
		}, check: "ownership", level: Fail, text: "of its own, without the hook", fix: "postconf -P 'submission/inet/"},
		{name: "a list of its own with a key", edit: func(s *site) {
			s.postconf("-e", "smtpd_sender_restrictions = $postern_ownership")
			s.postconf("-P", "submission/inet/smtpd_sender_restrictions=reject_rhsbl_sender,"+strings.Repeat("a", 26)+".zrd.dq.spamhaus.net")
		}, check: "ownership", level: Fail, text: "of its own, without the hook", fix: "smtpd_sender_restrictions=$postern_ownership', and behind it what the list has today"},
		{name: "ownership behind permit_sasl_authenticated", edit: func(s *site) {
			s.postconf("-P", "submission/inet/smtpd_sender_restrictions=permit_sasl_authenticated,$postern_ownership")
		}, check: "ownership", level: Fail, text: "behind permit_sasl_authenticated", fix: "to the front"},
		{name: "logins at port 25", edit: func(s *site) { s.postconf("-e", "smtpd_sasl_auth_enable = yes") },
			check: "ownership", level: Fail, text: "smtp/inet: users who log in here send as anyone", fix: "smtp/inet/smtpd_sasl_auth_enable=no"},
		{name: "aliases that an earlier setup has made owners", up: true, policyd: aliasesAsOwners, dns: func(s *site) { s.write("aliases", "boss@home.example alice\n") }, edit: func(s *site) {
			s.postconf("-e", "smtpd_sender_login_maps = texthash:"+s.path("sender_logins"))
			s.setupWrote(strings.ReplaceAll(aliasesAsOwners, "DIR", s.dir))
		}, check: "ownership", level: Warn, text: "an earlier postern setup has set owner-aliases", fix: "take owner-aliases out of /"},
		{name: "aliases as owners on a Postfix without tables of owners", up: true, policyd: aliasesAsOwners, dns: func(s *site) { s.write("aliases", "boss@home.example alice\n") },
			edit:  func(s *site) { s.setupWrote(strings.ReplaceAll(aliasesAsOwners, "DIR", s.dir)) },
			check: "ownership", level: OK},
		{name: "aliases as owners by the administrator", up: true, policyd: aliasesAsOwners, dns: func(s *site) { s.write("aliases", "boss@home.example alice\n") }, edit: func(s *site) {
			s.postconf("-e", "smtpd_sender_login_maps = texthash:"+s.path("sender_logins"))
			s.setupWrote("owner-aliases = [\"hash:/etc/aliases\"]\n")
		}, check: "ownership", level: OK},

		{name: "a value in capitals", edit: func(s *site) {
			s.postconf("-e", "smtpd_sender_restrictions = $postern_ownership")
			s.postconf("-P", "submission/inet/smtpd_sasl_auth_enable=YES", "submission/inet/smtpd_sender_restrictions=reject_unknown_sender_domain,permit_mynetworks")
		}, check: "ownership", level: Fail, text: "submission/inet: users who log in here send as anyone",
			fix: "smtpd_sender_restrictions=$postern_ownership,reject_unknown_sender_domain,permit_mynetworks'"},
		{name: "a condition that a service meets", edit: func(s *site) {
			s.postconf("-e", "smtpd_sender_restrictions = ${users?{permit_sasl_authenticated}:{$postern_ownership}}", "users =")
			s.postconf("-PX", "submission/inet/smtpd_sender_restrictions")
			s.postconf("-P", "submission/inet/users=yes")
		}, check: "ownership", level: Fail, text: "users who log in here send as anyone", fix: "submission/inet/smtpd_sender_restrictions="},
		{name: "ownership behind the addresses of this machine", edit: func(s *site) {
			s.postconf("-P", "submission/inet/smtpd_sender_restrictions=permit_inet_interfaces,$postern_ownership")
		}, check: "ownership", level: Warn, text: "behind permit_inet_interfaces", fix: "to the front"},

		{name: "an attribute that is none", edit: func(s *site) {
			s.replace("etc/main.cf", "default_action=DUNNO }", "default_action=DUNNO, policy_contxt=x }")
		},
			check: "context", level: Warn, text: `Postfix ignores "policy_contxt"`, fix: "policy_context"},
		{name: "an attribute of a milter that is none", edit: func(s *site) {
			s.replace("etc/main.cf", "default_action=accept }", "default_action=accept, comand_timeout=10s }")
		}, check: "actions", level: Warn, text: `Postfix ignores "comand_timeout"`, fix: "command_timeout"},

		// Order.
		{name: "a hook behind permit", edit: func(s *site) { s.replace("etc/main.cf", "reject_unlisted_recipient,", "permit,") },
			check: "order", level: Fail, text: "behind permit", fix: "in front of it"},
		{name: "a hook behind what permits all mail for our domains", edit: func(s *site) {
			s.replace("etc/main.cf", "reject_unlisted_recipient,", "Permit_Auth_Destination,")
		},
			check: "order", level: Fail, text: "behind permit_auth_destination", fix: "in front of it"},
		{name: "a hook before what Postfix decides", edit: func(s *site) {
			s.replace("etc/main.cf", "reject_unauth_destination, reject_unlisted_recipient,", "")
			s.postconf("-e", "smtpd_relay_restrictions = permit_mynetworks")
		}, check: "order", level: Warn, text: "other people's domains", fix: "reject_unauth_destination in front"},
		{name: "one check in two lists", edit: func(s *site) {
			s.postconf("-e", "smtpd_data_restrictions = check_policy_service { inet:"+s.policy+", policy_context=greylist, default_action=DUNNO }")
		}, check: "order", level: Warn, text: "asks for greylist in smtpd_recipient_restrictions and in smtpd_data_restrictions", fix: "in one of them"},
		{name: "smtpd_delay_reject", edit: func(s *site) {
			s.postconf("-e", "smtpd_delay_reject = no", "smtpd_client_restrictions = check_policy_service { inet:"+s.policy+", { policy_context = dnsbl, greylist }, default_action=DUNNO }")
			s.postconf("-e", "smtpd_recipient_restrictions = permit_mynetworks, reject_unauth_destination")
			s.postconf("-e", "smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination")
		}, check: "delay", level: Fail, text: "asks for greylist while the client's address is known and no more", fix: "postconf -X smtpd_delay_reject"},
		{name: "the greylist at the end of the mail", edit: func(s *site) {
			s.postconf("-e", "smtpd_end_of_data_restrictions = check_policy_service { inet:"+s.policy+", { policy_context = dnsbl, greylist }, default_action=DUNNO }")
			s.postconf("-e", "smtpd_recipient_restrictions = permit_mynetworks, reject_unauth_destination")
		}, check: "delay", level: Fail, text: "asks for greylist, and nowhere else: all recipients are accepted by then", fix: "move greylist to the hook in smtpd_recipient_restrictions"},
		{name: "lists at DATA", edit: func(s *site) {
			s.postconf("-e", "smtpd_data_restrictions = check_policy_service { inet:"+s.policy+", policy_context=dnsbl, default_action=DUNNO }")
			s.replace("etc/main.cf", "{ policy_context = dnsbl, greylist }", "policy_context=greylist")
		}, check: "delay", level: Fail, text: "no recipient there when a mail has several", fix: "smtpd_recipient_restrictions"},
		{name: "ownership at ETRN", edit: func(s *site) {
			s.postconf("-P", "submission/inet/smtpd_sender_restrictions=")
			s.postconf("-P", "submission/inet/smtpd_etrn_restrictions=$postern_ownership")
		}, check: "ownership", level: Fail, text: "users who log in here send as anyone", fix: "$postern_ownership"},

		// Twice.
		{name: "postgrey is still asked", edit: func(s *site) {
			s.alsoAsks("inet:127.0.0.1:10023")
		},
			check: "twice", level: Fail, text: "postgrey greylists too", fix: "take check_policy_service inet:127.0.0.1:10023 out"},
		{name: "postgrey in a restriction class", edit: func(s *site) {
			s.postconf("-e", "smtpd_restriction_classes = slow", "slow = check_policy_service inet:127.0.0.1:10023")
			s.replace("etc/main.cf", "reject_unlisted_recipient,", "reject_unlisted_recipient, check_recipient_access inline:{slow@home.example=slow},")
		}, check: "twice", level: Fail, text: "postgrey greylists too", fix: "take check_policy_service inet:127.0.0.1:10023 out of slow"},
		{name: "iRedAPD greylists beside us", edit: func(s *site) {
			s.alsoAsks("inet:127.0.0.1:7777")
			s.write("iredapd.py", "plugins = ['throttle',\n    # 'x]',\n    \"greylisting\",\n]\n")
		},
			check: "twice", level: Warn, text: "iRedAPD greylists too, at inet:127.0.0.1:7777", fix: "take greylisting out of plugins in"},
		{name: "iRedAPD whose settings are not here", edit: func(s *site) {
			s.alsoAsks("inet:127.0.0.1:7777")
		},
			check: "twice", level: Warn, text: "each new sender may wait twice", fix: "iredapd.py, and restart iRedAPD"},
		{name: "iRedAPD does other things", edit: func(s *site) {
			s.alsoAsks("inet:127.0.0.1:7777")
			s.write("iredapd.py", "plugins = ['greylisting']\nplugins = ['throttle'] # 'greylisting'\nplugins += ['amavisd_wblist']\n")
		}, check: "twice", level: OK},
		{name: "iRedAPD at the end of the mail", edit: func(s *site) {
			s.postconf("-e", "smtpd_end_of_data_restrictions = check_policy_service inet:127.0.0.1:7777")
		}, check: "twice", level: OK},
		{name: "opendkim still signs", edit: func(s *site) {
			s.replace("etc/main.cf", "non_smtpd_milters = ", "non_smtpd_milters = unix:opendkim/opendkim.sock ")
		},
			check: "twice", level: Fail, text: "OpenDKIM signs too", fix: "take unix:opendkim/opendkim.sock out of non_smtpd_milters"},
		{name: "amavis signs what we have signed", edit: func(s *site) {
			s.postconf("-P", "submission/inet/content_filter=scan:[127.0.0.1]:10026")
			s.must(os.MkdirAll(s.path("amavis/etc/amavis/conf.d"), 0o755))
			s.write("amavis/etc/amavis/conf.d/20-debian_defaults", "$enable_dkim_signing = 0;\n")
			s.write("amavis/etc/amavis/conf.d/50-user", "$enable_dkim_signing = 1;  # see below\ndkim_key('home.example', 'a1', '/var/lib/amavis/a1.pem');\n")
		}, check: "twice", level: Warn, text: "amavis has a key and may sign too", fix: "$enable_dkim_signing = 0;"},
		{name: "amavis has no key to sign with", edit: func(s *site) {
			s.postconf("-e", "content_filter = smtp-amavis:[127.0.0.1]:10024")
			s.must(os.MkdirAll(s.path("amavis/etc/amavis/conf.d"), 0o755))
			s.write("amavis/etc/amavis/conf.d/50-user", "$enable_dkim_signing = 1;\n# dkim_key('home.example', 'a1', '/var/lib/amavis/a1.pem');\n")
		}, check: "twice", level: OK},
		{name: "rspamd greylists beside us", edit: func(s *site) {
			s.replace("etc/main.cf", "\nsmtpd_milters = ", "\nsmtpd_milters = inet:localhost:11332 ")
			s.write("rspamd/local.d/redis.conf", "servers = \"127.0.0.1\";\n")
		},
			check: "twice", level: Warn, text: "rspamd greylists too", fix: "local.d/greylist.conf"},
		{name: "rspamd has keys to sign with", edit: func(s *site) {
			s.replace("etc/main.cf", "non_smtpd_milters = ", "non_smtpd_milters = inet:localhost:11332 ")
			s.must(os.MkdirAll(s.path("rspamd/dkim"), 0o755))
			s.write("rspamd/dkim/home.example.mail.key", "")
		},
			check: "twice", level: Fail, text: "rspamd signs too", fix: "local.d/dkim_signing.conf"},
		{name: "Postfix asks the same list", edit: func(s *site) {
			s.replace("etc/main.cf", "reject_unlisted_recipient,", "reject_unlisted_recipient, reject_rbl_client zen.spamhaus.org=127.0.0.[2..11],")
		},
			check: "twice", level: Warn, text: "asks zen.spamhaus.org itself", fix: "take reject_rbl_client zen.spamhaus.org"},
		{name: "Postfix asks the same list in a restriction class, in capitals and with a key", edit: func(s *site) {
			s.postconf("-e", "smtpd_restriction_classes = lists", "lists = REJECT_RBL_CLIENT "+strings.Repeat("a", 26)+".zen.dq.spamhaus.net")
			s.replace("etc/main.cf", "reject_unlisted_recipient,", "reject_unlisted_recipient, lists,")
		},
			check: "twice", level: Warn, text: "asks zen.spamhaus.org itself", fix: ".zen.dq.spamhaus.net out of smtpd_recipient_restrictions"},
		{name: "Postfix asks a list that we only watch", policyd: "shadow = [\"all\"]\n", edit: func(s *site) {
			s.replace("etc/main.cf", "reject_unlisted_recipient,", "reject_unlisted_recipient, reject_rbl_client zen.spamhaus.org=127.0.0.[2..11],")
		},
			check: "twice", level: OK},

		// Whose mail comes in where.
		{name: "the internet's mail is signed", edit: func(s *site) { s.postconf("-e", "smtpd_milters = { inet:"+s.sign+", default_action=accept }") },
			check: "signing", level: Fail, text: "mail from the internet comes in at inet:", fix: "the socket that signs is for submission"},
		{name: "users' mail is verified", edit: func(s *site) { s.postconf("-PX", "submission/inet/smtpd_milters") },
			check: "signing", level: Fail, text: "submission/inet: users' mail comes in at", fix: "postconf -P 'submission/inet/smtpd_milters=inet:"},
		{name: "users' mail meets no milter", edit: func(s *site) { s.postconf("-P", "submission/inet/smtpd_milters=") },
			check: "signing", level: Fail, text: "users' mail is not signed", fix: "postconf -P 'submission/inet/smtpd_milters=inet:"},
		{name: "keys, and no socket that signs", edit: func(s *site) {
			s.postconf("-X", "non_smtpd_milters")
			s.postconf("-P", "submission/inet/smtpd_milters=")
		}, check: "signing", level: Fail, text: "there are keys, and no socket that signs is named", fix: "for submission (-o smtpd_milters)"},
		{name: "cron's mail is not signed", edit: func(s *site) { s.postconf("-X", "non_smtpd_milters") },
			check: "signing", level: Warn, text: "mail of sendmail(1) and cron is not signed", fix: "non_smtpd_milters = {"},
		{name: "cron's mail is verified", edit: func(s *site) { s.postconf("-e", "non_smtpd_milters = { inet:"+s.verify+", default_action=accept }") },
			check: "signing", level: Fail, text: "non_smtpd_milters names inet:", fix: "non_smtpd_milters = { inet:"},
		{name: "cron's mail meets milters of its own", edit: func(s *site) { s.postconf("-P", "cleanup/unix/non_smtpd_milters=inet:127.0.0.1:11332") },
			check: "signing", level: Warn, text: `non_smtpd_milters is "inet:127.0.0.1:11332" at cleanup/unix`, fix: "postconf -PX 'cleanup/unix/non_smtpd_milters'"},
		{name: "the internet's mail is not verified", edit: func(s *site) { s.postconf("-X", "smtpd_milters") },
			check: "signing", level: Warn, text: "mail from the internet is not verified: smtpd_milters of smtp/inet", fix: "run postern setup"},
		{name: "a content filter's mail is signed", edit: func(s *site) {
			s.postconf("-e", "content_filter = smtp-amavis:[127.0.0.1]:10024")
			s.postconf("-M", "127.0.0.1:10025/inet=127.0.0.1:10025 inet n - y - - smtpd -o content_filter= -o smtpd_milters=inet:"+s.sign+" -o smtpd_recipient_restrictions=permit_mynetworks,reject")
		}, check: "signing", level: Fail, text: "what a content filter hands back", fix: "127.0.0.1:10025/inet/smtpd_milters="},
		{name: "users log in at loopback beside a content filter", edit: func(s *site) {
			s.postconf("-e", "content_filter = smtp-amavis:[127.0.0.1]:10024")
			s.postconf("-M", "127.0.0.1:10587/inet=127.0.0.1:10587 inet n - y - - smtpd -o smtpd_sasl_auth_enable=yes -o smtpd_sender_restrictions=$postern_ownership -o smtpd_milters=inet:"+s.sign)
		}, check: "signing", level: OK},
		{name: "addresses are rewritten on the way out", edit: func(s *site) {
			s.write("etc/generic", "root@localhost.localdomain alice@home.example\nAlice@home.example alice@isp.example\n")
			s.postconf("-e", "smtp_generic_maps = texthash:"+s.path("etc/generic"))
		}, check: "signing", level: Warn, text: "rewrites alice@home.example in the header of mail that was signed", fix: "canonical_maps"},
		{name: "patterns rewrite addresses on the way out, over one transport", edit: func(s *site) {
			s.write("etc/generic", "/^(.*)@home\\.example$/ $1@isp.example\n")
			s.postconf("-P", "smtp/unix/smtp_generic_maps=regexp:"+s.path("etc/generic"))
		}, check: "signing", level: Warn, text: "smtp_generic_maps of smtp/unix (regexp:", fix: "canonical_maps"},
		{name: "header fields are changed on the way out", edit: func(s *site) {
			s.write("etc/hide", "/^Received:/ IGNORE\n/^\\s*Mime-Version: 1.0.*/ REPLACE Mime-Version: 1.0\n")
			s.postconf("-e", "smtp_header_checks = pcre:"+s.path("etc/hide"))
		}, check: "signing", level: Warn, text: "changes MIME-Version of mail that was signed (REPLACE)", fix: "header_checks"},
		{name: "addresses are rewritten behind a content filter", edit: func(s *site) {
			s.write("etc/canonical", "alice@home.example Alice.Doe@home.example\n")
			s.postconf("-e", "sender_canonical_maps = texthash:"+s.path("etc/canonical"), "content_filter = smtp-amavis:[127.0.0.1]:10024")
			s.postconf("-M", "127.0.0.1:10025/inet=127.0.0.1:10025 inet n - y - - smtpd -o content_filter= -o receive_override_options=no_milters -o smtpd_recipient_restrictions=permit_mynetworks,reject -o smtpd_sender_restrictions=")
		}, check: "signing", level: Warn, text: "rewrites alice@home.example in the header of users' mail that the content filter hands back", fix: "local_header_rewrite_clients="},

		// While a daemon is away, and other settings of Postfix.
		{name: "ownership fails open", edit: func(s *site) {
			s.replace("etc/main.cf", "policy_context=ownership }", "policy_context=ownership, default_action=DUNNO }")
		},
			check: "actions", level: Fail, text: "users send as anyone", fix: "take default_action out"},
		{name: "ownership only watches", policyd: "shadow = [\"all\"]\n", edit: func(s *site) {
			s.replace("etc/main.cf", "policy_context=ownership }", "policy_context=ownership, default_action=DUNNO }")
			s.postconf("-e", "milter_default_action = accept")
		},
			check: "actions", level: OK, text: "all mail passes while a daemon is away"},
		{name: "a global default action opens ownership", edit: func(s *site) { s.postconf("-e", "smtpd_policy_service_default_action = DUNNO") },
			check: "actions", level: Fail, text: "users send as anyone", fix: "smtpd_policy_service_default_action"},
		{name: "the internet's mail waits for us", edit: func(s *site) { s.replace("etc/main.cf", ", default_action=DUNNO", "") },
			check: "actions", level: Warn, text: "all mail from the internet is deferred", fix: "default_action=DUNNO"},
		{name: "a milter without default action", edit: func(s *site) { s.postconf("-e", "smtpd_milters = inet:"+s.verify) },
			check: "actions", level: Warn, text: "the default action of inet:", fix: "default_action=accept"},
		{name: "users' mail leaves without us", edit: func(s *site) { s.postconf("-e", "milter_default_action = accept") },
			check: "actions", level: OK},
		{name: "any From without us", milterd: "from-ownership = \"enforce\"\nowners = [\"texthash:DIR/sender_logins\"]\n", edit: func(s *site) { s.postconf("-e", "milter_default_action = accept") },
			check: "actions", level: Warn, text: "users may write any From", fix: "postconf -P 'submission/inet/milter_default_action=tempfail' && postfix reload"},
		{name: "the internet's mail is thrown away without us", edit: func(s *site) { s.replace("etc/main.cf", ", default_action=DUNNO", ", default_action=DISCARD") },
			check: "actions", level: Warn, text: "all mail from the internet is thrown away", fix: "default_action=DUNNO"},
		{name: "ownership refuses without us", edit: func(s *site) {
			s.replace("etc/main.cf", "policy_context=ownership }", "policy_context=ownership, { default_action = 550 5.7.1 No check } }")
		}, check: "actions", level: Warn, text: "users' mail is refused for good", fix: "take default_action out of this hook"},
		{name: "users' mail is held without us", edit: func(s *site) { s.postconf("-e", "milter_default_action = quarantine") },
			check: "actions", level: Warn, text: "users' mail is taken as it is, without a signature", fix: "postconf -P 'submission/inet/milter_default_action=tempfail' && postfix reload"},
		{name: "users' mail is refused without us", edit: func(s *site) {
			s.postconf("-P", "submission/inet/smtpd_milters={inet:"+s.sign+",default_action=reject}")
		}, check: "actions", level: Warn, text: "users' mail is refused for good", fix: "take its default_action out"},
		{name: "an old milter protocol", edit: func(s *site) { s.postconf("-e", "milter_protocol = 2") },
			check: "macros", level: Warn, text: "milter_protocol is 2", fix: "postconf -X milter_protocol"},
		{name: "macros of an older guide", edit: func(s *site) { s.postconf("-e", "milter_mail_macros = i {mail_addr} {client_addr}") },
			check: "macros", level: Warn, text: "milter_mail_macros leaves out {auth_authen}, {auth_type}", fix: "postconf -X milter_mail_macros"},
		{name: "postscreen asks Zen already", edit: func(s *site) {
			s.postscreen()
			s.postconf("-e", "postscreen_dnsbl_sites = zen.spamhaus.org*2", "postscreen_dnsbl_action = enforce")
		}, check: "postscreen", level: Warn, text: "postscreen asks zen.spamhaus.org already", fix: "out of postscreen_dnsbl_sites"},
		{name: "postscreen greylists", edit: func(s *site) {
			s.postscreen()
			s.postconf("-e", "postscreen_pipelining_enable = yes")
		}, check: "postscreen", level: Warn, text: "postscreen_pipelining_enable", fix: "postscreen_pipelining_enable=no"},
		{name: "a milter behind a proxy filter", edit: func(s *site) {
			s.postconf("-P", "smtp/inet/smtpd_proxy_filter=127.0.0.1:10024", "smtp/inet/smtpd_milters=")
			s.postconf("-M", "127.0.0.1:10025/inet=127.0.0.1:10025 inet n - y - - smtpd -o smtpd_authorized_xforward_hosts=127.0.0.0/8 -o smtpd_recipient_restrictions=permit_mynetworks,reject -o smtpd_sender_restrictions=")
		}, check: "proxy-filter", level: Warn, text: "127.0.0.1:10025/inet: every client of what smtpd_proxy_filter hands back is this machine", fix: "use content_filter in place of smtpd_proxy_filter"},
		{name: "a milter in front of a proxy filter", edit: func(s *site) { s.postconf("-P", "smtp/inet/smtpd_proxy_filter=127.0.0.1:10024") },
			check: "proxy-filter", level: Fail, text: "a milter in front of it sees no header and no body", fix: "smtp/inet/smtpd_milters="},
		{name: "all clients are one", edit: func(s *site) { s.write("mail.log", s.log(func(int) string { return "172.17.0.1" })) },
			check: "clients", level: Fail, text: "40 of the last 40 clients came from 172.17.0.1", fix: "smtpd_upstream_proxy_protocol"},
		{name: "own hosts are taken for strangers", edit: func(s *site) {
			s.postconf("-e", "mynetworks = 127.0.0.0/8 10.0.0.0/24")
			s.write("mail.log", s.log(func(i int) string { return fmt.Sprintf("10.0.0.%d", i) })+
				s.took("10.0.0.5", "")+s.took("10.0.0.6", ", sasl_method=PLAIN, sasl_username=alice")+s.took("192.0.2.7", ""))
		}, check: "clients", level: Warn, text: "send without a login (10.0.0.5): their mail is judged like a stranger's, and is not signed", fix: `internal-networks = ["10.0.0.5"]`},
		{name: "a backup MX hands on mail", edit: func(s *site) {
			s.postconf("-e", "relay_domains = backed.example", "mynetworks = 127.0.0.0/8 203.0.113.92")
			s.write("mail.log", s.took("203.0.113.91", "")+s.took("203.0.113.92", ""))
		}, check: "clients", level: Warn, text: "the backup MX mx2.backed.example (203.0.113.92) hands on mail", fix: `trusted-relays = ["203.0.113.92"]`},
		{name: "a proxy brings the internet's mail to a port of loopback that signs", edit: func(s *site) {
			s.postconf("-M", "127.0.0.1:2525/inet=127.0.0.1:2525 inet n - y - - smtpd -o smtpd_upstream_proxy_protocol=haproxy -o { smtpd_milters = { inet:"+s.sign+", default_action=accept } }")
		}, check: "signing", level: Fail, text: "127.0.0.1:2525/inet: mail from the internet comes in at", fix: "for submission"},
		{name: "mynetworks is the internet", edit: func(s *site) { s.postconf("-e", "mynetworks = 0.0.0.0/0") },
			check: "clients", level: Fail, text: "mynetworks holds the whole internet", fix: "your own networks"},
		{name: "Postfix does not wait as long as we may take", edit: func(s *site) { s.postconf("-e", "smtpd_policy_service_timeout = 5s") },
			check: "bounds", level: Fail, text: "Postfix waits 5s", fix: "postconf -X smtpd_policy_service_timeout"},
		{name: "a hook does not wait as long as we may take", edit: func(s *site) {
			s.replace("etc/main.cf", ", default_action=DUNNO", ", timeout=5s, default_action=DUNNO")
		},
			check: "bounds", level: Fail, text: "Postfix waits 5s for an answer (timeout of the hook in smtpd_recipient_restrictions)", fix: "take timeout out"},
		{name: "a service does not wait as long as we may take", edit: func(s *site) { s.postconf("-P", "smtp/inet/smtpd_policy_service_timeout=5s") },
			check: "bounds", level: Fail, text: "Postfix waits 5s", fix: "postconf -PX 'smtp/inet/smtpd_policy_service_timeout'"},
		{name: "an entry of milters does not wait for a verdict", edit: func(s *site) {
			s.replace("etc/main.cf", "smtpd_milters = { inet:"+s.verify+",", "smtpd_milters = { inet:"+s.verify+", { content_timeout = 3s },")
		}, check: "bounds", level: Fail, text: "Postfix waits 3s for a milter (content_timeout of inet:", fix: "take content_timeout out"},
		{name: "a service with more processes than connections", edit: func(s *site) {
			s.replace("etc/master.cf", "smtp       inet n - y - - smtpd", "smtp       inet n - y - 3000 smtpd")
		}, check: "bounds", level: Warn, text: "Postfix may have 3100 smtpd processes that ask postern-policyd", fix: "max-connections = 6200"},
		{name: "Postfix speaks IPv6 alone", edit: func(s *site) { s.postconf("-e", "inet_protocols = ipv6") },
			check: "attached", level: Fail, text: "Postfix does not connect to inet:127.0.0.1:", fix: "write inet:[::1]:"},
		{name: "the other loopback address", edit: func(s *site) { s.replace("etc/main.cf", "{ inet:127.0.0.1:", "{ inet:[::1]:") },
			check: "sockets", level: Fail, text: "and postern-policyd runs", fix: "write the address where it listens: inet:127.0.0.1:"},
		{name: "a parameter is misspelt", edit: func(s *site) { s.postconf("-e", "smtpd_milter = inet:"+s.verify) },
			check: "postfix", level: Warn, text: "smtpd_milter", fix: "correct the name"},

		{name: "the hook's list is replaced at submission", edit: func(s *site) {
			s.replace("etc/main.cf", "reject_unauth_destination,", "reject_unauth_destination, $postern_ownership,")
			s.replace("etc/main.cf", "permit_sasl_authenticated, ", "")
			s.postconf("-PX", "submission/inet/smtpd_sender_restrictions")
			s.postconf("-P", "submission/inet/smtpd_recipient_restrictions=permit_sasl_authenticated,reject")
		}, check: "ownership", level: Fail, text: "gives it a smtpd_recipient_restrictions of its own, without the hook", fix: "smtpd_sender_restrictions=$postern_ownership"},
		{name: "a hook that only warns", edit: func(s *site) {
			s.replace("etc/main.cf", "  check_policy_service {", "  warn_if_reject check_policy_service {")
		},
			check: "order", level: Warn, text: "behind warn_if_reject", fix: "shadow"},
		{name: "an override of milters by another option", edit: func(s *site) { s.postconf("-P", "submission/inet/receive_override_options=no_milters") },
			check: "signing", level: Fail, text: "receive_override_options there has no_milters", fix: "submission/inet"},
		{name: "Postfix does not wait for a verdict", edit: func(s *site) { s.postconf("-e", "milter_content_timeout = 3s") },
			check: "bounds", level: Fail, text: "Postfix waits 3s for a milter", fix: "postconf -X milter_content_timeout"},
		{name: "a deadline of minutes and seconds", policyd: "deadline = \"90s\"\n", edit: func(s *site) { s.postconf("-e", "smtpd_policy_service_timeout = 1m") },
			check: "bounds", level: Fail, text: "postern-policyd may take 90s", fix: "postconf -X smtpd_policy_service_timeout"},
		{name: "everything is soft", edit: func(s *site) { s.postconf("-e", "soft_bounce = yes") },
			check: "postfix", level: Warn, text: "soft_bounce", fix: "postconf -X soft_bounce"},
		{name: "the queue is elsewhere", edit: func(s *site) {
			s.must(os.MkdirAll(s.path("etc/queue/hold"), 0o755))
			s.system("cp", "-a", s.path("queue"), s.path("etc"))
			s.postconf("-e", "queue_directory = "+s.path("etc/queue"))
		}, check: "attached", level: Fail, text: "below its queue-directory, and Postfix's queue_directory is", fix: "set queue-directory = "},
		{name: "every milter goes to local mail too", edit: func(s *site) { s.postconf("-e", "non_smtpd_milters = $smtpd_milters") },
			check: "signing", level: Fail, text: "non_smtpd_milters names inet:", fix: "non_smtpd_milters = { inet:"},
		{name: "a service parameter changes a list of main.cf", edit: func(s *site) {
			s.postconf("-e", "mine = $postern_ownership", "smtpd_sender_restrictions = $mine")
			s.postconf("-PX", "submission/inet/smtpd_sender_restrictions")
			s.postconf("-P", "submission/inet/mine=permit")
		}, check: "ownership", level: Fail, text: "users who log in here send as anyone", fix: "submission/inet/smtpd_sender_restrictions="},
		{name: "the session decides, and main.cf says that all is ours", up: true, milterd: "listen-verify = []\nlisten-sign = [\"inet:SIGN\"]\nlisten = [\"inet:VERIFY\"]\n",
			edit:  func(s *site) { s.postconf("-e", "milter_macro_daemon_name = ORIGINATING") },
			check: "macros", level: Fail, text: "mail from the internet counts as ours", fix: "postconf -X milter_macro_daemon_name"},
		{name: "the session decides about local mail", up: true, milterd: "listen-verify = []\nlisten-sign = [\"inet:SIGN\"]\nlisten = [\"inet:VERIFY\"]\n",
			edit:  func(s *site) { s.postconf("-e", "non_smtpd_milters = { inet:"+s.verify+", default_action=accept }") },
			check: "signing", level: Fail, text: "where the session decides", fix: "listen-sign"},
		{name: "a content filter where loopback is ours", up: true, milterd: "listen-verify = []\nlisten-sign = [\"inet:SIGN\"]\nlisten = [\"inet:VERIFY\"]\ninternal-networks = [\"127.0.0.0/8\"]\n",
			edit:  func(s *site) { s.postconf("-e", "content_filter = smtp-amavis:[127.0.0.1]:10024") },
			check: "signing", level: Fail, text: "from which a content filter hands the internet's mail back", fix: "internal-networks"},
		{name: "the cleanup of this machine's mail does not wait for a verdict", up: true, milterd: "listen-verify = []\nlisten-sign = [\"inet:SIGN\"]\nlisten = [\"inet:VERIFY\"]\ninternal-networks = [\"127.0.0.0/8\"]\n",
			edit: func(s *site) {
				s.postconf("-e", "non_smtpd_milters = { inet:"+s.verify+", default_action=accept }")
				s.postconf("-P", "cleanup/unix/milter_content_timeout=3s")
			},
			check: "bounds", level: Fail, text: "Postfix waits 3s for a milter (milter_content_timeout)", fix: "postconf -PX 'cleanup/unix/milter_content_timeout'"},
		{name: "a From that milterd does not see", milterd: "from-ownership = \"enforce\"\nowners = [\"texthash:DIR/sender_logins\"]\n",
			edit:  func(s *site) { s.postconf("-P", "submission/inet/smtpd_milters=") },
			check: "from", level: Fail, text: "submission/inet: users who log in here may write any From: smtpd_milters is", fix: "postconf -P 'submission/inet/smtpd_milters=inet:"},
		{name: "a From that has other owners", milterd: "from-ownership = \"shadow\"\nowners = [\"static:alice\"]\n",
			check: "from", level: Warn, text: "owners of postern-policyd and postern-milterd differ", fix: "the same value"},
		{name: "limits that no user meets", policyd: "limit = [\"login.recipients=300/1h\"]\nlimit-store = \"memory:\"\n",
			check: "limit", level: Fail, text: "submission/inet: limits of logins are not asked for", fix: "policy_context = ownership, limit"},
		{name: "limits that nothing counts for", policyd: "limit = [\"login.recipients=300/1h\"]\nlimit-store = \"memory:\"\nlimit-count-at = \"end-of-data\"\n", edit: func(s *site) {
			s.replace("etc/main.cf", "policy_context=ownership", "{ policy_context = ownership, limit }")
		}, check: "limit", level: Fail, text: "no recipient counts", fix: "smtpd_end_of_data_restrictions"},
		{name: "reports that no one sends", milterd: "report-store = \"sqlite:DIR/run/reports.db\"\n",
			check: "reports", level: Warn, text: "report-from is not set", fix: "report-from ="},
		{name: "reports that are not signed", milterd: "report-store = \"sqlite:DIR/run/reports.db\"\nreport-from = \"reports@nokey.example\"\n",
			check: "reports", level: Fail, text: "no DKIM key for nokey.example", fix: "postern dkim genkey nokey.example"},
		{name: "reports that the key of a parent signs", up: true, milterd: "report-store = \"sqlite:DIR/run/reports.db\"\nreport-from = \"reports@reports.home.example\"\ndkim-subdomains = true\n",
			edit:  func(s *site) { s.postconf("-e", "recipient_delimiter = +") },
			check: "reports", level: OK, text: "DMARC reports can be sent"},
		{name: "reports from another domain than that of the key", milterd: "report-store = \"sqlite:DIR/run/reports.db\"\nreport-from = \"reports@reports.home.example\"\n",
			check: "reports", level: Fail, text: "no DKIM key for reports.home.example", fix: "postern dkim genkey reports.home.example"},
		{name: "a DQS key that is refused", up: true, policyd: "dqs-key-file = \"DIR/run/dqs.key\"\n", dns: func(s *site) {
			s.write("run/dqs.key", strings.Repeat("a", 26)+"\n")
			s.must(os.Chmod(s.path("run/dqs.key"), 0o600))
			s.system("chown", daemonUser, s.path("run/dqs.key"))
			s.dns.Fail("*.dq.spamhaus.net.", resolvertest.ServFail)
		}, check: "lists", level: Fail, text: "spamhaus.org", fix: "key"},

		// DNS.
		{name: "the key is not in the DNS", dns: func(s *site) { s.dns.Remove(s.keys[0].Name()) },
			check: "keys", level: Fail, text: "is not published", fix: "postern dkim dns home.example"},
		{name: "another key is in the DNS", dns: func(s *site) {
			s.dns.Remove(s.keys[0].Name())
			s.must(s.dns.Add(s.keys[0].Name() + `. IN TXT "v=DKIM1; p="`))
		}, check: "keys", level: Fail, text: "published with another key, or revoked", fix: "postern dkim dns home.example"},
		{name: "a rotation that fails", own: true, edit: func(s *site) { rotating(s.t, s.path("dkim"), "home.example", refusing) },
			check: "keys", level: Warn, text: "the rotation of the DKIM keys of home.example does not go on (phase publish, since ", fix: "postern dkim rotate --status home.example"},
		{name: "no SPF record", dns: func(s *site) { s.dns.Remove("home.example.") },
			check: "domains", level: Fail, text: "home.example has no SPF record", fix: `TXT "v=spf1 mx -all"`},
		{name: "SPF without this host", dns: func(s *site) {
			s.dns.Remove("home.example.")
			s.must(s.dns.Add(`home.example. IN TXT "v=spf1 ip4:198.51.100.0/24 -all"`))
		}, check: "domains", level: Fail, text: "SPF says fail for 203.0.113.7", fix: "add ip4:203.0.113.7"},
		{name: "two SPF records", dns: func(s *site) { s.must(s.dns.Add(`home.example. IN TXT "v=spf1 mx -all"`)) },
			check: "domains", level: Fail, text: "cannot be used", fix: "correct the TXT record of home.example"},
		{name: "no DMARC record", dns: func(s *site) { s.dns.Remove("_dmarc.home.example.") },
			check: "domains", level: Warn, text: "home.example has no DMARC record", fix: "_dmarc.home.example. TXT"},
		{name: "two DMARC records", dns: func(s *site) { s.must(s.dns.Add(`_dmarc.home.example. IN TXT "v=DMARC1; p=reject"`)) },
			check: "domains", level: Fail, text: "has 2 DMARC records", fix: "leave one"},
		{name: "lists do not answer", dns: func(s *site) { s.dns.Remove("2.0.0.127.zen.spamhaus.org.") },
			check: "lists", level: Fail, text: "zen.spamhaus.org", fix: "resolver"},
		{name: "a resolver that lists refuse", dns: func(s *site) {
			s.dns.Remove("2.0.0.127.zen.spamhaus.org.")
			s.must(s.dns.Add("2.0.0.127.zen.spamhaus.org. IN A 127.255.255.254"))
		}, check: "lists", level: Fail, text: "zen.spamhaus.org", fix: "resolver"},
		{name: "no DNSSEC", dns: func(s *site) { s.dns.SetAD(false) },
			check: "resolver", level: Warn, text: "does not validate DNSSEC", fix: "unbound"},

		// The daemons are down, or would not start.
		{name: "the daemons are down", down: true,
			check: "daemons", level: Fail, text: "postern-policyd does not run", fix: "start it"},
		{name: "no one listens", down: true,
			check: "sockets", level: Fail, text: "no one listens at inet:", fix: "systemctl start postern-milterd"},
		{name: "a mistake in the file", policyd: "greylist-dealy = \"3m\"\n",
			check: "settings", level: Fail, text: "did you mean greylist-delay?", fix: "correct this setting"},
		{name: "a table that the daemon may not read", edit: func(s *site) { s.must(os.Chmod(s.path("sender_logins"), 0o600)) }, down: true,
			check: "settings", level: Fail, text: "permission denied", fix: "let the daemon's user or one of its groups read it"},
		{name: "a table whose server is down", edit: func(s *site) {
			s.write("run/owners.cf", "hosts = 127.0.0.1:1\nuser = u\npassword = p\ndbname = d\nquery = SELECT '%s'\n")
			s.must(os.Chmod(s.path("run/owners.cf"), 0o640))
			s.system("chown", daemonUser+":", s.path("run/owners.cf"))
		}, policyd: "owners = [\"mysql:DIR/run/owners.cf\"]\n",
			check: "settings", level: Fail, text: "connection refused", fix: ""},
		{name: "a server of several tables is down", edit: func(s *site) {
			for _, name := range []string{"run/owners.cf", "run/aliases.cf"} {
				s.write(name, "hosts = 127.0.0.1:1\nuser = u\npassword = p\ndbname = d\nquery = SELECT '%s'\n")
				s.must(os.Chmod(s.path(name), 0o640))
				s.system("chown", daemonUser+":", s.path(name))
			}
		}, policyd: "owners = [\"mysql:DIR/run/owners.cf\"]\nowner-aliases = [\"mysql:DIR/run/aliases.cf\"]\n",
			milterd: "from-ownership = \"enforce\"\nowners = [\"mysql:DIR/run/owners.cf\"]\nowner-aliases = [\"mysql:DIR/run/aliases.cf\"]\n",
			check:   "settings", level: Fail, text: "postern-policyd and postern-milterd: mysql:", fix: "start that server, or correct how the tables name it"},
		{name: "a key that others can read", edit: func(s *site) { s.must(os.Chmod(s.keys[0].Path, 0o644)) }, down: true,
			check: "settings", level: Fail, text: s0, fix: "chmod"},
		{name: "Redis is down", policyd: "greylist-store = \"redis://127.0.0.1:1/0\"\n",
			check: "stores", level: Fail, text: "connection refused", fix: "start the server"},
		{name: "the Redis of the limits is down", policyd: "limit = [\"login.recipients=300/1h\"]\nlimit-store = \"redis://127.0.0.1:1/0\"\n",
			check: "stores", level: Fail, text: "limit-store = redis://127.0.0.1:1/0", fix: "correct limit-store; until then limit-on-error decides"},
		{name: "the Redis of DMARC reports is down", milterd: "report-store = \"redis://127.0.0.1:1/0\"\n",
			check: "stores", level: Fail, text: "report-store = redis://127.0.0.1:1/0", fix: "start the server, or correct report-store"},
		{name: "the Redis of key rotations is down", milterd: "dkim-rotate = \"90d\"\ndkim-rotate-lead = \"redis://127.0.0.1:1/0\"\n",
			check: "stores", level: Fail, text: "dkim-rotate-lead = redis://127.0.0.1:1/0", fix: "until then no key is rotated"},
		{name: "the store is another program's file", edit: func(s *site) { s.write("run/greylist.db", "not a database at all") }, down: true,
			check: "stores", level: Fail, text: "is no file of SQLite", fix: "another file"},
		{name: "a public resolver", policyd: "resolver = [\"8.8.8.8\"]\n",
			check: "resolver", level: Fail, text: "shared by all customers of Google", fix: "resolver of your own"},
		{name: "a DQS key that everyone can read", edit: func(s *site) { s.write("dqs.key", strings.Repeat("a", 26)+"\n") }, policyd: "dqs-key-file = \"DIR/dqs.key\"\n",
			check: "settings", level: Fail, text: "dqs", fix: "chmod"},
		{name: "no key at all", edit: func(s *site) { s.must(os.RemoveAll(s.path("dkim/home.example"))) }, down: true,
			check: "keys", level: Warn, text: "no mail is signed", fix: "postern dkim genkey"},
		{name: "limits of connections", policyd: "max-connections = 50\n",
			check: "bounds", level: Warn, text: "takes 50 connections", fix: "max-connections ="},
	}
}

// aliasesAsOwners is what setup wrote from virtual_alias_maps.
const aliasesAsOwners = "owner-aliases = [\"texthash:DIR/aliases\"]\n"

// s0 is what every error about a key file names.
const s0 = "postern.private"

// postscreen puts postscreen in front of the site's smtpd.
func (s *site) postscreen() {
	s.t.Helper()
	s.replace("etc/master.cf", "smtp       inet n - y - - smtpd\n", "smtp       inet n - y - 1 postscreen\nsmtpd      pass - - y - - smtpd\n")
}

// log is a log of Postfix's with forty clients.
func (s *site) log(client func(int) string) string {
	var b strings.Builder
	for i := range 40 {
		fmt.Fprintf(&b, "Nov 26 10:00:%02d mail postfix/smtpd[%d]: connect from unknown[%s]\n", i, 1000+i, client(i))
	}
	return b.String()
}

// took is the line of a mail that Postfix has taken from a client.
func (s *site) took(client, login string) string {
	return fmt.Sprintf("Nov 26 10:00:59 mail postfix/smtpd[1001]: 4Wx1Yz2: client=unknown[%s]%s\n", client, login)
}

// problems are the findings that are not ok.
func problems(r Report) []Finding {
	return slices.DeleteFunc(slices.Clone(r.Findings), func(f Finding) bool { return f.Level == OK })
}

func show(findings []Finding) string {
	var b strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&b, "%s %s: %s; fix: %s\n", f.Level, f.Check, f.Text, f.Fix)
	}
	return b.String()
}

// command matches a call of postconf in a fix.
var command = regexp.MustCompile(`postconf (-[ePX]+) ('[^']*'|[\w=]+)`)

// follow does what a fix says, up to the first alternative, and reports whether it is
// something for postconf.
func (s *site) follow(fix string) bool {
	fix, _, _ = strings.Cut(fix, ", or ")
	all := command.FindAllStringSubmatch(fix, -1)
	if len(all) == 0 || !strings.HasPrefix(fix, "postconf ") {
		return false
	}
	if strings.Contains(fix, " after ") {
		slices.Reverse(all)
	}
	for _, m := range all {
		s.postconf(m[1], strings.Trim(m[2], "'"))
	}
	return true
}

// A site that works has nothing to say about, and every check says something.
func TestAllIsWell(t *testing.T) {
	s := newSite(t)
	s.save()
	s.write("mail.log", s.log(func(i int) string { return fmt.Sprintf("192.0.2.%d", i) }))
	s.start()
	r := Run(t.Context(), s.options())
	if r.Status() != 0 || r.Level != OK {
		t.Errorf("status %d:\n%s", r.Status(), show(problems(r)))
	}
	for _, name := range Names() {
		if name != "clock" && !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Check == name }) {
			t.Errorf("check %s says nothing", name)
		}
	}
}

// Each broken set-up is found, by the check that it is for, with what to do. While the
// daemons run, nothing else is found.
func TestBrokenSetups(t *testing.T) {
	shared := newSite(t)
	shared.save()
	shared.start()
	for _, test := range troubles() {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := test.site(t, shared)
			if test.edit != nil {
				test.edit(s)
			}
			o := s.options()
			o.Skip = append(o.Skip, "versions")
			if test.check != "settings" {
				o.Skip = append(o.Skip, "settings")
			}
			if !test.running() && test.check != "daemons" { // what else is found is that they are down
				o.Only = []string{test.check}
			}
			r := Run(t.Context(), o)
			found := problems(r)
			if test.level == OK {
				if len(found) > 0 {
					t.Errorf("found\n%s", show(found))
				}
				if !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Check == test.check && strings.Contains(f.Text, test.text) }) {
					t.Errorf("no finding of %s has %q in\n%s", test.check, test.text, show(r.Findings))
				}
				return
			}
			at := slices.IndexFunc(found, func(f Finding) bool {
				return f.Check == test.check && f.Level == test.level && strings.Contains(f.Text, test.text) && strings.Contains(f.Fix, test.fix)
			})
			if at < 0 {
				t.Fatalf("not found: %s %s: %s; fix: %s\nin\n%s", test.level, test.check, test.text, test.fix, show(found))
			}
			for _, f := range found {
				if test.running() && (f.Check != test.check || f.Level.rank() > test.level.rank()) {
					t.Errorf("found too: %s", show([]Finding{f}))
				}
				if f.Fix == "" || strings.ContainsAny(f.Text+f.Fix, "\n\r") {
					t.Errorf("not one line with what to do: %q, %q", f.Text, f.Fix)
				}
			}
			if s.follow(found[at].Fix) {
				o.Only = []string{test.check}
				if left := problems(Run(t.Context(), o)); slices.ContainsFunc(left, func(f Finding) bool { return f.Text == found[at].Text }) {
					t.Errorf("found after %s:\n%s", found[at].Fix, show(left))
				}
			}
			if want := test.level.rank(); r.Status() < want {
				t.Errorf("status %d", r.Status())
			}
		})
	}
}

func (c *trouble) running() bool {
	return c.up || !c.down && c.policyd == "" && c.milterd == "" && c.dns == nil
}

// site is one to which the set-up's edit can be made.
func (c *trouble) site(t *testing.T, shared *site) *site {
	if c.running() && !c.own && !c.up {
		return shared.withPostfix(t)
	}
	s := newSite(t)
	if c.dns != nil {
		c.dns(s)
	}
	c.settings(s)
	s.save()
	if c.running() {
		s.start()
	}
	return s
}

// settings puts the set-up's settings in the place of the site's.
func (c *trouble) settings(s *site) {
	names := strings.NewReplacer("DIR", s.dir, "POLICY", s.policy, "VERIFY", s.verify, "SIGN", s.sign)
	s.policyd, s.milterd = override(s.policyd, names.Replace(c.policyd)), override(s.milterd, names.Replace(c.milterd))
}

// override adds lines, and removes those of the same names.
func override(lines, more string) string {
	kept := ""
	for line := range strings.Lines(lines) {
		name, _, _ := strings.Cut(line, " =")
		if !strings.HasPrefix(more, name+" =") && !strings.Contains(more, "\n"+name+" =") {
			kept += line
		}
	}
	return kept + more
}

// What lies in the hold queue of a real Postfix is counted, and a warning when no one
// looks at it.
func TestHoldQueue(t *testing.T) {
	p := postfixtest.New(t, postfixtest.Config{Main: []string{"smtpd_client_restrictions = check_client_access static:HOLD"}})
	for range 2 {
		if r, err := p.Send(t.Context(), postfixtest.MX, postfixtest.Mail{From: "a@elsewhere.example", To: []string{"b@home.example"}}); err != nil || r.Final().Code != 250 {
			t.Fatal(r, err)
		}
	}
	o := Options{ConfigDirectory: p.ConfigDir(), Only: []string{"queue"}, bounds: patient, paths: paths{mailLogs: []string{}}}
	r := Run(t.Context(), o)
	if len(r.Findings) != 1 || r.Level != OK || !strings.Contains(r.Findings[0].Text, "2 messages are on hold") {
		t.Errorf("%v", r)
	}
	o.now = func() time.Time { return time.Now().Add(75 * time.Hour) }
	r = Run(t.Context(), o)
	if len(r.Findings) != 1 || r.Level != Warn || !strings.Contains(r.Findings[0].Text, "for 3 days") || !strings.Contains(r.Findings[0].Fix, "postsuper -H") {
		t.Errorf("%v", r)
	}
}

// What systemd would say. The units' own words, on a machine that it runs, are looked
// at in internal/e2e.
func TestSandbox(t *testing.T) {
	d := &Daemon{Name: "postern-policyd", Settings: map[string][]string{
		"greylist-store": {"sqlite:/srv/postern/greylist.db"},
		"owners":         {"hash:/home/box/owners", "mysql:/etc/postfix/owners.cf", "sqlite:/home/user-data/users.cf"},
		"log-file":       {"/var/log/postern/policyd.log"},
		"dqs-key-file":   {"/tmp/key"},
		"limit-store":    {"redis://127.0.0.1/0"},
		"admin":          {"unix:/run/postern/policyd.sock"},
	}, Unit: Unit{Name: "postern-policyd.service", Properties: map[string]string{
		"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled",
		"ProtectHome": "yes", "ProtectSystem": "strict", "PrivateTmp": "yes", "StateDirectory": "postern", "LogsDirectory": "postern", "RuntimeDirectory": "postern", "BindReadOnlyPaths": "/srv/users:/home/user-data:rbind",
	}}}
	got := show(d.unitFindings())
	for _, want := range []string{"hides /home/box/owners (owners)", "hides /tmp/key (dqs-key-file)", "does not let the daemon write /srv/postern/greylist.db", "move it to /var/lib/postern (a socket: /run/postern); or make a folder for it (install -d -o postern FOLDER)"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if n := strings.Count(got, "\n"); n != 3 {
		t.Errorf("%d findings:\n%s", n, got)
	}
}

// A daemon that runs as another user has a folder of its own, under the usual name or not.
func TestSandboxOfAnotherUser(t *testing.T) {
	d := &Daemon{Name: "postern-milterd", Settings: map[string][]string{"mark-key-file": {"/var/lib/postern/mark.key"}}, Unit: Unit{Name: "postern-milterd.service", Properties: map[string]string{
		"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled", "ProtectSystem": "strict",
		"StateDirectory": "postern-milterd", "BindPaths": "/var/lib/postern-milterd:/var/lib/postern:rbind",
	}}}
	if got := show(d.unitFindings()); got != "" {
		t.Error(got)
	}
	delete(d.Unit.Properties, "BindPaths")
	if got := show(d.unitFindings()); !strings.Contains(got, "move it to /var/lib/postern-milterd; or make") {
		t.Error(got)
	}
	delete(d.Unit.Properties, "StateDirectory")
	if got := show(d.unitFindings()); !strings.Contains(got, "fix: make a folder for it") || strings.Contains(got, "move it") {
		t.Error(got)
	}
}

// The command that sends reports runs as a user who may ask the daemon.
func TestReportUser(t *testing.T) {
	if !isRoot() {
		t.Skip("only root can try this as another user")
	}
	path := filepath.Join(t.TempDir(), "milterd.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	d := &Daemon{Name: "postern-milterd", Running: true, Identity: &daemon.Identity{Name: "opendkim:mail"}, bounds: patient}
	d.client.Path, d.client.Network = path, daemon.NetworkUnix
	service := Unit{Properties: map[string]string{"LoadState": "loaded", "User": "nobody"}}
	if got := show(mayAsk(t.Context(), service, d)); !strings.Contains(got, "as user nobody, may not ask postern-milterd: ") || !strings.Contains(got, "add [Service] User=opendkim and Group=mail") {
		t.Error(got)
	}
	service.Properties["User"] = "root"
	if got := show(mayAsk(t.Context(), service, d)); got != "" {
		t.Error(got)
	}
}

// The key of a table may be that of other domains too: it is not to be removed.
func TestWithoutKey(t *testing.T) {
	f := &Facts{Milterd: &Daemon{Settings: map[string][]string{"dkim-keys": {"/etc/postern/dkim"}, "dkim-signing-table": {"refile:/etc/opendkim/SigningTable"}}}}
	for path, want := range map[string]string{
		"/etc/postern/dkim/home.example/a.private": "remove /etc/postern/dkim/home.example/a.private",
		"/home/user-data/mail/dkim/mail.private":   "take home.example out of refile:/etc/opendkim/SigningTable",
	} {
		if got := f.withoutKey(&sign.Key{Domain: "home.example", Path: path}); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// The record of a key that no line of the signing table names may be missing.
func TestIdleKeysAreNotChecked(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := write("key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	keys := write("KeyTable", "old home.example:s2025:"+file+"\nnew home.example:s2026:"+file+"\n")
	f := &Facts{Milterd: &Daemon{Settings: map[string][]string{"dkim-key-table": {keys}, "dkim-signing-table": {"refile:" + write("SigningTable", "*@home.example new\n")}}}}
	all, err := f.readKeys()
	got := all.Signing()
	if err != nil || len(got) != 1 || got[0].Selector != "s2026" {
		t.Errorf("%d keys, %v", len(got), err)
	}
}

// A daemon that rotates keys writes into their folder.
func TestSandboxOfRotation(t *testing.T) {
	d := &Daemon{Name: "postern-milterd", Settings: map[string][]string{
		"dkim-keys": {"/etc/postern/dkim"}, "dkim-rotate": {"0s"}, "dns-update": {"tsig:/home/box/key@192.0.2.53"},
	}, Unit: Unit{Name: "postern-milterd.service", Properties: map[string]string{
		"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled", "ProtectSystem": "strict", "ProtectHome": "yes",
	}}}
	if got := show(d.unitFindings()); strings.Contains(got, "ReadWritePaths") || !strings.Contains(got, "hides /home/box/key (dns-update)") {
		t.Error(got)
	}
	d.Settings["dkim-rotate"] = []string{"90d"}
	if got := show(d.unitFindings()); !strings.Contains(got, "ReadWritePaths=/etc/postern/dkim") {
		t.Error(got)
	}
}

func TestUnitOfSockets(t *testing.T) {
	u := Unit{Properties: make(map[string]string)}
	u.read("FileDescriptorName=policy\nListen=127.0.0.1:10045 (Stream)\nListen=/var/spool/postfix/postern/policyd.sock (Stream)\nListen=/run/x (Datagram)\nExecStart={ path=/usr/sbin/postern-policyd ; argv[]=/usr/sbin/postern-policyd --listen systemd:policy ; ignore_errors=no }\n")
	want := []place{{"tcp", "127.0.0.1:10045"}, {"unix", "/var/spool/postfix/postern/policyd.sock"}}
	if !slices.Equal(u.Listen, want) || u.Descriptor != "policy" || !slices.Equal(u.args(), []string{"--listen", "systemd:policy"}) {
		t.Errorf("%v, %q, %q", u.Listen, u.Descriptor, u.args())
	}
}
