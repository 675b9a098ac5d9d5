package e2e

import (
	"regexp"
	"slices"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// Zones are small, local copies of DNS lists in Spamhaus's form, for a DNS server that
// replaces the whole DNS.
const Zones = `
2.0.0.127.zen.spamhaus.org.      IN A   127.0.0.2
7.2.0.192.zen.spamhaus.org.      IN A   127.0.0.2
7.2.0.192.zen.spamhaus.org.      IN A   127.0.0.4
7.2.0.192.zen.spamhaus.org.      IN TXT "https://check.spamhaus.org/sbl/query/SBL1"
8.2.0.192.zen.spamhaus.org.      IN A   127.0.0.10
1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.zen.spamhaus.org. IN A 127.0.0.3
9.2.0.192.zen.spamhaus.org.      IN A   127.255.255.254
dbltest.com.dbl.spamhaus.org.    IN A   127.0.1.2
test.dbl.spamhaus.org.           IN A   127.0.1.2
spam.example.dbl.spamhaus.org.   IN A   127.0.1.2
*.spam.example.dbl.spamhaus.org. IN A   127.0.1.2
xn--bcher-kva.example.dbl.spamhaus.org. IN A 127.0.1.4
abused.example.dbl.spamhaus.org. IN A   127.0.1.102
`

// WithLists makes the site's MX ask DNS lists too, with the DNS server at the address
// resolver.
func WithLists(c SiteConfig, resolver string) SiteConfig {
	c.Policyd = slices.Concat(c.Policyd, []string{"--resolver=" + resolver})
	before := c.Postfix
	c.Postfix = func(p *postfixtest.Config) {
		askLists(p)
		if before != nil {
			before(p)
		}
	}
	return c
}

// contextPattern matches the policy_context of the MX hook.
var contextPattern = regexp.MustCompile(`\{ policy_context ?= ?` + ownership + ` \}`)

// askLists adds the lists to the checks of the MX hook.
func askLists(c *postfixtest.Config) {
	for i := range c.MX {
		c.MX[i] = contextPattern.ReplaceAllString(c.MX[i], "{ policy_context = "+ownership+",dnsbl }")
	}
}
