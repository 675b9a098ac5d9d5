package dnsbl

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Class is the meaning of one answer for the decision.
type Class uint8

// The classes. Without a filter, only listed and allowed answers count.
const (
	ClassOther   Class = iota // within 127.0.0.0/8, without a known meaning
	ClassListed               // the list warns about the subject
	ClassAllowed              // the list recommends the subject
	ClassAbused               // a legitimate domain that is abused: suspicious, but no reason to reject
	ClassFresh                // a domain first seen within the last day
	ClassRefused              // not an answer about the subject: the zone refuses to serve us
)

var classNames = [...]string{
	ClassOther: "other", ClassListed: "listed", ClassAllowed: "allowed",
	ClassAbused: "abused", ClassFresh: "fresh", ClassRefused: "refused",
}

func (c Class) String() string { return classNames[c] }

// Code is one answer of a list with its meaning.
type Code struct {
	Addr    netip.Addr
	Class   Class
	Name    string  // "XBL", "phish"; the address itself when its meaning is not known
	Hours   int     // ClassFresh: since the domain was first seen, at most 24
	Problem Problem // ClassRefused
}

// Problem is the reason why a zone cannot be used: a stable token.
type Problem string

// The problems. A zone without a problem is Healthy.
const (
	Healthy         Problem = ""
	Typo            Problem = "zone_name_wrong"    // 127.255.255.252
	SharedResolver  Problem = "public_resolver"    // 127.255.255.254
	TooManyQueries  Problem = "too_many_queries"   // 127.255.255.255, and the codes of other lists for it
	Refused         Problem = "refused"            // another code of 127.255.255.0/24
	AddressAsked    Problem = "address_asked"      // 127.0.1.255, 127.0.2.255
	OutsideLoopback Problem = "answer_outside_127" // the resolver rewrites answers, or the domain of the list was sold
	ListsEverything Problem = "lists_everything"
	ListsNothing    Problem = "lists_nothing"
	NoAnswer        Problem = "no_answer"   // time-outs
	Failing         Problem = "dns_failure" // SERVFAIL and the like
)

var fixes = map[Problem]string{
	Typo:            "the list does not know this zone name: correct its spelling",
	SharedResolver:  "the list does not serve public or shared resolvers: run a resolver on this machine (unbound) and name it with --resolver, or use a Spamhaus DQS key (--dqs-key-file)",
	TooManyQueries:  "the list's limit of free queries is exceeded: subscribe to the list, use a Spamhaus DQS key (--dqs-key-file), or take the list out",
	Refused:         "the list refuses this resolver: see the list's web site for the code, or take the list out",
	AddressAsked:    "the zone holds domains and took a question for an address: check that the zone is under --dbl and not under --dnsbl",
	OutsideLoopback: "the answers are not those of a list: the resolver rewrites answers for names that do not exist, or the list has ended and its domain was sold: use another resolver or take the list out",
	ListsEverything: "the zone lists what no list may hold: it has been shut down, or refuses us in this way: take the list out; if the list works and does not follow RFC 5782, name its own test entries with --dnsbl-selftest",
	ListsNothing:    "no test entry is listed (127.0.0.2 or test, RFC 5782 section 5): the name is wrong, the list has ended, or it does not serve this resolver; if the list works and does not follow RFC 5782, name its own test entries with --dnsbl-selftest",
	NoAnswer:        "the zone's servers do not answer: check the resolver and the firewall",
	Failing:         "the resolver cannot ask the zone: check the resolver; with a DQS key, that the key is active and includes this list",
}

// Fix returns what an administrator can do about the problem.
func (p Problem) Fix() string { return fixes[p] }

// classify returns the meaning of one answer. It tests first for answers that are a
// listing in no zone.
func (t *table) classify(addr netip.Addr, kind Kind) Code {
	addr = addr.Unmap()
	code := Code{Addr: addr, Name: addr.String()}
	if !addr.Is4() || addr.As4()[0] != 127 {
		return code.refused("answer outside 127.0.0.0/8", OutsideLoopback)
	}
	b := addr.As4()
	if b[1] == 255 && b[2] == 255 {
		return code.refused(generalRefusal(b[3]))
	}
	if kind == KindName && b[1] == 0 && (b[2] == 1 || b[2] == 2) && b[3] == 255 {
		return code.refused("an address was asked", AddressAsked)
	}
	t.look(&code, b)
	return code
}

func (c Code) refused(name string, p Problem) Code {
	c.Class, c.Name, c.Problem = ClassRefused, name, p
	return c
}

func generalRefusal(last byte) (string, Problem) {
	switch last {
	case 252:
		return "zone name wrong", Typo
	case 254:
		return "public resolver refused", SharedResolver
	case 255:
		return "too many queries", TooManyQueries
	}
	return "refused", Refused
}

// look sets the meaning from the first row of the table that matches.
func (t *table) look(code *Code, b [4]byte) {
	code.Class = t.other
	for _, r := range t.rows {
		if b[1] != 0 || !within(r.third, b[2]) || !within(r.fourth, b[3]) {
			continue
		}
		code.Class = r.class
		if r.name != "" {
			code.Name = r.name
		}
		switch r.class {
		case ClassRefused:
			code.Problem = TooManyQueries
		case ClassFresh:
			code.Hours = int(b[3])
			code.Name += " " + strconv.Itoa(code.Hours) + " h"
		}
		return
	}
}

func within(bounds [2]byte, b byte) bool { return bounds[0] <= b && b <= bounds[1] }

// names returns the names of codes, joined, each once.
func names(codes []Code) string {
	var out []string
	for _, c := range codes {
		if !slices.Contains(out, c.Name) {
			out = append(out, c.Name)
		}
	}
	return strings.Join(out, ", ")
}
