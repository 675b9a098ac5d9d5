package policyd

import (
	"encoding/json"
	"testing"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/policy"
)

// TestFirstTableDecides has a table in front of the one that makes the boss the
// owner of his address, as in smtpd_sender_login_maps.
func TestFirstTableDecides(t *testing.T) {
	const front, behind = "--owners=inline:{boss@x.example=none}", "--owners=inline:{boss@x.example=boss@x.example}"
	for _, test := range []struct {
		name  string
		flags []string
		want  policy.Kind
	}{
		{"several tables", []string{front, behind}, policy.Reject},
		{"several tables without owner-self", []string{front, behind, "--owner-self=false"}, policy.Reject},
		{"the other order", []string{behind, front}, policy.Pass},
		{"a union by request", []string{front, behind, "--owners-first-match=false"}, policy.Pass},
		{"one table does not shadow the user", []string{front}, policy.Pass},
		{"unless it is asked for", []string{front, "--owners-first-match"}, policy.Reject},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, _ := inForceWith(t, append([]string{"--checks=ownership"}, test.flags...)...)
			args := json.RawMessage(`{"sender":"boss@x.example","login":"boss@x.example"}`)
			result, err := commands(c)[api.OwnersCheck](t.Context(), args, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := result.(api.OwnersCheckResult); got.Verdict != test.want.String() {
				t.Errorf("%+v; want %v", got, test.want)
			}
		})
	}
}
