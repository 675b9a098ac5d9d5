package doctor

import (
	"os"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// Set-ups that are unlike that of the guide and work as well: nothing may be found.
func TestWorkingSetups(t *testing.T) {
	postfixtest.Require(t)
	shared := newSite(t)
	shared.save()
	shared.start()
	for _, test := range []trouble{
		{name: "unix sockets below the queue directory, in a chroot", edit: func(s *site) {
			s.replace("etc/main.cf", "check_policy_service { inet:"+s.policy+", {", "check_policy_service { unix:postern/policyd.sock, {")
			s.replace("etc/main.cf", "{ inet:"+s.verify+",", "{ unix:/postern/verify.sock,")
		}},
		{name: "a socket anywhere, without a chroot", edit: func(s *site) {
			s.replace("etc/master.cf", "inet n - y", "inet n - n")
			s.replace("etc/main.cf", "check_policy_service { inet:"+s.policy+", {", "check_policy_service { unix:"+s.path("run/outside.sock")+", {")
		}},
		{name: "a restriction class, in capitals, over several lines", edit: func(s *site) {
			s.replace("etc/main.cf", "  check_policy_service {", "  # greylisting\n  strangers\nstrangers =\n  CHECK_POLICY_SERVICE\n    {")
			s.postconf("-e", "smtpd_restriction_classes = strangers")
		}},
		{name: "a greylist for the mail that a table picks", edit: func(s *site) {
			s.postconf("-e", "smtpd_restriction_classes = slow", "slow = check_policy_service { inet:"+s.policy+", policy_context=greylist, default_action=DUNNO }")
			s.replace("etc/main.cf", "{ policy_context = dnsbl, greylist }", "policy_context=dnsbl")
			s.replace("etc/main.cf", "reject_unlisted_recipient,", "reject_unlisted_recipient, check_recipient_access inline:{slow@home.example=slow},")
		}},
		{name: "ownership in a class that a table in braces returns", edit: func(s *site) {
			s.postconf("-e", "smtpd_restriction_classes = owned", "owned = $postern_ownership")
			s.postconf("-P", "submission/inet/smtpd_sender_restrictions=check_sasl_access,static:{owned}")
		}},
		{name: "users are let through by a table of logins", edit: func(s *site) {
			s.replace("etc/main.cf", "reject_unlisted_recipient,", "reject_unlisted_recipient, check_sasl_access static:permit,")
		}},
		{name: "relaying is refused in a restriction class", edit: func(s *site) {
			s.postconf("-e", "smtpd_restriction_classes = relay", "relay = permit_mynetworks, reject_unauth_destination", "smtpd_relay_restrictions = relay")
			s.replace("etc/main.cf", "permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination, reject_unlisted_recipient,", "reject_unlisted_recipient,")
		}},
		{name: "Postfix only logs what a list says", edit: func(s *site) {
			s.replace("etc/main.cf", "reject_unlisted_recipient,", "reject_unlisted_recipient, Warn_If_Reject reject_rbl_client zen.spamhaus.org,")
		}},
		{name: "an action in capitals", edit: func(s *site) {
			s.replace("etc/main.cf", "default_action=accept", "default_action=ACCEPT")
		}},
		{name: "another spelling of the loopback address", edit: func(s *site) {
			s.replace("etc/main.cf", "{ inet:127.0.0.1:", "{ inet:localhost:")
		}},
		{name: "ownership in main.cf, and logins at port 25", edit: func(s *site) {
			s.postconf("-e", "smtpd_sasl_auth_enable = yes", "smtpd_sender_restrictions = $postern_ownership, permit_mynetworks")
			s.postconf("-PX", "submission/inet/smtpd_sender_restrictions")
		}},
		{name: "beside rspamd, which neither signs nor greylists", edit: func(s *site) {
			s.replace("etc/main.cf", "milters = ", "milters = inet:localhost:11332 ")
			s.write("rspamd/local.d/greylist.conf", "enabled = false;\n")
			s.write("rspamd/local.d/dkim_signing.conf", "# postern signs\nenabled=false;\n")
		}},
		{name: "rspamd verifies, and Postern signs", edit: func(s *site) {
			s.postconf("-e", "smtpd_milters = inet:localhost:11332")
		}},
		{name: "macros of rspamd's guide", edit: func(s *site) {
			s.postconf("-e", "milter_mail_macros = i {mail_addr} {client_addr} {client_name} {auth_authen}")
		}},
		{name: "beside rspamd as its package leaves it, without keys and Redis", edit: func(s *site) {
			s.replace("etc/main.cf", "milters = ", "milters = inet:localhost:11332 ")
		}},
		{name: "a content filter that hands back at addresses of loopback, and logins set in main.cf", edit: func(s *site) {
			s.postconf("-e", "content_filter = smtp-amavis:[127.0.0.1]:10024", "smtpd_sasl_auth_enable = yes", "smtpd_sender_restrictions = $postern_ownership")
			for _, name := range []string{"127.0.0.1:10025", "[127.0.0.1]:10026", "[::1]:10025"} {
				s.postconf("-M", name+"/inet="+name+" inet n - y - - smtpd -o content_filter= -o receive_override_options=no_milters -o smtpd_recipient_restrictions=permit_mynetworks,reject -o smtpd_sender_restrictions=")
			}
		}},
		{name: "a port for the own network, beside logins set in main.cf", edit: func(s *site) {
			s.postconf("-e", "smtpd_sasl_auth_enable = yes", "smtpd_sender_restrictions = $postern_ownership")
			s.postconf("-M", "590/inet=590 inet n - y - - smtpd -o smtpd_client_restrictions=permit_mynetworks,reject -o smtpd_sender_restrictions= -o smtpd_milters=inet:"+s.sign)
		}},
		{name: "a port that a restriction class closes for everyone but users", edit: func(s *site) {
			s.postconf("-e", "smtpd_sasl_auth_enable = yes", "smtpd_sender_restrictions = $postern_ownership", "smtpd_restriction_classes = users", "users = permit_sasl_authenticated, reject")
			s.postconf("-M", "590/inet=590 inet n - y - - smtpd -o smtpd_client_restrictions=users -o smtpd_milters=inet:"+s.sign+" -o milter_macro_daemon_name=ORIGINATING")
		}},
		{name: "a null client whose mail is signed at port 25 of loopback", edit: func(s *site) {
			s.postconf("-e", "inet_interfaces = loopback-only", "smtpd_milters = inet:"+s.sign)
		}},
		{name: "a relay for the own networks alone, which signs", edit: func(s *site) {
			s.postconf("-e", "smtpd_client_restrictions = permit_mynetworks, reject")
			s.postconf("-P", "smtp/inet/smtpd_milters=inet:"+s.sign)
		}},
		{name: "a service that master_service_disable takes away", edit: func(s *site) {
			s.postconf("-e", "master_service_disable = 465/inet")
			s.postconf("-M", "465/inet=465 inet n - y - - smtpd -o smtpd_sasl_auth_enable=yes -o smtpd_milters=")
		}},
		{name: "a hook that waits longer than the others", edit: func(s *site) {
			s.postconf("-e", "smtpd_policy_service_timeout = 3s")
			s.replace("etc/main.cf", ", default_action=DUNNO", ", timeout=50s, default_action=DUNNO")
			s.replace("etc/main.cf", "policy_context=ownership", "timeout=50s, policy_context=ownership")
		}},
		{name: "a cleanup of its own for users' mail", edit: func(s *site) {
			s.postconf("-M", "users/unix=users unix n - y - 0 cleanup -o non_smtpd_milters=")
			s.postconf("-P", "submission/inet/cleanup_service_name=users")
		}},
		{name: "other domains are rewritten on the way out, and fields removed that are not signed", edit: func(s *site) {
			s.write("etc/generic", "root@localhost.localdomain alice@home.example\n@lan.example alice@home.example\n")
			s.write("etc/hide", "/^(Received|User-Agent|X-Originating-IP):/ IGNORE\n/^MIME-Version: (.*)$/ REPLACE MIME-Version: ${1}\n")
			s.postconf("-e", "smtp_generic_maps = texthash:"+s.path("etc/generic"), "smtp_header_checks = regexp:"+s.path("etc/hide"))
		}},
		{name: "addresses are rewritten before a content filter, and not behind it", edit: func(s *site) {
			s.write("etc/canonical", "alice@home.example Alice.Doe@home.example\n")
			s.postconf("-e", "sender_canonical_maps = texthash:"+s.path("etc/canonical"), "content_filter = smtp-amavis:[127.0.0.1]:10024", "local_header_rewrite_clients = permit_inet_interfaces, permit_sasl_authenticated")
			s.postconf("-M", "127.0.0.1:10025/inet=127.0.0.1:10025 inet n - y - - smtpd -o content_filter= -o receive_override_options=no_milters -o smtpd_recipient_restrictions=permit_mynetworks,reject -o smtpd_sender_restrictions=")
		}},
		{name: "postscreen with a list of its own", edit: func(s *site) {
			s.postscreen()
			s.postconf("-e", "postscreen_dnsbl_sites = bl.other.example", "postscreen_greet_action = enforce")
		}},
		{name: "postscreen that only logs what lists say", edit: func(s *site) {
			s.postscreen()
			s.postconf("-e", "postscreen_dnsbl_sites = zen.spamhaus.org*2", "postscreen_dnsbl_action = Ignore")
		}},
		{name: "a content filter that mail comes back from", edit: func(s *site) {
			s.postconf("-e", "content_filter = smtp-amavis:[127.0.0.1]:10024")
			s.postconf("-M", "127.0.0.1:10025/inet=127.0.0.1:10025 inet n - y - - smtpd -o content_filter= -o receive_override_options=no_milters -o smtpd_recipient_restrictions=permit_mynetworks,reject -o smtpd_sender_restrictions=")
		}},
		{name: "a service for Mailman that signs, before the content filter", edit: func(s *site) {
			s.postconf("-e", "content_filter = smtp-amavis:[127.0.0.1]:10024")
			s.postconf("-M", "127.0.0.1:10587/inet=127.0.0.1:10587 inet n - y - - smtpd -o smtpd_recipient_restrictions=permit_mynetworks,reject -o smtpd_milters=inet:"+s.sign,
				"127.0.0.1:10025/inet=127.0.0.1:10025 inet n - y - - smtpd -o content_filter= -o smtpd_recipient_restrictions=permit_mynetworks,reject -o smtpd_milters=")
		}},
		{name: "the session decides, and this machine's mail is ours", up: true,
			milterd: "listen-verify = []\nlisten-sign = [\"inet:SIGN\"]\nlisten = [\"inet:VERIFY\"]\ninternal-networks = [\"127.0.0.0/8\", \"::1\"]\n",
			edit: func(s *site) {
				s.postconf("-e", "milter_default_action = accept", "smtpd_milters = inet:"+s.verify, "non_smtpd_milters = $smtpd_milters")
			}},
		{name: "the session decides, and the cleanup of this machine's mail has a daemon name of its own", up: true,
			milterd: "listen-verify = []\nlisten-sign = [\"inet:SIGN\"]\nlisten = [\"inet:VERIFY\"]\n",
			edit: func(s *site) {
				s.postconf("-e", "milter_default_action = accept", "smtpd_milters = inet:"+s.verify, "non_smtpd_milters = $smtpd_milters")
				s.postconf("-P", "cleanup/unix/milter_macro_daemon_name=ORIGINATING")
			}},
		{name: "an own host that sends nearly all mail, and a backup MX, both named", up: true,
			milterd: "listen-verify = []\nlisten-sign = [\"inet:SIGN\"]\nlisten = [\"inet:VERIFY\"]\ninternal-networks = [\"10.0.0.5\"]\ntrusted-relays = [\"10.0.0.9\"]\n",
			edit: func(s *site) {
				s.postconf("-e", "mynetworks = 127.0.0.0/8 10.0.0.0/24")
				s.write("mail.log", s.log(func(int) string { return "10.0.0.5" })+s.took("10.0.0.5", "")+s.took("10.0.0.9", ""))
			}},
		{name: "one of several instances, and another asks for lists and the greylist", edit: func(s *site) {
			s.postconf("-e", "multi_instance_directories = /etc/postfix-in", "smtpd_recipient_restrictions = permit_mynetworks, reject_unauth_destination")
		}},
		{name: "only the policy daemon", edit: func(s *site) {
			s.postconf("-X", "smtpd_milters", "non_smtpd_milters")
			s.postconf("-PX", "submission/inet/smtpd_milters")
		}, down: true, policyd: "checks = [\"ownership\", \"dnsbl\", \"greylist\"]\n"},
		{name: "limits, asked at both ends of a mail", up: true, policyd: "limit = [\"login.recipients=300/1h\"]\nlimit-store = \"sqlite:DIR/run/limits.db\"\n", edit: func(s *site) {
			s.replace("etc/main.cf", "policy_context=ownership", "{ policy_context = ownership, limit }")
			s.postconf("-e", "postern_limit = check_policy_service { inet:"+s.policy+", policy_context=limit }")
			s.postconf("-P", "submission/inet/smtpd_end_of_data_restrictions=$postern_limit")
		}},
		{name: "limits without ownership", up: true, policyd: "checks = [\"limit\", \"dnsbl\", \"greylist\"]\nlimit = [\"login.recipients=300/1h\"]\nlimit-store = \"sqlite:DIR/run/limits.db\"\n", edit: func(s *site) {
			s.replace("etc/main.cf", "policy_context=ownership", "policy_context=limit")
			s.postconf("-e", "postern_limit = check_policy_service { inet:"+s.policy+", policy_context=limit }")
			s.postconf("-P", "submission/inet/smtpd_end_of_data_restrictions=$postern_limit")
		}},
		{name: "only watching", up: true, policyd: "shadow = [\"all\"]\n"},
		{name: "no ownership", up: true, policyd: "checks = [\"dnsbl\", \"greylist\"]\n", edit: func(s *site) {
			s.postconf("-PX", "submission/inet/smtpd_sender_restrictions")
			s.postconf("-X", "postern_ownership")
		}},
		{name: "checks bound to a socket", up: true, policyd: "listen = [\"inet:POLICY=dnsbl,greylist\", \"unix:DIR/queue/postern/own.sock=ownership\"]\n", edit: func(s *site) {
			s.replace("etc/main.cf", ", { policy_context = dnsbl, greylist }", "")
			s.replace("etc/main.cf", "inet:"+s.policy+", policy_context=ownership", "unix:postern/own.sock")
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := test.site(t, shared)
			if test.edit != nil {
				test.edit(s)
			}
			o := s.options()
			o.Skip = append(o.Skip, "versions")
			if s.postfix != s.dir {
				o.Skip = append(o.Skip, "settings")
			}
			if test.down { // milterd is not meant to run
				s.startOnly("policyd")
				o.Milterd.Config = ""
			}
			if r := Run(t.Context(), o); r.Status() != 0 {
				master, _ := os.ReadFile(s.path("etc/main.cf"))
				t.Errorf("status %d:\n%s\n%s", r.Status(), show(problems(r)), master)
			}
		})
	}
}

// What is not there is not counted.
func TestNothingToCount(t *testing.T) {
	if got := checkSockets(t.Context(), &Facts{Postfix: &Postfix{}, Policyd: &Daemon{}, Milterd: &Daemon{}}); len(got) != 1 || got[0].Level != OK || strings.Contains(got[0].Text, "0") {
		t.Errorf("without an attached daemon: %+v", got)
	}
}

// An endpoint is ours by our name, unless it has that of another program: only the
// folder is called after us then.
func TestHasOurName(t *testing.T) {
	for endpoint, want := range map[string]bool{
		"unix:postern/policyd.sock": true, "unix:/run/postern-milterd/verify.sock": true, "inet:postern:10045": true,
		"unix:/srv/postern/rspamd.sock": false, "unix:/srv/postern/opendkim/opendkim.sock": false, "unix:private/policy": false,
	} {
		if got := hasOurName(endpoint); got != want {
			t.Errorf("%s: %t", endpoint, got)
		}
	}
}
