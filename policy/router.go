package policy

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/postern-mail/postern/internal/record"
)

// maxRoutes is how many chains a Router remembers. A site has a handful of
// hooks. Further chains are made again for each request.
const maxRoutes = 64

// RouterOptions control what a Router does about words that name no running
// check.
type RouterOptions struct {
	// Closed are the checks that must not be left out by mistake. A hook is
	// answered with a temporary failure if it names one of them that does not
	// run, or has an unknown word that looks like one.
	Closed []string
	// Mode is the mode of this failure.
	Mode Mode
	// Always are the checks that every hook asks, after its own, unless it names a check of
	// the same name. They leave a step only if they apply.
	Always Chain
	// Unknown is called for each hook with unknown words: once, as long as the
	// Router remembers the hook. It may be nil.
	Unknown func(error)
}

// Router picks the checks of a hook. It is safe for concurrent use.
type Router struct {
	all   Chain
	whole Chain // all, and what every hook asks
	o     RouterOptions

	mu     sync.RWMutex
	routes map[string]Chain
}

// NewRouter returns a Router of all checks that run, in their order.
func NewRouter(all Chain, o RouterOptions) *Router {
	r := &Router{all: all, o: o, routes: make(map[string]Chain)}
	r.whole = append(slices.Clone(all), r.always(all)...)
	return r
}

// Chain returns the checks that a policy_context names, in the router's order.
// Case does not matter. Every character that no name can have separates two
// names. If context is empty, the words that the listener is bound to replace
// it. If there are none either, Chain returns all checks.
//
// An unknown word does not keep the other checks from being asked. It adds an
// entry at the end of the chain that always fails.
func (r *Router) Chain(context string, bound []string) Chain {
	if context == "" {
		if len(bound) == 0 {
			return r.whole
		}
		context = bound[0]
		if len(bound) > 1 {
			context = strings.Join(bound, ",")
		}
	}
	r.mu.RLock()
	chain, ok := r.routes[context]
	r.mu.RUnlock()
	if ok {
		return chain
	}
	chain, unknown := r.pick(contextWords(context))
	r.mu.Lock()
	remembered := len(r.routes) < maxRoutes
	if remembered {
		r.routes[context] = chain
	}
	r.mu.Unlock()
	if unknown != nil && remembered && r.o.Unknown != nil {
		r.o.Unknown(fmt.Errorf("%s: %w", contextName, unknown))
	}
	return chain
}

func isSeparator(c rune) bool {
	return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_'
}

// pick returns the chain for words, and an error that names the unknown ones.
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
	always := r.always(chain)
	var unknown []string
	closed := false
	for _, w := range words {
		if wanted[w] {
			delete(wanted, w)
			unknown = append(unknown, fmt.Sprintf("%.40q", w))
			closed = closed || r.closes(w)
		}
	}
	if len(unknown) == 0 {
		return append(chain, always...), nil
	}
	err := fmt.Errorf("%.200s is none of the checks that run (%s)", strings.Join(unknown, ", "), r.names())
	entry := Entry{Check: misnamed{err}, ErrorReason: record.UnknownHook}
	if closed {
		entry.OnError, entry.Mode = ErrorDefer, r.o.Mode
	}
	return append(append(chain, entry), always...), err
}

// always returns the entries of Always that a chain does not have.
func (r *Router) always(chain Chain) Chain {
	var missing Chain
	for _, e := range r.o.Always {
		if !slices.ContainsFunc(chain, func(own Entry) bool { return own.Check.Name() == e.Check.Name() }) {
			e.quiet = true
			missing = append(missing, e)
		}
	}
	return missing
}

// closes reports whether an unknown word may be meant as a check in Closed.
func (r *Router) closes(word string) bool {
	for _, name := range r.o.Closed {
		if resembles(word, name) {
			return true
		}
	}
	return false
}

// resembles reports whether word may be name with typing errors. It may if both
// begin alike, or if it has all but two of the letters of name, in any order.
func resembles(word, name string) bool {
	const start, missing = 3, 2
	if len(name) > start && strings.HasPrefix(word, name[:start]) {
		return true
	}
	left := []byte(word)
	shared := 0
	for i := range len(name) {
		if at := strings.IndexByte(string(left), name[i]); at >= 0 {
			left[at] = 0
			shared++
		}
	}
	return shared >= len(name)-missing
}

func (r *Router) names() string {
	names := make([]string, len(r.all))
	for i, e := range r.all {
		names[i] = e.Check.Name()
	}
	return strings.Join(names, ", ")
}

// contextName is the name of the check that a wrong policy_context is recorded
// under.
const contextName = "policy_context"

// misnamed is a check that always fails. It takes the place of unknown words.
type misnamed struct{ err error }

func (misnamed) Name() string { return contextName }

func (m misnamed) Check(context.Context, *Request, Signals) (Verdict, error) {
	return Verdict{}, m.err
}
