package verify

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/internal/dmarc"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// deadFor never answers questions about names below one domain.
type deadFor struct {
	*resolvertest.Zone
	domain string
}

func (d deadFor) LookupTXT(ctx context.Context, name string) ([]string, error) {
	if strings.HasSuffix(name, d.domain+".") {
		<-ctx.Done()
		return nil, &net.DNSError{Err: ctx.Err().Error(), Name: name, IsTimeout: true}
	}
	return d.Zone.LookupTXT(ctx, name)
}

// A sender's own DNS that never answers must not use up the time in which the
// victim's policy is looked up, wherever the message asks for it.
func TestDeadDNSHidesNoPolicy(t *testing.T) {
	const zoneText = `_dmarc.reject.example. TXT "v=DMARC1; p=reject"
away.example. TXT "v=spf1 ip4:192.0.2.2 -all"
`
	tests := map[string]string{
		"key":        "DKIM-Signature: v=1; a=rsa-sha256; d=x.dead.example; s=s; h=from; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=QUJD\nFrom: <a@reject.example>\n",
		"author":     "From: <a@dead.example>, <a@reject.example>\n",
		"authors":    "From: <a@a.dead.example>, <a@b.dead.example>, <a@c.dead.example>, <a@d.dead.example>, <a@reject.example>\n",
		"two fields": "From: <a@dead.example>\nFrom: <a@sub.reject.example>\n",
		"seal": "ARC-Seal: i=1; cv=none; a=rsa-sha256; d=dead.example; s=s; b=QUJD\n" +
			"ARC-Message-Signature: i=1; a=rsa-sha256; d=dead.example; s=s; h=from; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=QUJD\n" +
			"ARC-Authentication-Results: i=1; mx.dead.example; dmarc=pass header.from=reject.example\nFrom: <a@reject.example>\n",
	}
	for name, header := range tests {
		for _, sender := range []string{"a@away.example", "a@dead.example"} {
			t.Run(name+" "+sender, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					began := time.Now()
					zone := resolvertest.NewZone(t, zoneText)
					m := New(Options{Resolver: deadFor{zone, "dead.example"}, Now: goldenNow}).Start(t.Context(), Envelope{
						Client: netip.MustParseAddr("192.0.2.2"), Helo: "mx.away.example", Sender: mailaddr.Parse(sender), MTA: goldenHost})
					defer m.Close()
					fields, _ := readMessage(t, header+"\n")
					m.Header(fields)
					r := m.Finish(t.Context())
					if v := r.Findings.DMARC.Verdict; v.Status != dmarc.Fail || !strings.HasSuffix(v.Domain, "reject.example") {
						t.Errorf("%s %s for %q: %v", v.Status, v.Reason, v.Domain, v.Err)
					}
					if !judge(r).marked {
						t.Errorf("not marked: %q", r.Fields)
					}
					if took := time.Since(began); took > DefaultDeadline {
						t.Errorf("took %v", took)
					}
				})
			})
		}
	}
}
