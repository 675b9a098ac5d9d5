package policy

import (
	"fmt"
	"strings"
	"sync"
)

// maxRoutes bounds the chains that a Router remembers. A site has a handful of
// hooks; what comes beyond is put together anew for each request.
const maxRoutes = 64

// Router picks the checks for a hook out of all that run. It is safe for
// concurrent use.
type Router struct {
	all Chain

	mu     sync.RWMutex
	routes map[string]Chain
}

// NewRouter takes all checks that run, in their order.
func NewRouter(all Chain) *Router {
	return &Router{all: all, routes: make(map[string]Chain)}
}

// Chain returns the checks that a policy_context names, separated by commas or
// white space, in the order in which the router has them. When context is
// empty, the words that the listener is bound to stand for it; when there are
// none either, all checks are meant. The error names a word that is no check
// or one that does not run.
func (r *Router) Chain(context string, bound []string) (Chain, error) {
	if context == "" {
		if len(bound) == 0 {
			return r.all, nil
		}
		return r.pick(bound)
	}
	r.mu.RLock()
	chain, ok := r.routes[context]
	r.mu.RUnlock()
	if ok {
		return chain, nil
	}
	chain, err := r.pick(strings.FieldsFunc(context, isSeparator))
	if err != nil {
		return nil, fmt.Errorf("policy_context: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.routes) < maxRoutes {
		r.routes[context] = chain
	}
	return chain, nil
}

func isSeparator(c rune) bool { return c == ',' || c == ' ' || c == '\t' }

func (r *Router) pick(words []string) (Chain, error) {
	wanted := make(map[string]bool, len(words))
	for _, w := range words {
		wanted[w] = true
	}
	chain := make(Chain, 0, len(words))
	for _, e := range r.all {
		if name := e.Check.Name(); wanted[name] {
			chain = append(chain, e)
			delete(wanted, name)
		}
	}
	for _, w := range words {
		if wanted[w] {
			return nil, fmt.Errorf("%.40q is none of the checks that run (%s)", w, r.names())
		}
	}
	return chain, nil
}

func (r *Router) names() string {
	names := make([]string, len(r.all))
	for i, e := range r.all {
		names[i] = e.Check.Name()
	}
	return strings.Join(names, ", ")
}
