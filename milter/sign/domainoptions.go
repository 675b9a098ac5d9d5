package sign

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-mail/postern/internal/author"
)

// domainOptions are the options of one domain that differ from the general ones.
type domainOptions struct {
	off     bool          // its mail is not signed
	expire  time.Duration // as in Options; 0 for the general value
	headers *Headers      // nil for the general list
}

// MaxExpire is the longest life of a signature.
const MaxExpire = 365 * 24 * time.Hour

// options returns the entry of the options table for an author's domain. After an
// error it is empty, and the general options apply.
func (t *Tables) options(ctx context.Context, a author.Mailbox) (domainOptions, error) {
	if t == nil || t.Options == nil {
		return domainOptions{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	name, values, err := t.Options.first(ctx, domainPatterns(a.Domain, false))
	if err != nil || len(values) == 0 {
		return domainOptions{}, err
	}
	if len(slices.Compact(slices.Sorted(slices.Values(values)))) > 1 {
		return domainOptions{}, fmt.Errorf("%s: ambiguous: %q has several entries; keep one", t.Options.Name, name)
	}
	o, err := t.parsed.parse(values[0])
	if err != nil {
		return domainOptions{}, fmt.Errorf("%s: %q: %w", t.Options.Name, name, err)
	}
	return o, nil
}

// parseOptions reads a value of the options table: words of the form name=value.
func parseOptions(text string) (domainOptions, error) {
	var o domainOptions
	seen := make(map[string]bool)
	for _, word := range strings.Fields(text) {
		name, value, ok := strings.Cut(word, "=")
		if !ok || seen[name] {
			return domainOptions{}, fmt.Errorf("%.40q: write each of sign=, expire= and headers= once, with its value behind it", word)
		}
		seen[name] = true
		if err := o.set(name, value); err != nil {
			return domainOptions{}, fmt.Errorf("%s: %w", name, err)
		}
	}
	return o, nil
}

func (o *domainOptions) set(name, value string) error {
	switch name {
	case "sign":
		if value != "yes" && value != "no" {
			return errors.New("write yes or no")
		}
		o.off = value == "no"
		return nil
	case "expire":
		return o.setExpire(value)
	case "headers":
		headers, err := ParseHeaders(strings.Split(value, ":"))
		o.headers = &headers
		return err
	}
	return errors.New("no option has this name; there are sign, expire and headers")
}

func (o *domainOptions) setExpire(text string) error {
	expire, err := parseLife(text)
	switch {
	case err != nil || expire < 0 || expire > MaxExpire:
		return fmt.Errorf("%.40q is not from 0 to 365d; write for example 14d, or 0 for ever", text)
	case expire == 0:
		expire = -1
	}
	o.expire = expire
	return nil
}

// parseLife reads a duration, which may be in days.
func parseLife(text string) (time.Duration, error) {
	days, ok := strings.CutSuffix(text, "d")
	if !ok {
		return time.ParseDuration(text)
	}
	hours, err := time.ParseDuration(days + "h")
	if hours > MaxExpire {
		return 0, errors.New("too long")
	}
	return 24 * hours, err
}

// applied returns the options of the signer, with those of a domain in place of the
// general ones.
func (o domainOptions) applied(base Options) Options {
	if o.expire != 0 {
		base.Expire = o.expire
	}
	if o.headers != nil {
		base.Headers = *o.headers
	}
	return base
}

// maxParsed bounds the parsed values of the options table that are kept.
const maxParsed = 1024

// optionCache keeps parsed values, because parsing a list of header fields takes
// longer than a lookup in a table.
type optionCache struct {
	mu     sync.Mutex
	values map[string]domainOptions
}

func (c *optionCache) parse(text string) (domainOptions, error) {
	c.mu.Lock()
	o, ok := c.values[text]
	c.mu.Unlock()
	if ok {
		return o, nil
	}
	o, err := parseOptions(text)
	if err != nil {
		return o, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.values == nil || len(c.values) >= maxParsed {
		c.values = make(map[string]domainOptions)
	}
	c.values[text] = o
	return o, nil
}
