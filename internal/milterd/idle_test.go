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
