package resolver_test

import (
	"slices"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// Took is called once for each question that is sent, with its outcome, and not for
// answers from the cache.
func TestTook(t *testing.T) {
	srv := resolvertest.New(t, "home.example. IN TXT \"x\"\nhost.example. IN A 192.0.2.1\n")
	srv.Fail("broken.example", resolvertest.ServFail)
	srv.Fail("silent.example", resolvertest.Silence)
	for name, want := range map[string]string{
		"home.example": "answer", "host.example": "absent", "none.example": "absent", "broken.example": "refused", "silent.example": "timeout",
	} {
		heard := make(chan string, 8)
		r, err := resolver.New(resolver.Config{Servers: []string{srv.Addr()}, Timeout: 20 * time.Millisecond, Took: func(outcome string, took time.Duration) {
			if took < 0 || took > time.Minute {
				t.Errorf("%s took %s", name, took)
			}
			heard <- outcome
		}})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			_, _ = r.LookupTXT(t.Context(), name)
		}
		r.Close()
		close(heard)
		var all []string
		for outcome := range heard {
			all = append(all, outcome)
		}
		if !slices.Equal(all, []string{want}) || !slices.Contains(resolver.Outcomes(), want) {
			t.Errorf("%s: heard %q, want %q", name, all, want)
		}
	}
}
