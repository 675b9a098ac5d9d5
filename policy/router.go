package policy

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/postern-mail/postern/internal/record"
)

// maxRoutes bounds the chains that a Router remembers. A site has a handful of
// hooks; what comes beyond is put together anew for each request.
const maxRoutes = 64

// RouterOptions say what a Router does about words that are no check that runs.
type RouterOptions struct {
	// Closed are the checks that must not be left out by mistake: a hook that
	// names one which does not run, or a word that looks like one, is answered
	// with a temporary failure.
	Closed []string
	// Mode is that of this failure.
	Mode Mode
	// Unknown is told about each such hook, once as long as it is remembered;
	// it may be nil.
	Unknown func(error)
}

// Router picks the checks for a hook out of all that run. It is safe for
// concurrent use.
type Router struct {
	all Chain
	o   RouterOptions

	mu     sync.RWMutex
	routes map[string]Chain
}

// NewRouter takes all checks that run, in their order.
func NewRouter(all Chain, o RouterOptions) *Router {
	return &Router{all: all, o: o, routes: make(map[string]Chain)}
}

// Chain returns the checks that a policy_context names, in the order in which the
// router has them. Case does not matter, and whatever cannot be part of a name
// separates two. When context is empty, the words that the listener is bound to
// replace it; when there are none either, all checks are meant.
//
// A word that is no check that runs does not keep the others from being asked:
// the chain then ends in an entry that could not tell.
func (r *Router) Chain(context string, bound []string) Chain {
	if context == "" {
		if len(bound) == 0 {
			return r.all
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

// pick returns the chain of some words, and what is wrong with them.
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
		return chain, nil
	}
	err := fmt.Errorf("%.200s is none of the checks that run (%s)", strings.Join(unknown, ", "), r.names())
	entry := Entry{Check: misnamed{err}, ErrorReason: record.UnknownHook}
	if closed {
		entry.OnError, entry.Mode = ErrorDefer, r.o.Mode
	}
	return append(chain, entry), err
}

// closes reports whether a word that is no check that runs may replace one that
// must not be left out.
func (r *Router) closes(word string) bool {
	for _, name := range r.o.Closed {
		if resembles(word, name) {
			return true
		}
	}
	return false
}

// resembles reports whether a word may be a name with typing errors: it begins
// like it, or has all but two of its letters, in whatever order.
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

// contextName is the check of a decision that rests on a wrong policy_context.
const contextName = "policy_context"

// misnamed is the entry of a chain for words that are no check that runs.
type misnamed struct{ err error }

func (misnamed) Name() string { return contextName }

func (m misnamed) Check(context.Context, *Request, Signals) (Verdict, error) {
	return Verdict{}, m.err
}
