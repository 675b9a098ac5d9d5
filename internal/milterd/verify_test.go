package milterd

import (
	"testing"
	"time"

	"github.com/postern-mail/postern/milter/verify"
)

// TestVerifySettings asserts each default, and that each flag arrives.
func TestVerifySettings(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want verify.Options
	}{
		{"defaults", nil, verify.Options{Deadline: 10 * time.Second, Skew: 5 * time.Minute}},
		{"all", []string{"--verify-deadline=3s", "--dkim-skew=1h", "--spf-reject=fail", "--received-spf", "--authserv-id=ID.Example"},
			verify.Options{Deadline: 3 * time.Second, Skew: time.Hour, SPFReject: true, ReceivedSPF: true, AuthservID: "id.example"}},
		{"no skew", []string{"--dkim-skew=0s"}, verify.Options{Deadline: 10 * time.Second, Skew: -1}},
		{"never", []string{"--spf-reject=never"}, verify.Options{Deadline: 10 * time.Second, Skew: 5 * time.Minute}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, got, err := open(t, test.args...)
			if err != nil {
				t.Fatal(err)
			}
			if got.HostName == "" {
				t.Error("no host name to fall back to")
			}
			if got.Deadline != test.want.Deadline || got.Skew != test.want.Skew || got.SPFReject != test.want.SPFReject ||
				got.ReceivedSPF != test.want.ReceivedSPF || got.AuthservID != test.want.AuthservID {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
	for _, bad := range []string{"--verify-deadline=1h", "--verify-deadline=0s", "--dkim-skew=48h", "--spf-reject=softfail", "--authserv-id=a b"} {
		if _, err := configure([]string{"--config=", bad}, nil); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}
