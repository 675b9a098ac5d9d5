// Package dns answers: which DNS resolver does a daemon use, and how does it do?
//
// Both daemons have one resolver each, made of --resolver and --dns-timeout.
// Whatever asks the DNS in a daemon shares it, and with it its cache.
//
// Invariants:
//   - a reload that asks the same servers in the same way keeps the resolver in
//     force: what it has learnt is worth keeping;
//   - a resolver is never closed here once it was given away: the daemon knows
//     its last user.
package dns

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/resolver"
)

// Settings are what the configuration says.
type Settings struct {
	Servers []string      // as [resolver.Config] wants them; none means those of /etc/resolv.conf
	Timeout time.Duration // for one question to one server
}

// Files gives what [Settings.Open] reads, to be watched for changes.
func (s Settings) Files() []string {
	if len(s.Servers) == 0 {
		return []string{resolver.DefaultResolvConf}
	}
	return nil
}

// Resolver is a resolver that can be kept by the next load.
type Resolver struct {
	*resolver.Resolver
	timeout time.Duration
}

// Open makes a resolver, or returns the one in force (nil for none) when it asks
// the same servers with the same time-out. A new one that asks a public
// resolver is warned about. The error is for the operator, about --resolver.
func (s Settings) Open(inForce *Resolver, log *zap.Logger) (*Resolver, error) {
	made, err := resolver.New(resolver.Config{Servers: s.Servers, Timeout: s.Timeout})
	if err != nil {
		return nil, err
	}
	if inForce != nil && inForce.timeout == s.Timeout && slices.Equal(inForce.Servers(), made.Servers()) {
		made.Close() // it has asked nothing
		return inForce, nil
	}
	warnPublic(made, log)
	return &Resolver{made, s.Timeout}, nil
}

// warnPublic tells about resolvers that DNS lists do not serve: some answer
// that nobody is listed.
func warnPublic(r *resolver.Resolver, log *zap.Logger) {
	for _, server := range r.Servers() {
		if operator := resolver.PublicResolver(server.Addr()); operator != "" {
			log.Warn("public DNS resolver: slow, and lists such as Spamhaus refuse it or answer that nobody is listed; run a resolver on this machine, such as unbound, and name it with --resolver",
				zap.Stringer("server", server), zap.String("operator", operator))
		}
	}
}
