package milterd

import (
	"strings"
	"testing"
)

// A setting that does nothing fails --check-config, and is an error in the log of
// the daemon, which runs.
func TestIdleSettings(t *testing.T) {
	for _, test := range []struct{ name, args, want string }{
		{"internal networks", "--internal-networks=192.168.0.0/16", "--internal-networks: has no effect"},
		{"internal networks beside a role", "--internal-networks=192.168.0.0/16 --listen-verify=unix:/run/x", "--listen-sign"},
		{"originating", "--originating=SUBMISSION", "--originating: has no effect"},
		{"lists", "--dnsbl=zen.spamhaus.org", "--dnsbl: has no effect"},
		{"threshold", "--dnsbl-threshold=3 --dmarc-enforce=strict", "--dnsbl-threshold: has no effect"},
		{"hold without enforcement", "--dmarc-enforce=off --dmarc-quarantine=hold", "--dmarc-quarantine: has no effect"},
		{"SPF where all is signed", "--spf-reject=fail --listen-sign=unix:/run/x", "--spf-reject: has no effect"},
		{"DMARC where all is signed", "--dmarc-enforce=evidence --listen-sign=unix:/run/x", "--dmarc-enforce: has no effect"},
		{"relays where all is signed", "--trusted-relays=192.0.2.0/24 --listen-sign=unix:/run/x", "--trusted-relays: has no effect"},
		{"signed fields where all is verified", "--dkim-headers=+From,To --listen-verify=unix:/run/x", "--dkim-headers: has no effect"},
		{"expiry where all is verified", "--dkim-expire=1d --listen-verify=unix:/run/x", "--dkim-expire: has no effect"},
		{"our name where all is signed", "--authserv-id=mx.example --listen-sign=unix:/run/x", "--authserv-id: has no effect"},
		{"a shadow where all is signed", "--shadow=dmarc --listen-sign=unix:/run/x", "--shadow: has no effect: no socket verifies"},
		{"a shadow of SPF that refuses nothing", "--shadow=spf", "--shadow: has no effect: what it names"},
		{"a shadow of DMARC that does nothing", "--shadow=dmarc --dmarc-enforce=off", "--shadow: has no effect: what it names"},
		{"a shadow of all that does nothing", "--shadow=all --dmarc-enforce=off", "--shadow: has no effect: what it names"},
		{"subdomains where all is verified", "--dkim-subdomains --listen-verify=unix:/run/x", "--dkim-subdomains: has no effect: no socket signs"},
		{"subdomains without a key folder", "--dkim-subdomains", "--dkim-subdomains: has no effect: it is about"},
		{"tests of lists that are not asked", "--dnsbl-selftest=zen.spamhaus.org=off", "--dnsbl-selftest: has no effect"},
		{"the default, spelled out", "--shadow= --authserv-id= --dkim-subdomains=false --listen-sign=unix:/run/x", ""},
		{"shadows in use", "--shadow=spf,dmarc --spf-reject=fail --dmarc-enforce=off", ""},
		{"a shadow of all in use", "--shadow=all", ""},
		{"our name in use", "--authserv-id=mx.example", ""},
		{"subdomains in use", "--dkim-subdomains --listen-sign=unix:/run/x --dkim-keys=" + t.TempDir(), ""},
		{"both in use", "--dkim-expire=1d --spf-reject=fail --listen-verify=unix:/run/x --listen-sign=unix:/run/y", ""},
		{"both in use by the session", "--dkim-expire=1d --spf-reject=fail --listen=unix:/run/x", ""},
		{"internal networks in use", "--internal-networks=192.168.0.0/16 --listen=unix:/run/x", ""},
		{"originating in use", "--originating=SUBMISSION --listen=unix:/run/x", ""},
		{"lists in use", "--dnsbl=zen.spamhaus.org --dnsbl-threshold=3 --dmarc-enforce=evidence", ""},
		{"defaults", "", ""},
	} {
		args := append([]string{"--config=", "--dkim-keys=", "--mark-key-file="}, strings.Fields(test.args)...)
		_, err := configure(append(args, "--check-config"), nil)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: --check-config: %v", test.name, err)
		}
		log, logs := observed()
		if _, err := load(log, args[1:]...); err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		entries := logs.FilterMessage("a setting does nothing").All()
		if (len(entries) > 0) != (test.want != "") {
			t.Errorf("%s: logged %v", test.name, entries)
		}
	}
}
