package checks

import (
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/internal/spf"
	"github.com/postern-mail/postern/policy"
)

// Networks that are larger than these prefixes are not a pool, because a
// botnet could have machines in them.
const (
	poolBits4 = 12
	poolBits6 = 28
)

// proves reports whether an SPF result ties the client to the domain. A record
// that matches almost any client does not: a whole botnet would get the same
// key.
func proves(r *spf.Result) bool { return r != nil && r.Status == spf.Pass && !r.Broad() }

// sourceOf returns what SPF and the confirmed name prove about a client.
//
// Large senders publish records that are too broad for proves: Microsoft two
// networks of /15, Yahoo ptr, Salesforce exists. For them the confirmed name
// says which of the admitted servers are theirs. The source is the domain
// together with the organizational domain of that name. A pass alone can be
// bought, because many domains admit a whole cloud. So the pool shares its
// credit only if the publisher of the matching record also runs the pool, such
// as outlook.com for include:spf.protection.outlook.com. All others earn credit
// for each network.
func sourceOf(r *spf.Result, c policy.Client) greylist.Source {
	switch {
	case r.Status == spf.Fail || r.Status == spf.SoftFail:
		return greylist.Source{Denied: true}
	case proves(r):
		return greylist.Source{Domain: r.Domain}
	}
	pool := poolOf(r, c)
	if pool == "" {
		return greylist.Source{}
	}
	return greylist.Source{Domain: r.Domain, Pool: pool, PoolCredit: runs(pool, r.Path)}
}

// poolOf returns the organizational domain of the client's confirmed name, or
// "" if that does not identify the sender. The name of a rented machine does
// not: it contains its address, or is directly below a public suffix.
func poolOf(r *spf.Result, c policy.Client) string {
	if r.Status != spf.Pass || !narrowEnough(r) || c.Name == "" || looksDynamic(c.Name, c.Address) || c.Address.Is4() && holdsOctets(strings.ToLower(c.Name), c.Address.As4()) {
		return ""
	}
	return organization(c.Name)
}

func narrowEnough(r *spf.Result) bool {
	switch r.Kind {
	case spf.KindPTR, spf.KindExists:
		return true
	case spf.KindA, spf.KindMX, spf.KindIP4, spf.KindIP6:
		least := poolBits6
		if r.Network.Addr().Is4() {
			least = poolBits4
		}
		return r.Network.IsValid() && r.Network.Bits() >= least
	}
	return false
}

// runs reports whether the pool published one of the records that led to the
// match.
func runs(pool string, path []string) bool {
	for _, domain := range path {
		if organization(domain) == pool {
			return true
		}
	}
	return false
}

// organization returns the organizational domain of a name by the public suffix
// list. The private part of that list has the clouds that give names to their
// customers.
func organization(name string) string {
	org, err := publicsuffix.EffectiveTLDPlusOne(strings.ToLower(strings.TrimSuffix(name, ".")))
	if err != nil {
		return ""
	}
	return org
}
