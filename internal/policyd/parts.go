package policyd

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/postmap"
	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/service/dns"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/policy/checks"
)

// part is one check of the daemon: its flags, the checks of their values, and the code
// that builds it. Each load of the configuration has new parts. A part keeps what its
// build method made, for its commands and metrics.
type part interface {
	bind(*pflag.FlagSet)
	// validate does no I/O. It may normalize values.
	validate(*config.Set) error
	build(*needs) (policy.Entry, error)
}

// room is a part with the name of its check, its commands and its metrics. They use the
// part in force.
type room struct {
	name string
	part
	commands func(*current) map[string]admin.Handler // may be nil
	metrics  func(*current) []prometheus.Collector   // likewise
}

// Commands implements service.Room.
func (r room) Commands() func(*current) map[string]admin.Handler { return r.commands }

// Metrics implements service.Room.
func (r room) Metrics() func(*current) []prometheus.Collector { return r.metrics }

// rooms returns all parts, in the order in which the chain asks the checks.
func rooms() []room {
	return []room{
		{checks.OwnershipName, new(ownershipPart), ownershipCommands, nil},
		{checks.LimitName, new(limitPart), limitCommands, limitMetrics},
		{checks.DNSBLName, new(dnsblPart), dnsblCommands, dnsblMetrics},
		{checks.GreylistName, new(greylistPart), greylistCommands, greylistMetrics},
	}
}

func checkNames() []string {
	var names []string
	for _, r := range rooms() {
		names = append(names, r.name)
	}
	return names
}

// needs is the input for building a check.
type needs struct {
	service.Runtime
	life    *service.Life
	set     *config.Set // for errors that name the setting
	options *Options    // of the daemon: which checks run, and which are only watched

	dns    *dns.Resolver   // nil until a part asks for it
	tables []postmap.Table // that the parts have opened
}

// delimiters returns the characters between user and extension (--recipient-delimiter).
func (n *needs) delimiters() string { return n.set.Lookup("recipient-delimiter").Value.String() }

// resolver returns the DNS resolver that all parts share.
func (n *needs) resolver() (*dns.Resolver, error) {
	if n.dns == nil {
		opened, err := dns.Settings{Servers: n.options.Resolvers, Timeout: n.options.DNSTimeout, Took: n.Metrics.DNSQuestions(resolver.Outcomes()...)}.Open(n.life, n.Log)
		if err != nil {
			return nil, n.set.Errorf("resolver", "%w", err)
		}
		n.dns = opened
	}
	return n.dns, nil
}

// inForce returns the part of type P of the state in force. The caller must call
// release, which is nil if there is no such part.
func inForce[P part](c *current) (found P, release func()) {
	s, release := c.Acquire()
	if s != nil {
		for _, p := range s.parts {
			if found, ok := p.(P); ok {
				return found, release
			}
		}
	}
	release()
	return found, nil
}

// command returns the handler of a command that the part of type P answers.
func command[P part, A any](c *current, check string, answer func(P, context.Context, A, func(any)) (any, error)) admin.Handler {
	return admin.Typed(func(ctx context.Context, args A, progress func(any)) (any, error) {
		p, release := inForce[P](c)
		if release == nil {
			return nil, &admin.Error{Code: admin.CodeFailed, Message: fmt.Sprintf("the %s check does not run: add %s to checks", check, check)}
		}
		defer release()
		return answer(p, ctx, args, progress)
	})
}
