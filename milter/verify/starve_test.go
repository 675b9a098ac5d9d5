package verify

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// silentMail is a message of a stranger all of whose names have silent servers. It
// asks for as much as a message can.
func silentMail(session, n int, oneZone bool) dmarcCase {
	name := func(what string) string {
		if oneZone {
			return fmt.Sprintf("%s.s%dn%d.silent.example", what, session, n)
		}
		return fmt.Sprintf("%s.silent%dn%d.example", what, session, n)
	}
	var header strings.Builder
	var from []string
	for i := range 5 {
		d := name(fmt.Sprintf("d%d", i))
		fmt.Fprintf(&header, "DKIM-Signature: v=1; a=rsa-sha256; d=%s; s=s; h=from; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\n", d)
		from = append(from, "a@"+d)
	}
	return dmarcCase{
		client: fmt.Sprintf("203.0.%d.%d", session%250, n%250+1), helo: name("h"), sender: "x@" + name("f"),
		header: header.String(), from: strings.Join(from, ", "),
	}
}

// Sessions whose DNS never answers do not keep the policies and keys of other
// mail from being asked for: a forged mail is marked.
func TestSilentSessionsUnmarkNothing(t *testing.T) {
	for name, oneZone := range map[string]bool{"one zone": true, "a zone a mail": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				zone := resolvertest.NewZone(t, dmarcZone)
				zone.Fail("*", resolvertest.Silence)
				for _, well := range []string{".", "reject.example", "*.reject.example", "*.2.0.192.in-addr.arpa", "away.example", "*.away.example"} {
					zone.Fail(well, resolvertest.Healthy)
				}
				r, err := resolver.New(resolver.Config{Servers: []string{"127.0.0.1"}, Exchange: zone.Exchange, CacheBytes: -1})
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				var sessions sync.WaitGroup
				ctx, stop := context.WithCancel(t.Context())
				for session := range 200 {
					sessions.Go(func() {
						for n := 0; ctx.Err() == nil; n++ {
							silentMail(session, n, oneZone).result(t, r)
						}
					})
				}
				time.Sleep(9 * time.Second)
				for range 5 {
					start := time.Now()
					got := judge(dmarcCase{sender: "x@reject.example", from: "a@reject.example"}.result(t, r))
					if !got.marked || !strings.HasPrefix(got.dmarc, "fail") {
						t.Errorf("after %v: %+v", time.Since(start), got)
					}
				}
				stop()
				sessions.Wait()
			})
		})
	}
}
