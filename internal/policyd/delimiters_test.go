package policyd

import (
	"testing"

	"github.com/postern-mail/postern/policy/checks"
)

// TestDelimitersReachTheLists has the lists of recipients follow Postfix's
// recipient_delimiter, whether the ownership check runs or not.
func TestDelimitersReachTheLists(t *testing.T) {
	for flag, want := range map[string]string{"--recipient-delimiter=-": "-", "--recipient-delimiter=": "", "--deadline=8s": "+"} {
		_, s := inForceWith(t, "--checks=dnsbl,greylist", "--greylist-store=memory:", "--resolver=127.0.0.1:9", flag)
		chain := s.router.Chain("", nil)
		for _, entry := range chain {
			var got string
			switch check := entry.Check.(type) {
			case *checks.DNSBL:
				got = check.Delimiters
			case *checks.Greylist:
				got = check.Delimiters
			}
			if got != want {
				t.Errorf("%s: %s has the delimiters %q", flag, entry.Check.Name(), got)
			}
		}
		if len(chain) != 2 {
			t.Errorf("%d checks run", len(chain))
		}
	}
}
