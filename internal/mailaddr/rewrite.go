package mailaddr

import "strings"

// The reasons why an address cannot be completed.
const (
	ErrNoOrigin  Problem = "address has no domain, and what Postfix appends is not known"
	ErrNoSuffix  Problem = "domain has no dot, and what Postfix appends is not known"
	ErrRouting   Problem = "routing in the local part cannot be followed"
	maxRewriting         = 16 // domains that are removed one after the other
)

// Rewriting is how Postfix changes an envelope address between the question to
// the policy service and the queue (trivial-rewrite(8)). It turns the address
// that the client wrote into the address that the recipient sees. The zero
// value changes nothing and refuses bare addresses.
type Rewriting struct {
	PercentHack       bool            // allow_percent_hack: user%domain is user@domain
	SwapBangpath      bool            // swap_bangpath: domain!user is user@domain
	AppendAtMyorigin  bool            // append_at_myorigin: user is user@Myorigin
	AppendDotMydomain bool            // append_dot_mydomain: user@host is user@host.Mydomain
	Myorigin          string          // "" if not known
	Mydomain          string          // "" if not known
	Local             map[string]bool // mydestination, as A-labels: routing in the local part of these domains is followed
}

// Completed is an address as Postfix uses it.
type Completed struct {
	// Queued is the address in the queue, which the recipient sees.
	Queued Address
	// Routed is the address that the local part of Queued leads to, such as
	// ceo@victim.example in "ceo@victim.example"@local.example. It is Queued
	// itself if the local part is only a name. Postfix looks up Routed in its
	// tables.
	Routed Address
}

// Complete returns the address as Postfix uses it. The error is a [Problem]; it
// means that this address is not known.
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

// internal returns the internal form of an address, with the domain as written.
// A final dot matters here.
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
		return a, ErrRouting // a route after a route
	}
	return a, ""
}

// addDomain adds the domain to an address without "@". Operators count only
// outside of quotes, and a local part that is not a dot-string is quoted.
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

// route follows the routing in local parts of local domains, quoted or not. It
// follows an "@" in the local part of any domain, because the next host may do
// so.
func (r *Rewriting) route(a Address) (Address, Problem) {
	for range maxRewriting {
		quotedAt := strings.LastIndexByte(a.Local, '@')
		operator := r.operator(a.Local)
		switch {
		case quotedAt < 0 && operator < 0:
			return a, ""
		case a.IsLiteral():
			return a, ErrRouting // the owner of this address is not known here
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

// operator returns the index of the last routing operator of a local part, or
// -1. "%" has priority over "!", as where Postfix removes quotes.
func (r *Rewriting) operator(local string) int {
	if at := strings.LastIndexByte(local, '%'); r.PercentHack && at >= 0 {
		return at
	}
	if r.SwapBangpath {
		return strings.LastIndexByte(local, '!')
	}
	return -1
}
