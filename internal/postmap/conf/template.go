package conf

import (
	"fmt"
	"strings"
)

// Part is a piece of a template: literal text, or one expansion.
type Part struct {
	Text string
	Verb byte // 's', 'u', 'd', 'S', 'U', 'D' or '1' to '9'; 0 for text
}

// Template is a parsed query, filter or result format.
type Template []Part

// IsDynamic reports whether the template has any expansion.
func (t Template) IsDynamic() bool {
	for _, p := range t {
		if p.Verb != 0 {
			return true
		}
	}
	return false
}

// needs are the parts of key and value that templates ask for.
type needs struct {
	keyDomain, keyUser, valueDomain, valueUser bool

	labels int // of the key's domain
}

// Expander expands the templates of one table file. As in Postfix, a key is not looked
// up if it lacks a part that one of the templates needs. Examples are "%d" in the query
// and a key without a domain, or "%U" in the result format and a key that begins with
// "@".
type Expander struct{ needs needs }

// Query parses a template in which all expansions are parts of the key.
func (e *Expander) Query(text string) (Template, error) {
	return e.parse(text, func(verb byte) {
		switch verb {
		case 'u':
			e.needs.keyUser = true
		case 'd':
			e.needs.keyDomain = true
		}
	})
}

// Result parses a template in which lower-case expansions are parts of the value, and
// the others are parts of the key.
func (e *Expander) Result(text string) (Template, error) {
	return e.parse(text, func(verb byte) {
		switch verb {
		case 'u':
			e.needs.valueUser = true
		case 'd':
			e.needs.valueDomain = true
		}
	})
}

func (e *Expander) parse(text string, lower func(verb byte)) (Template, error) {
	var t Template
	for text != "" {
		literal, rest, found := strings.Cut(text, "%")
		t = t.text(literal)
		if !found {
			break
		}
		if rest == "" {
			return nil, fmt.Errorf("%q at the end of the template; write %%%% for a percent sign", "%")
		}
		switch verb := rest[0]; {
		case verb == '%':
			t = t.text("%")
		case strings.IndexByte("sudSUD123456789", verb) >= 0:
			e.note(verb)
			lower(verb)
			t = append(t, Part{Verb: verb})
		default:
			return nil, fmt.Errorf("no expansion is called %q; write %%%% for a percent sign", "%"+rest[:1])
		}
		text = rest[1:]
	}
	return t, nil
}

func (t Template) text(s string) Template {
	if n := len(t); n > 0 && t[n-1].Verb == 0 {
		t[n-1].Text += s
		return t
	}
	if s == "" {
		return t
	}
	return append(t, Part{Text: s})
}

func (e *Expander) note(verb byte) {
	switch {
	case verb == 'U':
		e.needs.keyUser = true
	case verb == 'D':
		e.needs.keyDomain = true
	case '1' <= verb && verb <= '9':
		e.needs.keyDomain = true
		e.needs.labels = max(e.needs.labels, int(verb-'0'))
	}
}

// Key is a look-up key, split into the parts for the templates.
type Key struct {
	full, user, domain string
	labels             []string
}

// Key splits a key. It returns false if the templates need a part that the key does not
// have; then the key must not be looked up.
func (e *Expander) Key(key string) (Key, bool) {
	k := Key{full: key, user: key}
	at := strings.LastIndexByte(key, '@')
	if at >= 0 {
		k.user, k.domain = key[:at], key[at+1:]
	}
	switch {
	case key == "",
		e.needs.keyDomain && k.domain == "",
		e.needs.keyUser && at == 0:
		return Key{}, false
	}
	if e.needs.labels > 0 {
		k.labels = strings.Split(k.domain, ".")
		return k, e.hasLabels(k.labels)
	}
	return k, true
}

func (e *Expander) hasLabels(labels []string) bool {
	if len(labels) < e.needs.labels {
		return false
	}
	for _, label := range labels[len(labels)-e.needs.labels:] {
		if label == "" {
			return false
		}
	}
	return true
}

// part returns the part of the key for a verb.
func (k Key) part(verb byte) string {
	switch verb {
	case 's', 'S':
		return k.full
	case 'u', 'U':
		return k.user
	case 'd', 'D':
		return k.domain
	}
	return k.labels[len(k.labels)-int(verb-'0')]
}

// Expand fills a query template. quote is applied to every expansion, and may be nil.
func (k Key) Expand(t Template, quote func(string) string) string {
	if len(t) == 1 && t[0].Verb != 0 && quote == nil {
		return k.part(t[0].Verb)
	}
	var b strings.Builder
	for _, p := range t {
		switch {
		case p.Verb == 0:
			b.WriteString(p.Text)
		case quote == nil:
			b.WriteString(k.part(p.Verb))
		default:
			b.WriteString(quote(k.part(p.Verb)))
		}
	}
	return b.String()
}

// Format fills a result template for a value that was found. It returns false if the
// value is empty or lacks a part that the template needs; then the value is skipped.
func (e *Expander) Format(t Template, k Key, value string) (string, bool) {
	if value == "" {
		return "", false
	}
	user, domain := value, ""
	at := strings.LastIndexByte(value, '@')
	if at >= 0 {
		user, domain = value[:at], value[at+1:]
	}
	if e.needs.valueDomain && domain == "" || e.needs.valueUser && at == 0 {
		return "", false
	}
	if len(t) == 1 && t[0].Verb == 's' {
		return value, true
	}
	var b strings.Builder
	for _, p := range t {
		switch p.Verb {
		case 0:
			b.WriteString(p.Text)
		case 's':
			b.WriteString(value)
		case 'u':
			b.WriteString(user)
		case 'd':
			b.WriteString(domain)
		default:
			b.WriteString(k.part(p.Verb))
		}
	}
	return b.String(), b.Len() > 0
}
