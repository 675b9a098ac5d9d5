package policyd

import (
	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/service/dns"
)

// resolver gives the DNS resolver that all checks of the state share.
func (s *state) resolver(r service.Runtime) (*resolver.Resolver, error) {
	if s.dns == nil {
		opened, err := s.openResolver(r.Log)
		if err != nil {
			return nil, err
		}
		s.dns = opened
		s.closeLater(opened.done)
	}
	return s.dns.value.Resolver, nil
}

func (s *state) openResolver(log *zap.Logger) (*shared[*dns.Resolver], error) {
	o := dns.Settings{Servers: s.settings.Resolvers, Timeout: s.settings.DNSTimeout}
	s.watch(o.Files()...)
	var inForce *dns.Resolver
	before := s.previous()
	if before != nil && before.dns != nil {
		inForce = before.dns.value
	}
	opened, err := o.Open(inForce, log)
	switch {
	case err != nil:
		return nil, s.settings.set.Errorf("resolver", "%w", err)
	case opened == inForce:
		return before.dns.use(), nil
	}
	return share(opened, "", opened.Close), nil
}

// resolverStats are those of the resolver in force, if a check uses one.
func (c *current) resolverStats() (resolver.Stats, bool) {
	s := c.acquire()
	defer s.done()
	if s.dns == nil {
		return resolver.Stats{}, false
	}
	return s.dns.value.Stats(), true
}
