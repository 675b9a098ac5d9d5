package checks

import (
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/internal/spf"
	"github.com/postern-mail/postern/policy"
)

// Networks wider than these prefix lengths are no pool either: a botnet would
// find room in them.
const (
	poolBits4 = 12
	poolBits6 = 28
)

// proves reports whether an SPF result ties the client to the domain. A record
// that anybody matches would make one key of a whole botnet.
func proves(r *spf.Result) bool { return r != nil && r.Status == spf.Pass && !r.Broad() }

// sourceOf is what SPF and the confirmed name say about a client.
//
// Large senders publish more than proves takes: Microsoft two networks of /15,
// Yahoo ptr, Salesforce exists. A confirmed name says which of the servers that
// such a record admits are theirs: the domain and the organizational domain of the
// name make the source. A pass alone can be bought, since many domains admit a
// whole cloud, so the credit is that of the pool only when the one who has
// published the matching record also runs the pool: outlook.com for
// include:spf.protection.outlook.com. Everyone else earns it at each network.
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

// poolOf is the organizational domain of the client's confirmed name, "" when it
// identifies no one. That of a rented machine, which holds its address or is
// one of a public suffix, does not.
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

// runs reports whether one of the records that led to the match is the pool's.
func runs(pool string, path []string) bool {
	for _, domain := range path {
		if organization(domain) == pool {
			return true
		}
	}
	return false
}

// organization is the organizational domain of a name by the public suffix list;
// its private part has the clouds whose customers get names.
func organization(name string) string {
	org, err := publicsuffix.EffectiveTLDPlusOne(strings.ToLower(strings.TrimSuffix(name, ".")))
	if err != nil {
		return ""
	}
	return org
}
