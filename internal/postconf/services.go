// The services of master.cf: who reaches them, and whom they take mail from.

package postconf

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// IsYes reports whether a parameter that is yes or no is yes. Postfix ignores the case.
func IsYes(value string) bool { return strings.EqualFold(strings.TrimSpace(value), "yes") }

// ServiceParams has postconf expand all parameters with the options of a service: a
// condition in main.cf may ask for one of them. args name the configuration. The warnings
// are left out, because they are those of master.cf itself.
func ServiceParams(ctx context.Context, args []string, options map[string]string) (map[string]string, error) {
	args = append(slices.Clone(args), "-x")
	for name, value := range options {
		args = append(args, "-o", name+"="+value)
	}
	out, _, err := Run(ctx, "postconf", args...)
	return Pairs(out), err
}

// IsSubmission reports whether the name of a service is one for users.
func IsSubmission(name string) bool {
	return slices.Contains([]string{"submission", "submissions", "smtps", "587", "465"}, name[strings.LastIndexByte(name, ':')+1:])
}

// IsLoopback reports whether a host, as services and inet_interfaces spell it, is reached
// by programs of this machine only.
func IsLoopback(host string) bool {
	host = strings.Trim(host, "[]")
	addr, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && addr.Unmap().IsLoopback()
}

// OnlyLoopback reports whether programs of this machine alone reach an inet service of
// master.cf: by the host in its name, or else because inet_interfaces has no other
// address.
func OnlyLoopback(service, interfaces string) bool {
	if host, _, err := net.SplitHostPort(service); err == nil && host != "" {
		return IsLoopback(host)
	}
	hosts := Split(interfaces)
	return len(hosts) > 0 && !slices.ContainsFunc(hosts, func(host string) bool {
		return !strings.EqualFold(host, "loopback-only") && !IsLoopback(host)
	})
}

// IsDisabled reports whether master_service_disable takes a service away. Its patterns
// are NAME/TYPE or TYPE, the first that matches counts, and ! turns it round. See
// match_service(3) of Postfix.
func IsDisabled(patterns, name, kind string) bool {
	for _, pattern := range Split(patterns) {
		rest := strings.TrimLeft(pattern, "!")
		if at := strings.LastIndexByte(rest, '.'); at >= 0 && !strings.Contains(rest, "/") {
			rest = rest[:at] + "/" + rest[at+1:] // an older spelling
		}
		if strings.EqualFold(rest, kind) || strings.EqualFold(rest, name+"/"+kind) {
			return (len(pattern)-len(strings.TrimLeft(pattern, "!")))%2 == 0
		}
	}
	return false
}

// Speaks reports whether Postfix connects to an IP address: not if inet_protocols leaves
// out its family. A host that is a name is not judged.
func Speaks(protocols, host string) bool {
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err != nil {
		return true
	}
	family := "ipv4"
	if addr.Is6() && !addr.Is4In6() {
		family = "ipv6"
	}
	words := Split(strings.ToLower(protocols))
	return len(words) == 0 || slices.Contains(words, "all") || slices.Contains(words, family)
}

// ownPermits are the restrictions that permit the clients of the site itself.
var ownPermits = []string{"permit_mynetworks", "permit_sasl_authenticated", "permit_tls_clientcerts", "permit_tls_all_clientcerts"}

// IsOwnPermit reports whether a restriction permits only clients of the site itself.
func IsOwnPermit(name string) bool { return slices.Contains(ownPermits, strings.ToLower(name)) }

// LoginLists are the lists by which a service for users refuses everyone else.
func LoginLists() []string {
	return []string{"smtpd_client_restrictions", "smtpd_relay_restrictions", "smtpd_recipient_restrictions"}
}

// restrictionClasses is the parameter that names the restriction classes.
const restrictionClasses = "smtpd_restriction_classes"

// Inline returns a list of restrictions with those of restriction classes in place of
// the classes' names. value returns the value of a parameter. A class that contains itself
// stays a name there.
func Inline(list string, value func(name string) string) string {
	classes := Split(value(restrictionClasses))
	if len(classes) == 0 {
		return list
	}
	return strings.Join(inline(nil, list, classes, value), ", ")
}

// maxInlined bounds the words of a list: classes can name each other in many ways.
const maxInlined = 1000

// inline appends the elements of a list to words. classes are those that are not around
// the list.
func inline(words []string, list string, classes []string, value func(name string) string) []string {
	for _, word := range Split(list) {
		if !slices.Contains(classes, word) || len(words) > maxInlined {
			words = append(words, word)
			continue
		}
		others := slices.DeleteFunc(slices.Clone(classes), func(class string) bool { return class == word })
		words = inline(words, value(word), others, value)
	}
	return words
}

// OnlyLogins reports whether a list of restrictions refuses all clients that have not
// logged in, apart from the site's own.
func OnlyLogins(list string) bool {
	return OnlyOwn(list) && slices.Contains(Split(strings.ToLower(list)), "permit_sasl_authenticated")
}

// OnlyOwn reports whether a list of restrictions refuses all clients that are not the
// site's own.
func OnlyOwn(list string) bool {
	words := Split(strings.ToLower(list))
	last := len(words) - 1
	return last > 0 && words[last] == "reject" &&
		!slices.ContainsFunc(words, func(word string) bool {
			return strings.HasSuffix(word, "_access") || strings.HasPrefix(word, "permit") && !IsOwnPermit(word)
		})
}
