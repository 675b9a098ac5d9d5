package limit

import (
	"context"
	"strings"
	"sync"
)

// Tables are where overrides are looked up, in this order.
type Tables struct {
	Tables      []Table
	LoginDomain string
	Duration    DurationParser
	// Warn hears once of each text that cannot be used; it may be nil.
	Warn func(key, text string, err error)

	mu     sync.Mutex
	parsed map[string]Override // by text
	warned map[string]bool     // by key
}

// maxParsed bounds what is remembered of texts and of warnings.
const maxParsed = 1000

// Find returns the override of a login in its one form: that of the login itself, with
// and without its domain when logins need none, then that of @domain. Nil means none.
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

// parse reads a text, or remembers what it was read as.
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
