package e2e

import (
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// Postfix asks at the wrong port: mail goes on as default_action says, and both
// daemons name the mistake.
func TestWrongPorts(t *testing.T) {
	t.Parallel()
	s := newSigningSite(t, SiteConfig{Postfix: func(c *postfixtest.Config) {
		policy, milter := "", ""
		for _, line := range c.Main {
			if _, text, ok := strings.Cut(line, "smtpd_milters = { "); ok && strings.HasPrefix(line, "smtpd_milters") {
				milter, _, _ = strings.Cut(text, ",")
			}
		}
		for _, option := range c.MX {
			if _, text, ok := strings.Cut(option, "check_policy_service { "); ok {
				policy, _, _ = strings.Cut(text, ",")
			}
		}
		if policy == "" || milter == "" {
			t.Fatalf("no endpoints in %q, %q", c.MX, c.Main)
		}
		c.More = append(c.More,
			postfixtest.Service{Name: "milter-at-policy", Options: []string{"smtpd_milters={ " + policy + ", default_action=accept }"}},
			postfixtest.Service{Name: "policy-at-milter", Options: []string{
				"smtpd_milters=", "smtpd_recipient_restrictions=reject_unauth_destination, check_policy_service { " + milter + ", default_action=DUNNO }"}},
		)
	}})
	for service, daemon := range map[string]*postfixtest.Daemon{"milter-at-policy": s.Policyd, "policy-at-milter": s.Milterd} {
		if r := send(t, s, service, fromOutside(Stranger, Dora)); r.Code != 250 {
			t.Errorf("%s: %s", service, r)
		}
		r, err := daemon.WaitRecord(t.Context(), func(r postfixtest.Record) bool { return r.Reason == "bad_request" })
		want := map[string]string{"milter-at-policy": "this is a policy port", "policy-at-milter": "this is a milter port"}[service]
		if err != nil || !strings.Contains(r.Error, want) {
			t.Errorf("%s: %v, record %s", service, err, r.Raw)
		}
	}
}
