// Lists: Postfix separates the elements of a list by commas or white space outside of
// braces. In a list of restrictions some elements take an argument.

package setup

import (
	"strings"

	"github.com/postern-mail/postern/internal/postconf"
)

// restriction is one element of a list of restrictions.
type restriction struct {
	name string // "check_policy_service", "permit_mynetworks", "$name"
	arg  string // "" when it takes none
	safe bool   // after warn_if_reject: it decides nothing
}

func (r restriction) String() string {
	text := r.name
	if r.arg != "" {
		text += " " + r.arg
	}
	if r.safe {
		return "warn_if_reject " + text
	}
	return text
}

// is reports whether r is one of the names and decides something.
func (r restriction) is(names ...string) bool {
	for _, name := range names {
		if !r.safe && strings.EqualFold(r.name, name) {
			return true
		}
	}
	return false
}

// takesArgument reports whether the element that follows one of that name is its
// argument.
func takesArgument(name string) bool {
	name = strings.ToLower(name)
	switch name {
	case "check_policy_service", "reject_rbl_client", "permit_dnswl_client", "permit_rhswl_client", "sleep":
		return true
	}
	return strings.HasPrefix(name, "reject_rhsbl_") || strings.HasPrefix(name, "check_") && strings.HasSuffix(name, "_access")
}

// restrictions parses a list of restrictions.
func restrictions(list string) []restriction {
	var all []restriction
	safe := false
	words := postconf.Split(list)
	for i := 0; i < len(words); i++ {
		if strings.EqualFold(words[i], "warn_if_reject") {
			safe = true
			continue
		}
		r := restriction{name: words[i], safe: safe}
		if takesArgument(r.name) && i+1 < len(words) {
			i++
			r.arg = words[i]
		}
		all, safe = append(all, r), false
	}
	return all
}

// join formats a list of restrictions.
func join(list []restriction) string {
	texts := make([]string, len(list))
	for i, r := range list {
		texts[i] = r.String()
	}
	return strings.Join(texts, ", ")
}

// endpointOf returns the socket that an element names. If the element is in braces ("{
// inet:host:port, default_action=accept }"), this is its first part. The spelling is
// normalized: unix:path for local:path, and 127.0.0.1 for localhost.
func endpointOf(element string) string {
	if inside, ok := strings.CutPrefix(element, "{"); ok {
		element = strings.TrimSuffix(inside, "}")
	}
	parts := postconf.Split(element)
	if len(parts) == 0 {
		return ""
	}
	return normal(parts[0])
}

// normal normalizes the spelling of a socket.
func normal(endpoint string) string {
	kind, rest, ok := strings.Cut(endpoint, ":")
	if !ok {
		return endpoint
	}
	switch strings.ToLower(kind) {
	case "local", "unix":
		return "unix:" + rest
	case "inet", "inet6":
		if port, host, swapped := strings.Cut(rest, "@"); swapped { // libmilter's spelling
			rest = host + ":" + port
		}
		for _, name := range []string{"localhost:", "[::1]:", "::1:"} {
			if after, ok := strings.CutPrefix(strings.ToLower(rest), name); ok {
				rest = "127.0.0.1:" + after
			}
		}
		return "inet:" + rest
	}
	return endpoint
}
