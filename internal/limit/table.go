package limit

import (
	"context"
	"strings"
	"sync"
)

// Tables are the tables in which overrides are looked up, in order.
type Tables struct {
	Tables      []Table
	LoginDomain string
	Duration    DurationParser
	// Warn is called once for each text that cannot be used; it may be nil.
	Warn func(key, text string, err error)

	mu     sync.Mutex
	parsed map[string]Override // by text
	warned map[string]bool     // by key
}

// maxParsed bounds the parsed texts and the warnings that are remembered.
const maxParsed = 1000

// Find returns the override of a normalized login, or nil. It looks for the login, also
// without its domain if that is the default domain, and then for @domain.
func (t *Tables) Find(ctx context.Context, login string) (*Override, error) {
	keys := [3]string{login}
	n := 1
	user, domain, ok := strings.Cut(login, "@")
	if ok && domain == t.LoginDomain {
		keys[n], n = user, n+1
	}
	if ok {
		keys[n], n = "@"+domainOf(login), n+1
	}
	for _, key := range keys[:n] {
		for _, table := range t.Tables {
			values, err := table.Lookup(ctx, key)
			if err != nil {
				return nil, err
			}
			if len(values) > 0 {
				o := t.parse(key, strings.Join(values, " "))
				o.Table, o.table = table.Name(), table
				return &o, nil
			}
		}
	}
	return nil, nil
}

// parse parses a text, or returns the remembered result.
func (t *Tables) parse(key, text string) Override {
	t.mu.Lock()
	defer t.mu.Unlock()
	o, ok := t.parsed[text]
	if !ok {
		var err error
		o, err = ParseOverride(text, t.Duration)
		o.Err = err
		if t.parsed == nil {
			t.parsed, t.warned = make(map[string]Override), make(map[string]bool)
		}
		if len(t.parsed) < maxParsed {
			t.parsed[text] = o
		}
	}
	if o.Err != nil && !t.warned[key] && len(t.warned) < maxParsed {
		t.warned[key] = true
		if t.Warn != nil {
			t.Warn(key, text, o.Err)
		}
	}
	o.Found = key
	return o
}
