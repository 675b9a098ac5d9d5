package rotate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/resolver/authority"
)

const (
	maxAliases = 4                  // CNAME records that are followed
	maxCached  = 7 * 24 * time.Hour // what caches hold is no older
	dnsPort    = 53
)

// Authorities is the DNS as its authoritative servers show it.
type Authorities struct{ Asker authority.Asker }

// Look implements [DNS]. Of a server with several addresses one must answer, and all
// that do count.
func (a *Authorities) Look(ctx context.Context, name string) (View, error) {
	asker := a.Asker
	asker.Negative = true
	var cached time.Duration // of the CNAME records on the way
	for hop := range maxAliases {
		answer, err := asker.TXT(ctx, name)
		view, alias := View{}, ""
		if err == nil {
			view, alias, err = viewOf(name, answer.Replies)
		}
		view.Cached = max(view.Cached, cached)
		if err = plain(err); err != nil && hop > 0 {
			err = &aliasError{err, name}
		}
		if err != nil || alias == "" {
			return view, err
		}
		name, cached = alias, view.Cached
	}
	return View{}, fmt.Errorf("%s: more than %d CNAME records", name, maxAliases)
}

// aliasError means that the servers of the name have answered with a CNAME record, and
// those of its target have not answered.
type aliasError struct {
	error
	target string
}

func (e *aliasError) Unwrap() error { return e.error }

// viewOf puts replies together. alias is where all of them say that the name leads.
func viewOf(name string, replies []authority.Reply) (view View, alias string, err error) {
	answered := make(map[string]bool)
	for i := range replies {
		r := &replies[i]
		if r.Err != nil {
			continue
		}
		if len(answered) > 0 && r.Alias != alias {
			return View{}, "", fmt.Errorf("%s: the name servers do not agree where its CNAME record leads yet", name)
		}
		answered[r.Server], alias = true, r.Alias
		view.Cached = min(max(view.Cached, r.TTL, r.Negative), maxCached)
		view.Servers = append(view.Servers, ServerView{r.String(), r.Texts()})
	}
	var errs []error
	for i := range replies {
		if r := &replies[i]; !answered[r.Server] {
			errs = append(errs, fmt.Errorf("name server %s: %w", r, plain(r.Err)))
		}
	}
	return view, strings.TrimSuffix(alias, "."), errors.Join(errs...)
}

// plain is an error without our own port, so that it reads the same each time.
func plain(err error) error {
	var op *net.OpError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &op) && op.Timeout():
		return errors.New("no answer in time")
	case errors.As(err, &op):
		return op.Err
	}
	return err
}

// ParseServer reads the address of a name server: an IP address, with or without a
// port.
func ParseServer(text string) (netip.AddrPort, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return netip.AddrPortFrom(addr, dnsPort), nil
	}
	at, err := netip.ParseAddrPort(text)
	if err != nil || at.Port() == 0 || at.Addr().Zone() != "" {
		return netip.AddrPort{}, fmt.Errorf("%q is not the address of a name server; write 192.0.2.1, 192.0.2.1:53 or [2001:db8::1]:53", text)
	}
	return at, nil
}
