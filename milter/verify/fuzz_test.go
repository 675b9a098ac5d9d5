package verify

import (
	"bufio"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/dkim"
	reader "github.com/postern-mail/postern/internal/golden"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
	"github.com/postern-mail/postern/milter/authres"
)

// FuzzResults lets a stranger choose everything except the DNS. Nothing
// authenticates, so no result may read as a pass. Our field must be there, and no
// other field that claims to be ours may be left.
func FuzzResults(f *testing.F) {
	for _, g := range readGolden(f) {
		f.Add(g.envelope.Sender.Raw, g.envelope.Helo, g.message)
	}
	f.Add(`"a\"; dkim=pass x=\""@[IPv6:::1]`, "\"\\;dkim=pass", "Authentication-Results: \x00\nDKIM-Signature: v=1; i=\"\nFrom: x\n\n")
	zone := resolvertest.NewZone(f, "")
	v := New(Options{Resolver: zone, Now: goldenNow, Deadline: 200 * time.Millisecond, SPFReject: true, ReceivedSPF: true})
	f.Fuzz(func(t *testing.T, sender, helo, message string) {
		fields, err := reader.Header[dkim.Field](bufio.NewReader(strings.NewReader(message)))
		if err != nil {
			return
		}
		m := v.Start(t.Context(), Envelope{Client: netip.MustParseAddr("192.0.2.10"), Helo: helo, Sender: mailaddr.Parse(sender), MTA: goldenHost})
		defer m.Close()
		if m.Header(fields) != nil {
			return
		}
		m.Write([]byte(message))
		r := m.Finish(t.Context())
		checkFields(t, r)
		ours := r.Fields[0].Value
		if !authres.Claims(ours, goldenHost) {
			t.Errorf("%q does not name us", ours)
		}
		for _, word := range []string{"dkim=pass", "spf=pass", "dmarc=pass", "dmarc=fail", "arc=", "iprev=pass", "auth="} {
			if strings.Contains(strings.ReplaceAll(ours, "dmarc=", "dmarc "), strings.ReplaceAll(word, "dmarc=", "dmarc ")) {
				t.Errorf("%q in %q", word, ours)
			}
		}
		if n := strings.Count(ours, "dmarc="); n != 1 {
			t.Errorf("%d results of DMARC in %q", n, ours)
		}
		removed := map[int]bool{}
		for _, p := range r.Remove {
			if p.Name == resultsField {
				removed[p.Index] = true
			}
		}
		n := 0
		for _, field := range fields {
			if field.Is(resultsField) {
				if n++; authres.Claims(field.Value, goldenHost) != removed[n] {
					t.Errorf("field %d %q: removed %v", n, field.Value, removed[n])
				}
			}
		}
	})
}
