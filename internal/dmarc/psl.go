package dmarc

import "golang.org/x/net/publicsuffix"

// PSLOrg is the organizational domain that RFC 7489 section 3.2 finds with the
// Public Suffix List compiled into golang.org/x/net, its private part
// included. A public suffix is its own.
func PSLOrg(domain string) string {
	org, err := publicsuffix.EffectiveTLDPlusOne(domain)
	if err != nil {
		return domain
	}
	return org
}
