package policyd

import (
	"slices"
	"sync/atomic"

	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/service/dns"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/policy/checks"
)

// state is everything that one load of the configuration built. It is
// immutable; a reload makes another one. It is closed when it has been
// replaced and its last user is gone.
type state struct {
	settings  *settings
	router    *policy.Router
	ownership *checks.Ownership // nil when the check does not run
	lists     *shared[*lists]   // likewise
	greylist  *shared[*greylistStore]
	dns       *shared[*dns.Resolver]

	files   []string
	closers []func() error
	starts  []func()
	release func() // s.done, made once: a method value costs an allocation

	users atomic.Int64 // its place in current counts as one
}

// build makes the chain of the checks that run. On an error everything that
// was opened is closed again.
func build(o *settings, r service.Runtime) (*state, error) {
	s := &state{settings: o}
	s.release = s.done
	s.users.Store(1)
	if name := o.set.File(); name != "" {
		s.watch(name)
	}
	var chain policy.Chain
	for _, p := range parts() {
		if !o.runs(p.name) {
			continue
		}
		entry, err := p.build(s, r)
		if err != nil {
			s.done()
			return nil, err
		}
		if o.shadowed(p.name) {
			entry.Mode = policy.Shadow
		}
		chain = append(chain, entry)
	}
	s.router = policy.NewRouter(chain)
	return s, nil
}

// watch adds files whose change must lead to a reload.
func (s *state) watch(files ...string) { s.files = append(s.files, files...) }

// closeLater adds what is to be closed with the state, in the reverse order.
func (s *state) closeLater(f func() error) { s.closers = append(s.closers, f) }

// Files implements service.State.
func (s *state) Files() []string { return s.files }

// startLater adds what begins to run once the state is in force.
func (s *state) startLater(f func()) { s.starts = append(s.starts, f) }

// Apply puts the state in force and lets go of the one before.
func (s *state) Apply() {
	for _, f := range s.starts {
		f()
	}
	if old := s.settings.current.p.Swap(s); old != nil {
		old.done()
	}
}

// Discard implements service.State.
func (s *state) Discard() { s.done() }

// use counts a user in; false means that the state has been closed already.
func (s *state) use() bool {
	for {
		n := s.users.Load()
		if n == 0 {
			return false
		}
		if s.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// done counts a user out. The last one closes what the state has opened.
func (s *state) done() {
	if s.users.Add(-1) > 0 {
		return
	}
	for _, f := range slices.Backward(s.closers) {
		_ = f() // whatever it was, it is not used any more
	}
}

// current is the state in force.
type current struct{ p atomic.Pointer[state] }

// acquire returns the state in force, counted in: the caller counts it out.
func (c *current) acquire() *state {
	for {
		if s := c.p.Load(); s.use() {
			return s
		}
	}
}

// Hook implements policy.Hooks. The state stays open until the hook is
// released.
func (c *current) Hook(context string, bound []string) (policy.Hook, error) {
	s := c.acquire()
	chain, err := s.router.Chain(context, bound)
	if err != nil {
		s.done()
		return policy.Hook{}, err
	}
	return policy.Hook{Chain: chain, Deadline: s.settings.Deadline, Release: s.release}, nil
}

func onError(word string) policy.OnError {
	if word == wordDefer {
		return policy.ErrorDefer
	}
	return policy.ErrorPass
}
