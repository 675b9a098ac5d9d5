package policyd

import (
	"errors"
	"slices"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/postmap"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/service/dns"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/policy/checks"
)

// state is everything that one load of the configuration built. It is immutable; a
// reload makes a new state.
type state struct {
	settings *settings
	router   *policy.Router
	parts    []part        // those that run
	dns      *dns.Resolver // nil if no check asks the DNS
	tables   []postmap.Table
}

// current is the state in force.
type current struct{ *service.Current[*state] }

// build makes the chain of the checks that run. After an error, the owner of the life
// closes what was opened.
func build(o *settings, l *service.Life, r service.Runtime) (*state, error) {
	s := &state{settings: o}
	if name := o.set.File(); name != "" {
		l.Watch(name)
	}
	n := &needs{Runtime: r, life: l, set: o.set, options: &o.Options}
	var chain policy.Chain
	known := slices.Concat(record.Known("", false), record.Known("policy_context", o.shadowed(checks.OwnershipName)))
	names := []string{"policy_context"} // of all that can fail
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
		names = append(names, room.name)
	}
	l.OnBegin(func() {
		r.Metrics.Prepare(known...)
		for _, check := range names {
			r.Metrics.PrepareErrors(check, record.Failures(check)...)
		}
	})
	l.OnBegin(func() { r.Readiness.Remove(contextCondition) })
	s.router, s.dns, s.tables = o.newRouter(chain, r), n.dns, n.tables
	return s, nil
}

// contextCondition is the name of the readiness condition that every hook names only
// checks that run.
const contextCondition = "policy_context"

// newRouter returns a router that reports hooks which name a check that does not run.
// Ownership must not be left out because of a typing error. Every hook refuses blocked
// logins.
func (o *Options) newRouter(chain policy.Chain, r service.Runtime) *policy.Router {
	options := policy.RouterOptions{Closed: []string{checks.OwnershipName}, Unknown: func(err error) {
		r.Log.Error("a hook of Postfix names what does not run; correct policy_context in main.cf or master.cf, or add the check to checks", zap.Error(err))
		r.Readiness.Set(contextCondition, false, err.Error())
	}}
	if o.shadowed(checks.OwnershipName) {
		options.Mode = policy.Shadow
	}
	for _, e := range chain {
		if l, ok := e.Check.(*checks.Limit); ok { // a stolen login is stopped wherever Postfix asks about it
			options.Always = policy.Chain{{Check: checks.Blocks{Limit: l}, Mode: e.Mode}}
		}
	}
	return policy.NewRouter(chain, options)
}

// Hook implements policy.Hooks. The state stays open until the hook is
// released.
func (c *current) Hook(context string, bound []string) (policy.Hook, error) {
	s, release := c.Acquire()
	if s == nil {
		return policy.Hook{}, errStopped
	}
	return policy.Hook{Chain: s.router.Chain(context, bound), Deadline: s.settings.Deadline, Release: release}, nil
}

var errStopped = errors.New("the daemon has stopped")

// resolverStats returns the statistics of the resolver in force, if a check uses one.
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
