package milterd

import (
	"slices"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/postmap"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/service/dns"
	"github.com/postern-mail/postern/milter"
	"github.com/postern-mail/postern/milter/verify"
)

// state is everything that one load of the configuration built. What messages use of it
// never changes. A reload makes a new state.
type state struct {
	settings *settings
	milter   milter.Settings
	dns      *dns.Resolver
	tables   []postmap.Table
}

// current is the state in force.
type current struct{ *service.Current[*state] }

// build makes the handlers of all roles. After an error, the owner of the life closes
// what was opened.
func build(o *settings, l *service.Life, r service.Runtime) (*state, error) {
	if name := o.set.File(); name != "" {
		l.Watch(name)
	}
	dns, err := dns.Settings{Servers: o.Resolvers, Timeout: o.DNSTimeout, Took: r.Metrics.DNSQuestions(resolver.Outcomes()...)}.Open(l, r.Log)
	if err != nil {
		return nil, o.set.Errorf("resolver", "%w", err)
	}
	n := &needs{
		Runtime: r, life: l, set: o.set, options: &o.Options, asks: dns.Resolver, dns: dns.Key, readOnly: o.set.CheckOnly(),
		milter: o.milterSettings(),
	}
	for _, room := range o.rooms {
		if err := room.build(n); err != nil {
			return nil, err
		}
	}
	l.OnBegin(func() { r.Metrics.Prepare(o.known()...) })
	verifier := verify.New(n.verify)
	n.milter.Verify = milter.NewVerifying(verifier)
	if n.signer != nil {
		n.milter.Sign = milter.NewSigning(n.signer, n.marks, verifier)
	}
	for _, warn := range n.warnings {
		warn()
	}
	for _, text := range o.warnings() {
		r.Log.Warn(text)
	}
	for _, idle := range o.idle {
		r.Log.Error("a setting does nothing", zap.Error(idle))
	}
	return &state{settings: o, milter: n.milter, dns: dns, tables: n.tables}, nil
}

// milterSettings returns the settings of the milter that are options as such.
func (o *Options) milterSettings() milter.Settings {
	return milter.Settings{Originating: o.Originating, InternalNetworks: o.internal, DeferOnError: o.OnError == wordTempfail}
}

// known returns the decisions that are possible with these settings.
func (o *Options) known() []record.Labels {
	all := slices.Concat(record.Known("", false), record.Known(milter.Sign.String(), false), record.Known(milter.Verify.String(), false))
	if o.rotates() {
		all = append(all, record.Known(rotateCheck, false)...)
	}
	if len(o.Shadow) > 0 {
		all = append(all, record.Known(milter.Verify.String(), true)...)
	}
	return all
}

// Pin implements milter.Source. The state stays open until the message is over.
func (c *current) Pin() (*milter.Settings, func()) {
	s, release := c.Acquire()
	if s == nil {
		return new(milter.Settings), release // the daemon has stopped
	}
	return &s.milter, release
}

// resolverStats returns the statistics of the resolver in force.
func (c *current) resolverStats() (resolver.Stats, bool) {
	s, release := c.Acquire()
	defer release()
	if s == nil {
		return resolver.Stats{}, false
	}
	return s.dns.Stats(), true
}
