package dmarc

import "golang.org/x/net/publicsuffix"

// PSLOrg returns the organizational domain as RFC 7489 section 3.2 defines it.
// It uses the Public Suffix List in golang.org/x/net, including its private
// part. For a public suffix it returns the suffix itself.
func PSLOrg(domain string) string {
	org, err := publicsuffix.EffectiveTLDPlusOne(domain)
	if err != nil {
		return domain
	}
	return org
}
