package verify

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/postern-mail/postern/internal/helo"
	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/spf"
	"github.com/postern-mail/postern/milter/authres"
)

// maxReverseNames is how many names of a client are looked up, as SPF does (RFC
// 7208 section 4.6.4).
const maxReverseNames = spf.MaxNames

// IPRev is the result of looking up a name of the client's address and then the
// addresses of that name (RFC 8601 section 2.7.3). Its Value is "" when DNS was not
// asked.
type IPRev struct {
	Value authres.Value
	Name  string // the name that leads back, or else the first one
	Err   error  // of temperror and permerror
}

// checkIPRev asks for the names of the client and their addresses.
func checkIPRev(ctx context.Context, dns Resolver, client netip.Addr) IPRev {
	if anonymous(client) {
		return IPRev{}
	}
	client = client.Unmap().WithZone("")
	names, err := dns.LookupAddr(ctx, client.String())
	switch {
	case err != nil && !resolver.IsAbsent(err):
		return IPRev{Value: authres.TempError, Err: fmt.Errorf("PTR %s: %w", client, err)}
	case len(names) == 0:
		return IPRev{Value: authres.PermError, Err: errNoName}
	}
	r := IPRev{Value: authres.Fail, Name: hostName(names[0])}
	for _, name := range names[:min(len(names), maxReverseNames)] {
		found, err := helo.HasAddress(ctx, dns, name, client)
		switch {
		case found:
			return IPRev{Value: authres.Pass, Name: hostName(name)}
		case err != nil:
			r.Value, r.Err = authres.TempError, err
		}
	}
	return r
}

var errNoName = errors.New("the address has no name")

func hostName(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }
