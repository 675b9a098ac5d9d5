package dnsbl

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Class is what follows from one answer.
type Class uint8

// The classes. Without a filter, only listed and allowed answers count.
const (
	ClassOther   Class = iota // within 127.0.0.0/8, of no meaning that is known
	ClassListed               // the list's objection
	ClassAllowed              // the list's recommendation
	ClassAbused               // a legitimate domain that is abused: a reason for doubt, not to reject
	ClassFresh                // a domain first seen within the last day
	ClassRefused              // no answer about the subject: the zone does not serve us
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
	Name    string  // "XBL", "phish"; the address itself when no table knows it
	Hours   int     // ClassFresh: since the domain was first seen, at most 24
	Problem Problem // ClassRefused
}

// Problem is why a zone cannot be used: a stable token.
type Problem string

// The problems. A zone without one is Healthy.
const (
	Healthy         Problem = ""
	Typo            Problem = "zone_name_wrong"    // 127.255.255.252
	SharedResolver  Problem = "public_resolver"    // 127.255.255.254
	TooManyQueries  Problem = "too_many_queries"   // 127.255.255.255, and what others answer for it
	Refused         Problem = "refused"            // another code of 127.255.255.0/24
	AddressAsked    Problem = "address_asked"      // 127.0.1.255, 127.0.2.255
	OutsideLoopback Problem = "answer_outside_127" // somebody rewrites answers, or the domain was sold
	ListsEverything Problem = "lists_everything"
	ListsNothing    Problem = "lists_nothing"
	NoAnswer        Problem = "no_answer"   // time-outs
	Failing         Problem = "dns_failure" // SERVFAIL and the like
)

// Problems lists every problem, for tables and metrics.
func Problems() []Problem {
	return []Problem{Typo, SharedResolver, TooManyQueries, Refused, AddressAsked, OutsideLoopback,
		ListsEverything, ListsNothing, NoAnswer, Failing}
}

var mends = map[Problem]string{
	Typo:            "the list does not know this zone name: correct its spelling",
	SharedResolver:  "the list does not serve public or shared resolvers: run a resolver on this machine (unbound) and name it with --resolver, or use a Spamhaus DQS key (--dqs-key-file)",
	TooManyQueries:  "the list's limit of free queries is exceeded: subscribe to the list, use a Spamhaus DQS key (--dqs-key-file), or take the list out",
	Refused:         "the list refuses this resolver: see the list's web site for the code, or take the list out",
	AddressAsked:    "the zone holds domains and took a question for an address: check that the zone stands under --dbl and not under --dnsbl",
	OutsideLoopback: "answers are not those of a list: the resolver rewrites absent names, or the list has ended and its domain was sold; ask another resolver or take the list out",
	ListsEverything: "the zone lists what no list may hold: it has been shut down, or refuses us so: take the list out; if it is well and does not follow RFC 5782, name its own test entries with --dnsbl-selftest",
	ListsNothing:    "no test entry is listed (127.0.0.2 or test, RFC 5782 section 5): the name is wrong, the list has ended, or it does not serve this resolver; if it is well and does not follow RFC 5782, name its own test entries with --dnsbl-selftest",
	NoAnswer:        "the zone's servers do not answer: check the resolver and the firewall",
	Failing:         "the resolver cannot ask the zone: check the resolver; with a DQS key, that the key is active and includes this list",
}

// Mend says what an administrator can do about the problem.
func (p Problem) Mend() string { return mends[p] }

// row gives codes 127.0.x.y a meaning: x within third, y within fourth.
type row struct {
	third, fourth [2]byte
	class         Class
	name          string
}

// table is what is known of a list and the zones that belong to it.
type table struct {
	zones  []string // public names
	rows   []row
	other  Class    // of codes that no row names
	tests  []string // its own test entries, see SelfTest; nil: those of RFC 5782
	lookup string   // where people look a subject up; {} stands for it
}

const spamhausLookup = "https://check.spamhaus.org/results/?query={}"

// tables are the lists whose codes are typed. The codes of the Spamhaus zones
// are at https://docs.spamhaus.com, those of the others on their web sites.
func tables() []table {
	return []table{{
		zones: []string{"zen.spamhaus.org", "sbl.spamhaus.org", "xbl.spamhaus.org", "sbl-xbl.spamhaus.org", "pbl.spamhaus.org"},
		rows: []row{
			{[2]byte{0, 0}, [2]byte{2, 2}, ClassListed, "SBL"},
			{[2]byte{0, 0}, [2]byte{3, 3}, ClassListed, "CSS"},
			{[2]byte{0, 0}, [2]byte{4, 7}, ClassListed, "XBL"}, // .5 to .7 are reserved for it
			{[2]byte{0, 0}, [2]byte{9, 9}, ClassListed, "DROP"},
			{[2]byte{0, 0}, [2]byte{10, 11}, ClassListed, "PBL"}, // entered by the provider, by Spamhaus
			{[2]byte{0, 0}, [2]byte{20, 20}, ClassOther, "AuthBL"},
			{[2]byte{0, 0}, [2]byte{30, 30}, ClassListed, "BCL"},
		},
		lookup: spamhausLookup,
	}, {
		zones: []string{authZone},
		rows:  []row{{[2]byte{0, 0}, [2]byte{20, 20}, ClassListed, "AuthBL"}},
	}, {
		zones: []string{"dbl.spamhaus.org"},
		rows: []row{
			{[2]byte{1, 1}, [2]byte{2, 2}, ClassListed, "DBL low reputation"},
			{[2]byte{1, 1}, [2]byte{4, 4}, ClassListed, "DBL phish"},
			{[2]byte{1, 1}, [2]byte{5, 5}, ClassListed, "DBL malware"},
			{[2]byte{1, 1}, [2]byte{6, 6}, ClassListed, "DBL botnet C&C"},
			{[2]byte{1, 1}, [2]byte{102, 102}, ClassAbused, "DBL abused legit"},
			{[2]byte{1, 1}, [2]byte{103, 103}, ClassAbused, "DBL abused redirector"},
			{[2]byte{1, 1}, [2]byte{104, 104}, ClassAbused, "DBL abused phish"},
			{[2]byte{1, 1}, [2]byte{105, 105}, ClassAbused, "DBL abused malware"},
			{[2]byte{1, 1}, [2]byte{106, 106}, ClassAbused, "DBL abused botnet C&C"},
		},
		tests:  []string{"dbltest.com", "test"},
		lookup: spamhausLookup,
	}, {
		zones:  []string{freshZone},
		rows:   []row{{[2]byte{2, 2}, [2]byte{2, 24}, ClassFresh, "ZRD"}},
		tests:  []string{"dbltest.com", "test"},
		lookup: spamhausLookup,
	}, {
		zones: []string{"list.dnswl.org"},
		rows: []row{
			{[2]byte{0, 255}, [2]byte{255, 255}, ClassRefused, "over quota"},
			{[2]byte{2, 20}, [2]byte{0, 0}, ClassAllowed, "DNSWL none"},
			{[2]byte{2, 20}, [2]byte{1, 1}, ClassAllowed, "DNSWL low"},
			{[2]byte{2, 20}, [2]byte{2, 2}, ClassAllowed, "DNSWL medium"},
			{[2]byte{2, 20}, [2]byte{3, 3}, ClassAllowed, "DNSWL high"},
		},
		lookup: "https://www.dnswl.org/s/?s={}",
	}, {
		zones: []string{"multi.uribl.com", "black.uribl.com"},
		rows:  bitRows(),
		tests: []string{"test.uribl.com", "127.0.0.2"},
	}, {
		zones: []string{"multi.surbl.org"},
		rows:  bitRows(),
		tests: []string{"surbl-org-permanent-test-point.com", "test.surbl.org", "127.0.0.2"},
	}, {
		// What it calls white counts where a filter names it. It lists 127.0.0.1 so.
		zones: []string{"hostkarma.junkemailfilter.com"},
		rows: []row{
			{[2]byte{0, 0}, [2]byte{1, 1}, ClassOther, "hostkarma white"},
			{[2]byte{0, 0}, [2]byte{2, 2}, ClassListed, "hostkarma black"},
			{[2]byte{0, 0}, [2]byte{3, 3}, ClassOther, "hostkarma yellow"},
			{[2]byte{0, 0}, [2]byte{4, 4}, ClassListed, "hostkarma brown"},
			{[2]byte{0, 0}, [2]byte{5, 5}, ClassOther, "hostkarma no black"},
		},
		tests: []string{"127.0.0.2"},
	}, {
		// Any other list: a code that it does not explain is a listing. 127.0.0.1
		// is none (RFC 5782 section 2.1), unless a filter names it.
		rows:  []row{{[2]byte{0, 0}, [2]byte{0, 1}, ClassOther, ""}},
		other: ClassListed,
	}}
}

// bitRows are the codes of URIBL and SURBL: bit 1 is the refusal of both, the
// others say which of their lists.
func bitRows() []row {
	return []row{
		{[2]byte{0, 0}, [2]byte{1, 1}, ClassRefused, "over quota"},
		{[2]byte{0, 0}, [2]byte{2, 254}, ClassListed, ""},
	}
}

// tableOf finds the table of a zone by its public name.
func tableOf(zone string) table {
	all := tables()
	for _, t := range all {
		if slices.Contains(t.zones, zone) {
			return t
		}
	}
	return all[len(all)-1]
}

// classify gives one answer its meaning. What cannot be a listing in any zone
// comes first.
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

// look enters what the table's first fitting row says.
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

// names joins the names of codes, each once.
func names(codes []Code) string {
	var out []string
	for _, c := range codes {
		if !slices.Contains(out, c.Name) {
			out = append(out, c.Name)
		}
	}
	return strings.Join(out, ", ")
}
