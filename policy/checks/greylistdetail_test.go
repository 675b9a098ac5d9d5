package checks

import (
	"testing"
	"time"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/spf"
)

// The values in a record lead to the same key.
func TestGreylistDetailIsReadBack(t *testing.T) {
	k := greylist.Keyer{Bits4: 24, Bits6: 64}
	mail := greylist.Mail{Sender: mailaddr.ParseInternal("a b=x@y.example"), Recipient: mailaddr.ParseInternal("c@d.example")}
	for _, tt := range []struct {
		source     greylist.Source
		spf        *spf.Result
		suspicions []string
	}{
		{},
		{spf: &spf.Result{Status: spf.None}},
		{spf: &spf.Result{Status: spf.SoftFail}, source: greylist.Source{Denied: true}},
		{spf: &spf.Result{Status: spf.Pass}, source: greylist.Source{Domain: "y.example"}, suspicions: []string{"helo_mismatch", "spf_none"}},
		{spf: &spf.Result{Status: spf.Pass}, source: greylist.Source{Domain: "y.example", Pool: "z.example"}},
		{spf: &spf.Result{Status: spf.Pass}, source: greylist.Source{Domain: "y.example", Pool: "z.example", PoolCredit: true}},
	} {
		mail.Source = tt.source
		s := sight{key: k.Key(mail), spf: tt.spf, suspicions: tt.suspicions}
		d := ParseGreylistDetail(s.detail() + waitedWord(90*time.Second) + leftWord(210*time.Second))
		mail.Source = d.Source
		if k.Key(mail) != s.key || !d.HasKey || d.HasSPF != (tt.spf != nil) || d.Suspicious != (len(tt.suspicions) > 0) || d.Waited != 90*time.Second || d.Left != 210*time.Second {
			t.Errorf("%q is read as %+v", s.detail(), d)
		}
	}
	if d := ParseGreylistDetail("client=192.0.2.7 mx.x.example"); d.HasKey || d.Proven() {
		t.Errorf("of an exempt request: %+v", d)
	}
}
