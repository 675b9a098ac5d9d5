package milterd

import (
	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/service/dns"
)

// buildResolver makes the resolver of the daemon, or keeps the one in force. One
// that is replaced is left to the messages that still use it: it has no work of
// its own beyond their questions.
func (s *state) buildResolver(r service.Runtime) error {
	o := dns.Settings{Servers: s.settings.Resolvers, Timeout: s.settings.DNSTimeout}
	s.watch(o.Files()...)
	var inForce *dns.Resolver
	if old := s.settings.app.current.Load(); old != nil {
		inForce = old.resolver
	}
	var err error
	if s.resolver, err = o.Open(inForce, r.Log); err != nil {
		return s.settings.set.Errorf("resolver", "%w", err)
	}
	return nil
}

// resolverStats are those of the resolver in force.
func (c *current) resolverStats() (resolver.Stats, bool) {
	s := c.Load()
	if s == nil {
		return resolver.Stats{}, false
	}
	return s.resolver.Stats(), true
}
