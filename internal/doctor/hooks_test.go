package doctor

import "testing"

// Classes that lead to each other, by their names or by static tables, end.
func TestHooksOfClasses(t *testing.T) {
	s := &Service{postfix: &Postfix{Params: map[string]string{
		"smtpd_restriction_classes":    "one two",
		"one":                          "check_client_access static:two, reject_unauth_pipelining",
		"two":                          "one, check_client_access static:{one}, check_policy_service inet:127.0.0.1:10045",
		"smtpd_recipient_restrictions": "permit_mynetworks, one, check_policy_service inet:127.0.0.1:10048",
	}}}
	var got []string
	for _, h := range s.hooks() {
		got = append(got, h.Endpoint+" behind "+h.Before[0])
	}
	if len(got) < 2 || got[0] != "inet:127.0.0.1:10045 behind permit_mynetworks" || got[len(got)-1] != "inet:127.0.0.1:10048 behind permit_mynetworks" {
		t.Errorf("%q", got)
	}
}
