package mailaddr

import "strings"

// What keeps an address from being completed.
const (
	ErrNoOrigin  Problem = "address has no domain, and what Postfix appends is not known"
	ErrNoSuffix  Problem = "domain has no dot, and what Postfix appends is not known"
	ErrRouting   Problem = "routing in the local part cannot be followed"
	maxRewriting         = 16 // domains that are taken off one after the other
)

// Rewriting is what Postfix does to an envelope address after it has asked the
// policy service and before it queues the mail (trivial-rewrite(8)): the part
// between the address that a client wrote and the one that the recipient sees.
// The zero value changes nothing and refuses bare addresses.
type Rewriting struct {
	PercentHack       bool            // allow_percent_hack: user%domain is user@domain
	SwapBangpath      bool            // swap_bangpath: domain!user is user@domain
	AppendAtMyorigin  bool            // append_at_myorigin: user is user@Myorigin
	AppendDotMydomain bool            // append_dot_mydomain: user@host is user@host.Mydomain
	Myorigin          string          // "" if not known
	Mydomain          string          // "" if not known
	Local             map[string]bool // mydestination, as A-labels: routing in a local part is followed there
}

// Completed is an address as Postfix uses it.
type Completed struct {
	// Queued is what is in the queue and what the recipient sees.
	Queued Address
	// Routed is the address that the local part of Queued leads to, as
	// ceo@victim.example in "ceo@victim.example"@local.example; Queued itself when
	// the local part is only a name. Postfix asks its tables for this one.
	Routed Address
}

// Complete returns the address as Postfix uses it. An error means that this
// cannot be determined; it is a [Problem].
func (r *Rewriting) Complete(a Address) (Completed, error) {
	switch {
	case a.IsNull(), a.IsPlain() && strings.IndexByte(a.Domain, '.') > 0:
		return Completed{a, a}, nil
	case !a.IsValid() && dropRoute(a.Raw) == a.Raw:
		return Completed{}, a.err
	}
	queued, err := r.rewrite(internal(a))
	if err != "" {
		return Completed{}, err
	}
	routed, err := r.route(queued)
	if err != "" {
		return Completed{}, err
	}
	return Completed{queued, routed}, nil
}

// internal returns the internal form of an address with its domain as written: a
// final dot counts here.
func internal(a Address) string {
	switch {
	case a.IsBare():
		return a.Local
	case !a.IsValid():
		return a.Raw
	}
	raw := strings.TrimSuffix(a.Raw, ">")
	return a.Local + raw[strings.LastIndexByte(raw, '@'):]
}

// rewrite does one pass over an address in its internal form.
func (r *Rewriting) rewrite(text string) (Address, Problem) {
	text = dropRoute(text)
	if strings.LastIndexByte(text, '@') < 0 {
		var err Problem
		if text, err = r.addDomain(text); err != "" {
			return Address{}, err
		}
	}
	domain := text[strings.LastIndexByte(text, '@')+1:]
	switch {
	case domain == "" || strings.HasPrefix(domain, "["):
	case strings.IndexByte(domain, '.') < 0 && r.AppendDotMydomain:
		if r.Mydomain == "" || !isASCII(domain) {
			return Address{}, ErrNoSuffix
		}
		text += "." + r.Mydomain
	case strings.HasSuffix(domain, ".") && !strings.HasSuffix(domain, "..") && domain != ".":
		text = text[:len(text)-1]
	}
	a := ParseInternal(text)
	switch {
	case a.err != "":
		return a, a.err
	case strings.HasPrefix(text, "@"):
		return a, ErrRouting // a route behind a route
	}
	return a, ""
}

// addDomain gives an address without "@" its domain. Operators count outside of
// quotes only, and a local part that is no dot-string is quoted.
func (r *Rewriting) addDomain(local string) (string, Problem) {
	if isDotString(local) {
		if at := strings.IndexByte(local, '!'); r.SwapBangpath && at >= 0 {
			return local[at+1:] + "@" + local[:at], ""
		}
		if at := strings.LastIndexByte(local, '%'); r.PercentHack && at >= 0 {
			return local[:at] + "@" + local[at+1:], ""
		}
	}
	if !r.AppendAtMyorigin || r.Myorigin == "" {
		return "", ErrNoOrigin
	}
	return local + "@" + r.Myorigin, ""
}

// route follows the routing in the local parts of local domains, quoted or not.
// An "@" in a local part is followed in any domain: the next host may do so.
func (r *Rewriting) route(a Address) (Address, Problem) {
	for range maxRewriting {
		quotedAt := strings.LastIndexByte(a.Local, '@')
		operator := r.operator(a.Local)
		switch {
		case quotedAt < 0 && operator < 0:
			return a, ""
		case a.IsLiteral():
			return a, ErrRouting // whose address it is, is not known here
		case quotedAt < 0 && !r.Local[a.Domain] && a.Domain != r.Myorigin:
			return a, ""
		}
		text := a.Local
		if quotedAt < 0 && !isDotString(text) {
			if text[operator] != '%' {
				return a, ErrRouting
			}
			text = text[:operator] + "@" + text[operator+1:]
		}
		var err Problem
		if a, err = r.rewrite(text); err != "" {
			return a, err
		}
	}
	return a, ErrRouting
}

// operator returns the index of the last routing operator of a local part, or -1.
// "%" goes before "!", as it does where Postfix opens quotes.
func (r *Rewriting) operator(local string) int {
	if at := strings.LastIndexByte(local, '%'); r.PercentHack && at >= 0 {
		return at
	}
	if r.SwapBangpath {
		return strings.LastIndexByte(local, '!')
	}
	return -1
}
