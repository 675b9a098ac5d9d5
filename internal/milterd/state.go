package milterd

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/postern-mail/postern/dnsbl"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/service/dns"
	"github.com/postern-mail/postern/milter"
)

// state is everything that one load of the configuration built. What messages
// use of it never changes; a reload makes another state. Messages that have
// begun keep the handlers of theirs, so that nothing of a state is torn down
// under them: its background work alone ends when it is replaced.
type state struct {
	settings *settings
	milter   milter.Settings
	resolver *dns.Resolver
	signing  *signing
	lists    *dnsbl.Lists // asked for evidence; nil when nobody is
	held     *holdQueue   // nil when no mail is held

	files      []string
	background []func(context.Context)
	stop       context.CancelFunc // nil until start
	running    sync.WaitGroup
}

// current is the state in force; nil before the first one is.
type current struct{ atomic.Pointer[state] }

// build makes the handlers of all roles. Nothing of a state that failed has to
// be closed: background work begins with start.
func build(o *settings, r service.Runtime) (*state, error) {
	s := &state{settings: o, milter: milter.Settings{
		Originating:      o.Originating,
		InternalNetworks: o.internal,
		DeferOnError:     o.OnError == wordTempfail,
	}}
	if name := o.set.File(); name != "" {
		s.watch(name)
	}
	if err := s.buildResolver(r); err != nil {
		return nil, err
	}
	for _, p := range parts() {
		handler, err := p.build(s, r)
		if err != nil {
			return nil, err
		}
		if p.role == milter.Sign {
			s.milter.Sign = handler
		} else {
			s.milter.Verify = handler
		}
	}
	for _, text := range o.warnings() {
		r.Log.Warn(text)
	}
	return s, nil
}

// watch adds files whose change must lead to a reload.
func (s *state) watch(files ...string) {
	for _, name := range files {
		if !slices.Contains(s.files, name) {
			s.files = append(s.files, name)
		}
	}
}

// whileInForce has work done while the state is in force. work returns when its
// context ends.
func (s *state) whileInForce(work func(context.Context)) { s.background = append(s.background, work) }

// Files implements service.State.
func (s *state) Files() []string { return s.files }

// Apply puts the state in force and lets go of the one before.
func (s *state) Apply() { s.settings.app.apply(s) }

// Discard implements service.State.
func (s *state) Discard() {}

func (s *state) start() {
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	for _, work := range s.background {
		s.running.Go(func() { work(ctx) })
	}
}

// close ends the background work.
func (s *state) close() {
	s.stop()
	s.running.Wait()
}
