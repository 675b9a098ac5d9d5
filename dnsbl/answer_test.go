package dnsbl

import (
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// golden has the meaning and the score of each code of each list, without a filter
// and with a filter for every code.
var golden = []struct {
	zone     string
	kind     Kind
	code     string
	class    Class
	name     string
	problem  Problem
	plain    int // score without filter
	filtered int // score with a filter for all of 127.0.0.0/8
}{
	{"zen.spamhaus.org", KindAddress, "127.0.0.2", ClassListed, "SBL", "", 1, 1},
	{"zen.spamhaus.org", KindAddress, "127.0.0.3", ClassListed, "CSS", "", 1, 1},
	{"zen.spamhaus.org", KindAddress, "127.0.0.4", ClassListed, "XBL", "", 1, 1},
	{"zen.spamhaus.org", KindAddress, "127.0.0.5", ClassListed, "XBL", "", 1, 1},
	{"zen.spamhaus.org", KindAddress, "127.0.0.6", ClassListed, "XBL", "", 1, 1},
	{"zen.spamhaus.org", KindAddress, "127.0.0.7", ClassListed, "XBL", "", 1, 1},
	{"zen.spamhaus.org", KindAddress, "127.0.0.8", ClassOther, "127.0.0.8", "", 0, 1},
	{"zen.spamhaus.org", KindAddress, "127.0.0.9", ClassListed, "DROP", "", 1, 1},
	{"zen.spamhaus.org", KindAddress, "127.0.0.10", ClassListed, "PBL", "", 1, 1},
	{"zen.spamhaus.org", KindAddress, "127.0.0.11", ClassListed, "PBL", "", 1, 1},
	{"zen.spamhaus.org", KindAddress, "127.0.0.20", ClassOther, "AuthBL", "", 0, 1},
	{"zen.spamhaus.org", KindAddress, "127.0.0.30", ClassListed, "BCL", "", 1, 1},
	{"zen.spamhaus.org", KindAddress, "127.0.0.1", ClassOther, "127.0.0.1", "", 0, 1},
	{"zen.spamhaus.org", KindAddress, "127.0.1.2", ClassOther, "127.0.1.2", "", 0, 1},
	{"pbl.spamhaus.org", KindAddress, "127.0.0.10", ClassListed, "PBL", "", 1, 1},

	{"dbl.spamhaus.org", KindName, "127.0.1.2", ClassListed, "DBL low reputation", "", 1, 1},
	{"dbl.spamhaus.org", KindName, "127.0.1.3", ClassOther, "127.0.1.3", "", 0, 1},
	{"dbl.spamhaus.org", KindName, "127.0.1.4", ClassListed, "DBL phish", "", 1, 1},
	{"dbl.spamhaus.org", KindName, "127.0.1.5", ClassListed, "DBL malware", "", 1, 1},
	{"dbl.spamhaus.org", KindName, "127.0.1.6", ClassListed, "DBL botnet C&C", "", 1, 1},
	{"dbl.spamhaus.org", KindName, "127.0.1.102", ClassAbused, "DBL abused legit", "", 0, 1},
	{"dbl.spamhaus.org", KindName, "127.0.1.103", ClassAbused, "DBL abused redirector", "", 0, 1},
	{"dbl.spamhaus.org", KindName, "127.0.1.104", ClassAbused, "DBL abused phish", "", 0, 1},
	{"dbl.spamhaus.org", KindName, "127.0.1.105", ClassAbused, "DBL abused malware", "", 0, 1},
	{"dbl.spamhaus.org", KindName, "127.0.1.106", ClassAbused, "DBL abused botnet C&C", "", 0, 1},
	{"dbl.spamhaus.org", KindName, "127.0.1.255", ClassRefused, "an address was asked", AddressAsked, 0, 0},
	{"dbl.spamhaus.org", KindName, "127.0.2.255", ClassRefused, "an address was asked", AddressAsked, 0, 0},

	{"zrd.dq.spamhaus.net", KindName, "127.0.2.2", ClassFresh, "ZRD 2 h", "", 0, 1},
	{"zrd.dq.spamhaus.net", KindName, "127.0.2.24", ClassFresh, "ZRD 24 h", "", 0, 1},
	{"zrd.dq.spamhaus.net", KindName, "127.0.2.25", ClassOther, "127.0.2.25", "", 0, 1},
	{"zrd.dq.spamhaus.net", KindName, "127.0.2.255", ClassRefused, "an address was asked", AddressAsked, 0, 0},

	{"list.dnswl.org", KindAddress, "127.0.2.0", ClassAllowed, "DNSWL none", "", 1, 1},
	{"list.dnswl.org", KindAddress, "127.0.5.1", ClassAllowed, "DNSWL low", "", 1, 1},
	{"list.dnswl.org", KindAddress, "127.0.15.2", ClassAllowed, "DNSWL medium", "", 1, 1},
	{"list.dnswl.org", KindAddress, "127.0.20.3", ClassAllowed, "DNSWL high", "", 1, 1},
	{"list.dnswl.org", KindAddress, "127.0.21.3", ClassOther, "127.0.21.3", "", 0, 1},
	{"list.dnswl.org", KindAddress, "127.0.0.255", ClassRefused, "over quota", TooManyQueries, 0, 0},
	{"list.dnswl.org", KindAddress, "127.0.10.255", ClassRefused, "over quota", TooManyQueries, 0, 0},

	{"multi.uribl.com", KindName, "127.0.0.1", ClassRefused, "over quota", TooManyQueries, 0, 0},
	{"multi.uribl.com", KindName, "127.0.0.2", ClassListed, "127.0.0.2", "", 1, 1},
	{"multi.surbl.org", KindName, "127.0.0.64", ClassListed, "127.0.0.64", "", 1, 1},

	{"bl.example.net", KindAddress, "127.0.0.2", ClassListed, "127.0.0.2", "", 1, 1},
	{"bl.example.net", KindAddress, "127.0.2.255", ClassListed, "127.0.2.255", "", 1, 1},
	{"bl.example.net", KindAddress, "127.0.0.1", ClassOther, "127.0.0.1", "", 0, 1},
	{"bl.example.net", KindAddress, "127.1.0.1", ClassListed, "127.1.0.1", "", 1, 1},
	{"bl.example.net", KindName, "127.0.1.255", ClassRefused, "an address was asked", AddressAsked, 0, 0},

	{"zen.spamhaus.org", KindAddress, "127.255.255.252", ClassRefused, "zone name wrong", Typo, 0, 0},
	{"zen.spamhaus.org", KindAddress, "127.255.255.254", ClassRefused, "public resolver refused", SharedResolver, 0, 0},
	{"zen.spamhaus.org", KindAddress, "127.255.255.255", ClassRefused, "too many queries", TooManyQueries, 0, 0},
	{"zen.spamhaus.org", KindAddress, "127.255.255.7", ClassRefused, "refused", Refused, 0, 0},
	{"dbl.spamhaus.org", KindName, "127.255.255.252", ClassRefused, "zone name wrong", Typo, 0, 0},
	{"dbl.spamhaus.org", KindName, "127.255.255.254", ClassRefused, "public resolver refused", SharedResolver, 0, 0},
	{"dbl.spamhaus.org", KindName, "127.255.255.255", ClassRefused, "too many queries", TooManyQueries, 0, 0},
	{"bl.example.net", KindAddress, "127.255.255.254", ClassRefused, "public resolver refused", SharedResolver, 0, 0},
	{"list.dnswl.org", KindAddress, "127.255.255.255", ClassRefused, "too many queries", TooManyQueries, 0, 0},
	{"zen.spamhaus.org", KindAddress, "192.0.2.80", ClassRefused, "answer outside 127.0.0.0/8", OutsideLoopback, 0, 0},
	{"bl.example.net", KindName, "203.0.113.1", ClassRefused, "answer outside 127.0.0.0/8", OutsideLoopback, 0, 0},
}

func TestGoldenCodes(t *testing.T) {
	for _, g := range golden {
		t.Run(g.zone+" "+g.kind.String()+" "+g.code, func(t *testing.T) {
			table := tableOf(g.zone)
			c := table.classify(addr(g.code), g.kind)
			if c.Class != g.class || c.Name != g.name || c.Problem != g.problem {
				t.Errorf("%+v", c)
			}
			if (c.Problem != Healthy) != (c.Class == ClassRefused) || (c.Hours > 0) != (c.Class == ClassFresh) {
				t.Errorf("%+v contradicts itself", c)
			}
			for filter, want := range map[string]int{"": g.plain, "=127.[0..255].[0..255].[0..255]": g.filtered} {
				testGoldenScore(t, g.zone+filter, g.kind, g.code, want, g.problem)
			}
		})
	}
}

// testGoldenScore asks the list itself.
func testGoldenScore(t *testing.T, site string, kind Kind, code string, want int, problem Problem) {
	t.Helper()
	addresses, names, asked := site, "", "7.2.0.192."
	if kind == KindName {
		addresses, names, asked = "", site, "who.example."
	}
	name, _, _ := strings.Cut(site, "=")
	c := Config{Threshold: 100, Signals: true}
	zone := name
	if strings.HasSuffix(name, serviceSuffix) {
		c.Key = testKey(secret)
		zone = secret + "." + name
	}
	z := resolvertest.NewZone(t, asked+zone+". IN A "+code)
	l := newLists(t, z, addresses, names, c)
	r, err := l.Check(t.Context(), Query{Address: addr("192.0.2.7"), Names: []Subject{{"sender", "who.example"}}})
	if err != nil || r.Score != want || r.Outcome != Clean {
		t.Errorf("%s: %+v, %v", site, r, err)
	}
	if problem == Healthy {
		if len(r.Failures) != 0 || len(r.Hits) != 1 || l.Status()[0].Problem != Healthy {
			t.Errorf("%s: %+v, %+v", site, r, l.Status())
		}
		return
	}
	if len(r.Failures) != 1 || r.Failures[0].Problem != problem || len(r.Hits) != 0 || l.Status()[0].Problem != problem {
		t.Errorf("%s: %+v, %+v", site, r, l.Status())
	}
}

func TestEveryProblemHasAFix(t *testing.T) {
	problems := []Problem{Typo, SharedResolver, TooManyQueries, Refused, AddressAsked, OutsideLoopback,
		ListsEverything, ListsNothing, NoAnswer, Failing}
	for _, p := range problems {
		if p.Fix() == "" {
			t.Errorf("%s has none", p)
		}
	}
	if len(fixes) != len(problems) {
		t.Error("the list of problems is not complete")
	}
}
