package policyd

import (
	"errors"

	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/service/dns"
	"github.com/postern-mail/postern/policy"
)

// state is everything that one load of the configuration built. It is
// immutable; a reload makes another one.
type state struct {
	settings *settings
	router   *policy.Router
	parts    []part        // that run
	dns      *dns.Resolver // nil when no check asks the DNS
}

// current is the state in force.
type current struct{ *service.Current[*state] }

// build makes the chain of the checks that run. What was opened before an error
// is closed by the life's owner.
func build(o *settings, l *service.Life, r service.Runtime) (*state, error) {
	s := &state{settings: o}
	if name := o.set.File(); name != "" {
		l.Watch(name)
	}
	n := &needs{Runtime: r, life: l, set: o.set, options: &o.Options}
	var chain policy.Chain
	known := record.Known("", false)
	for _, room := range o.rooms {
		if !o.runs(room.name) {
			continue
		}
		entry, err := room.build(n)
		if err != nil {
			return nil, err
		}
		if o.shadowed(room.name) {
			entry.Mode = policy.Shadow
		}
		chain = append(chain, entry)
		s.parts = append(s.parts, room.part)
		known = append(known, record.Known(room.name, entry.Mode == policy.Shadow)...)
	}
	l.OnBegin(func() { r.Metrics.Prepare(known...) })
	s.router, s.dns = policy.NewRouter(chain), n.dns
	return s, nil
}

// Hook implements policy.Hooks. The state stays open until the hook is
// released.
func (c *current) Hook(context string, bound []string) (policy.Hook, error) {
	s, release := c.Acquire()
	if s == nil {
		return policy.Hook{}, errStopped
	}
	chain, err := s.router.Chain(context, bound)
	if err != nil {
		release()
		return policy.Hook{}, err
	}
	return policy.Hook{Chain: chain, Deadline: s.settings.Deadline, Release: release}, nil
}

var errStopped = errors.New("the daemon has stopped")

// resolverStats are those of the resolver in force, if a check uses one.
func (c *current) resolverStats() (resolver.Stats, bool) {
	s, release := c.Acquire()
	defer release()
	if s == nil || s.dns == nil {
		return resolver.Stats{}, false
	}
	return s.dns.Stats(), true
}

func onError(word string) policy.OnError {
	if word == wordDefer {
		return policy.ErrorDefer
	}
	return policy.ErrorPass
}
