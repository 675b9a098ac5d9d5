package dnsbl

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// watched holds lists whose Run runs in a bubble, and the reported changes.
type watched struct {
	*Lists
	t       *testing.T
	mu      sync.Mutex
	changes []string
}

func watch(t *testing.T, z DNS, addresses, names string, c Config) *watched {
	w := &watched{t: t}
	c.Signals = true
	c.Report = func(c Change) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.changes = append(w.changes, fmt.Sprintf("%s %s→%s %s", c.Zone, or(c.Before), or(c.Problem), c.Cause))
	}
	w.Lists = newLists(t, z, addresses, names, c)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	synctest.Wait()
	return w
}

func or(p Problem) string {
	if p == Healthy {
		return "healthy"
	}
	return string(p)
}

// expect compares the changes since the last call.
func (w *watched) expect(want ...string) {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.changes, want) {
		w.t.Errorf("changes %q, want %q", w.changes, want)
	}
	w.changes = nil
}

func (w *watched) check(q Query) Result {
	r, _ := w.Check(w.t.Context(), q)
	return r
}

func TestSelfTestFindsBrokenZones(t *testing.T) {
	const (
		testPoint = "2.0.0.127.bl.example. IN A 127.0.0.2\n"
		testName  = "test.rhsbl.example. IN A 127.0.0.2\n"
	)
	for _, c := range []struct {
		name, zone, addresses, names string
		fault                        resolvertest.Fault
		want                         []string
	}{
		{"good address list", testPoint, "bl.example", "", "", nil},
		{"good name list", testName, "", "rhsbl.example", "", nil},
		{"Spamhaus", world, zen, dbl, "", nil},
		{"Spamhaus with the RFC's entry", "test.dbl.spamhaus.org. IN A 127.0.1.2", "", dbl, "", nil},
		{"lists nothing", "", "bl.example", "rhsbl.example", "", []string{
			"bl.example healthy→lists_nothing 127.0.0.2 is not listed", "rhsbl.example healthy→lists_nothing test is not listed"}},
		{"Spamhaus lists nothing", "", zen, dbl, "", []string{
			"zen.spamhaus.org healthy→lists_nothing 127.0.0.2 is not listed", "dbl.spamhaus.org healthy→lists_nothing no test entry is listed"}},
		{"lists everything", "*.bl.example. IN A 127.0.0.2\n*.rhsbl.example. IN A 127.0.0.2", "bl.example", "rhsbl.example", "", []string{
			"bl.example healthy→lists_everything 127.0.0.1 is listed (127.0.0.2)", "rhsbl.example healthy→lists_everything invalid is listed (127.0.0.2)"}},
		{"lists all but the test entries", "*.127.bl.example. IN A 127.0.0.2\n" + testPoint + "1.0.0.127.bl.example. IN TXT x\n0.0.127.bl.example. IN TXT x", "bl.example", "", "", []string{
			"bl.example healthy→lists_everything 127.165.67.33 is listed (127.0.0.2)"}},
		{"lists all of IPv6", testPoint + "*.0.bl.example. IN A 127.0.0.2", "bl.example", "", "", []string{
			"bl.example healthy→lists_everything ::ffff:127.0.0.1 is listed (127.0.0.2)"}},
		{"refuses", "*.bl.example. IN A 127.255.255.254\n*.rhsbl.example. IN A 127.255.255.255", "bl.example", "rhsbl.example", "", []string{
			"bl.example healthy→public_resolver answered 127.255.255.254: public resolver refused", "rhsbl.example healthy→too_many_queries answered 127.255.255.255: too many queries"}},
		{"name list says IP", "*.rhsbl.example. IN A 127.0.1.255", "", "rhsbl.example", "", []string{
			"rhsbl.example healthy→address_asked answered 127.0.1.255: an address was asked"}},
		{"sold", "*.example. IN A 192.0.2.80", "bl.example", "", "", []string{
			"bl.example healthy→answer_outside_127 answered 192.0.2.80: answer outside 127.0.0.0/8"}},
		{"SERVFAIL", "", "bl.example", "rhsbl.example", resolvertest.ServFail, []string{
			"bl.example healthy→dns_failure server answered SERVFAIL", "rhsbl.example healthy→dns_failure server answered SERVFAIL"}},
		{"silent", "", "bl.example", "", resolvertest.Unavailable, []string{"bl.example healthy→no_answer no answer in time"}},
		{"SURBL", "surbl-org-permanent-test-point.com.multi.surbl.org. IN A 127.0.0.254\n", "", "multi.surbl.org", "", nil},
		{"SURBL by another of its entries", "2.0.0.127.multi.surbl.org. IN A 127.0.0.254\n", "", "multi.surbl.org", "", nil},
		{"SURBL has ended", "", "", "multi.surbl.org", "", []string{"multi.surbl.org healthy→lists_nothing no test entry is listed"}},
		{"URIBL", "test.uribl.com.multi.uribl.com. IN A 127.0.0.14\n2.0.0.127.multi.uribl.com. IN A 127.0.0.14\n", "", "multi.uribl.com", "", nil},
		{"URIBL refuses", "*.multi.uribl.com. IN A 127.0.0.1\n", "", "multi.uribl.com", "", []string{"multi.uribl.com healthy→too_many_queries answered 127.0.0.1: over quota"}},
		{"hostkarma", "2.0.0.127.hostkarma.junkemailfilter.com. IN A 127.0.0.2\n1.0.0.127.hostkarma.junkemailfilter.com. IN A 127.0.0.1\n", "hostkarma.junkemailfilter.com", "", "", nil},
		{"hostkarma lists everything", "*.hostkarma.junkemailfilter.com. IN A 127.0.0.2\n", "hostkarma.junkemailfilter.com", "", "", []string{
			"hostkarma.junkemailfilter.com healthy→lists_everything 127.165.67.33 is listed (127.0.0.2)"}},
		{"address list as name list", testPoint, "", "bl.example", "", []string{"bl.example healthy→lists_nothing test is not listed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				z := resolvertest.NewZone(t, c.zone)
				z.Fail("*", c.fault)
				w := watch(t, z, c.addresses, c.names, Config{Random: func() uint64 { return 0x214325 }})
				w.expect(c.want...)
			})
		})
	}
}

func TestRefusalOpensAndHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := resolvertest.NewZone(t, world)
		w := watch(t, z, zen, "", Config{})
		w.expect()
		good := z.Queries()
		z.Replace("*.zen.spamhaus.org. IN A 127.255.255.254")
		if r := w.check(Query{Address: addr("192.0.2.1")}); r.Outcome != Undecided || r.Failures[0].Problem != SharedResolver || r.Failures[0].Broken {
			t.Errorf("%+v", r)
		}
		w.expect("zen.spamhaus.org healthy→public_resolver answered 127.255.255.254: public resolver refused")
		// It is out of service: nothing is asked, and this is reported once.
		z.ResetLog()
		for range 10 {
			if r := w.check(Query{Address: addr("192.0.2.7")}); r.Outcome != Undecided || !r.Failures[0].Broken || r.Asked != 0 {
				t.Errorf("%+v", r)
			}
		}
		w.expect()
		if z.Total() != 0 {
			t.Errorf("%d questions to a zone out of service", z.Total())
		}
		// Self-tests go on, ever more rarely.
		time.Sleep(time.Hour)
		w.expect()
		if tests := z.Total() / len(good); tests < 8 || tests > 20 {
			t.Errorf("%d self-tests in an hour", tests)
		}
		z.Replace(world)
		time.Sleep(retryMax)
		w.expect("zen.spamhaus.org public_resolver→healthy ")
		if r := w.check(Query{Address: addr("192.0.2.7")}); r.Outcome != Listed {
			t.Errorf("%+v", r)
		}
	})
}

// A zone that refuses one question and passes its self-tests is out of service only
// until the test ends. The next refusal counts only when a self-test confirms it:
// caches may hold earlier refusals, and a sender may have found a name that makes
// the zone refuse.
func TestRefusalAfterHealing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := resolvertest.NewZone(t, world+"odd.example.dbl.spamhaus.org. IN A 127.0.1.255\n")
		w := watch(t, z, "", dbl, Config{})
		w.check(Query{Names: sender("odd.example")})
		w.expect("dbl.spamhaus.org healthy→address_asked answered 127.0.1.255: an address was asked",
			"dbl.spamhaus.org address_asked→healthy ")
		for range 100 {
			w.check(Query{Names: sender("odd.example")})
			time.Sleep(time.Second)
		}
		w.expect()
		if tests := z.Count("invalid.dbl.spamhaus.org", ""); tests > 25 {
			t.Errorf("%d self-tests for 100 requests in 100 seconds", tests)
		}
		// When the zone really breaks, the test detects it.
		z.Replace("*.dbl.spamhaus.org. IN A 127.255.255.255")
		w.check(Query{Names: sender("odd.example")})
		time.Sleep(retryFirst)
		w.expect("dbl.spamhaus.org healthy→too_many_queries answered 127.255.255.255: too many queries")
	})
}

func TestFailuresInARowOpen(t *testing.T) {
	for fault, want := range map[resolvertest.Fault]string{
		resolvertest.ServFail:    "dns_failure server answered SERVFAIL",
		resolvertest.Unavailable: "no_answer no answer in time",
	} {
		synctest.Test(t, func(t *testing.T) {
			z := resolvertest.NewZone(t, world)
			w := watch(t, z, zen, "", Config{})
			z.Fail("7.2.0.192.zen.spamhaus.org", fault)
			for range 3 { // one success between failures is enough
				for range failureLimit - 1 {
					w.check(Query{Address: addr("192.0.2.7")})
				}
				w.check(Query{Address: addr("192.0.2.8")})
			}
			w.expect()
			z.Fail("*", fault)
			for range failureLimit {
				w.check(Query{Address: addr("192.0.2.7")})
			}
			w.expect("zen.spamhaus.org healthy→" + want)
			z.ResetLog()
			w.check(Query{Address: addr("192.0.2.7")})
			if z.Count("7.2.0.192.zen.spamhaus.org", "") != 0 {
				t.Error("a zone out of service was asked")
			}
			z.Fail("*", resolvertest.Healthy)
			z.Fail("7.2.0.192.zen.spamhaus.org", resolvertest.Healthy)
			time.Sleep(2 * retryFirst)
			w.expect("zen.spamhaus.org " + strings.Fields(want)[0] + "→healthy ")
		})
	}
}

func TestPeriodicTestFindsAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := resolvertest.NewZone(t, world)
		w := watch(t, z, zen, dbl, Config{})
		w.expect()
		z.Replace("*.zen.spamhaus.org. IN A 127.0.0.2\ndbltest.com.dbl.spamhaus.org. IN A 127.0.1.2")
		time.Sleep(2 * testInterval)
		w.expect("zen.spamhaus.org healthy→lists_everything 127.0.0.1 is listed (127.0.0.2)")
		if r := w.check(Query{Address: addr("192.0.2.1"), Names: sender("who.example")}); r.Outcome != Undecided || len(r.Hits) != 0 {
			t.Errorf("everybody is listed: %+v", r)
		}
	})
}

func TestSelfTestByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := resolvertest.NewZone(t, "")
		w := watch(t, z, zen, dbl, Config{})
		w.expect("zen.spamhaus.org healthy→lists_nothing 127.0.0.2 is not listed", "dbl.spamhaus.org healthy→lists_nothing no test entry is listed")
		z.Replace(world)
		results, err := w.SelfTest(t.Context())
		if err != nil || len(results) != 2 {
			t.Fatalf("%+v, %v", results, err)
		}
		for _, r := range results {
			if r.Problem != Healthy || r.Status.Problem != Healthy {
				t.Errorf("%+v", r)
			}
		}
		if p := results[0].Points; len(p) != 5 || !p[0].OK() || p[0].Subject != "127.0.0.2" || len(p[0].Codes) != 2 || !p[1].OK() || !p[3].OK() {
			t.Errorf("%+v", p)
		}
		if p := results[1].Points; len(p) != 4 || p[2].Subject != "dbltest.com" || !p[2].OK() || p[3].OK() {
			t.Errorf("%+v", p)
		}
		w.expect("zen.spamhaus.org lists_nothing→healthy ", "dbl.spamhaus.org lists_nothing→healthy ")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := w.SelfTest(ctx); err == nil {
			t.Error("a stopped self-test said something")
		}
		w.expect()
	})
}

// Every self-test asks a name that no cache can hold.
func TestSelfTestGoesPastCaches(t *testing.T) {
	z := resolvertest.NewZone(t, world)
	l := newLists(t, z, zen, dbl, Config{})
	for range 3 {
		if _, err := l.SelfTest(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]int{}
	for _, q := range z.Queries() {
		seen[q.Name]++
	}
	if len(seen) != 4+3+3+3 {
		t.Errorf("%v", seen)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := resolvertest.NewZone(t, "")
		z.SetDelay("*", time.Hour)
		l := newLists(t, z, zen, dbl, Config{Report: func(c Change) { t.Errorf("%+v", c) }})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		l.Run(ctx)
		started := time.Now()
		l.Run(ctx)
		if time.Since(started) != 0 {
			t.Error("ran on")
		}
	})
}

// A list with its own test entries is tested with these, whatever it answers for
// those of RFC 5782.
func TestOwnTestEntries(t *testing.T) {
	const odd = "1.0.0.127.odd.example. IN A 127.0.0.4\n5.0.0.127.odd.example. IN A 127.0.0.2\nalive.odd.example. IN A 127.0.0.2\n"
	for name, c := range map[string]struct {
		zone, tests string
		want        []string
	}{
		"as RFC 5782 has it": {odd, "", []string{"odd.example healthy→lists_everything 127.0.0.1 is listed (127.0.0.4)"}},
		"its own":            {odd, "odd.example=127.0.0.5", nil},
		"one of several":     {odd, "ODD.example.=127.0.0.9,127.0.0.5", nil},
		"it lacks its own":   {odd, "odd.example=127.0.0.9", []string{"odd.example healthy→lists_nothing 127.0.0.9 is not listed"}},
		"it lists all":       {"*.odd.example. IN A 127.0.0.2\n", "odd.example=127.0.0.5", []string{"odd.example healthy→lists_everything 127.165.67.33 is listed (127.0.0.2)"}},
		"off":                {"", "odd.example=off", nil},
		"of another list":    {odd, "even.example=off", []string{"odd.example healthy→lists_everything 127.0.0.1 is listed (127.0.0.4)"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				config := Config{Random: func() uint64 { return 0x214325 }}
				if c.tests != "" {
					zone, own, err := ParseSelfTest(c.tests)
					if err != nil {
						t.Fatal(err)
					}
					config.SelfTests = map[string]SelfTest{zone: own}
				}
				watch(t, resolvertest.NewZone(t, c.zone), "odd.example", "", config).expect(c.want...)
			})
		})
	}
}

// A list that is never tested is put out of service by refusals only. It is asked
// again after a time that grows while it goes on refusing.
func TestWithoutSelfTest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := resolvertest.NewZone(t, "7.2.0.192.odd.example. IN A 127.255.255.255\n")
		w := watch(t, z, "odd.example", "", Config{SelfTests: map[string]SelfTest{"odd.example": {Off: true}}})
		w.expect()
		for _, rest := range []time.Duration{5, 10, 20} {
			w.check(Query{Address: addr("192.0.2.7")})
			w.expect("odd.example healthy→too_many_queries answered 127.255.255.255: too many queries")
			asked := z.Total()
			time.Sleep(rest*time.Second - 1)
			if r := w.check(Query{Address: addr("192.0.2.7")}); len(r.Failures) != 1 || !r.Failures[0].Broken {
				t.Errorf("%+v", r)
			}
			w.expect()
			time.Sleep(time.Nanosecond)
			w.expect("odd.example too_many_queries→healthy ")
			if z.Total() != asked {
				t.Error("asked about something")
			}
		}
		results, err := w.SelfTest(t.Context())
		if err != nil || len(results) != 1 || !results[0].Off || results[0].Problem != Healthy || len(results[0].Points) != 0 {
			t.Errorf("%+v, %v", results, err)
		}
	})
}

func TestParseSelfTest(t *testing.T) {
	for text, want := range map[string]string{
		"list.example=off":                 "list.example {true []}",
		"LIST.example.=Test.List.example.": "list.example {false [test.list.example]}",
		"l.example=127.0.0.2, ::1,a.b":     "l.example {false [127.0.0.2 ::1 a.b]}",
	} {
		zone, got, err := ParseSelfTest(text)
		if text := fmt.Sprintf("%s %v", zone, got); err != nil || text != want {
			t.Errorf("%s: %s, %v", text, text, err)
		}
	}
	for text, want := range map[string]string{
		"": "write ZONE=off", "off": "write ZONE=off", "l.example": "write ZONE=off", "=off": "write ZONE=off", "a b=off": "write ZONE=off",
		"l.example=": "is no test entry", "l.example=a,,b": "is no test entry", "l.example=a b": "is no test entry",
		"l.example=" + strings.Repeat("a,", 8) + "b": "are enough", "l.example=" + strings.Repeat("a", 600): "write ZONE=off",
	} {
		if _, _, err := ParseSelfTest(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// A listing counts only after the first self-test: a list that was shut down while the
// daemon did not run may list everything.
func TestListingsAwaitTheFirstTest(t *testing.T) {
	for name, c := range map[string]struct {
		zone, sites string
		run         bool
		want        Outcome
		wait        time.Duration
	}{
		"works":               {"2.0.0.127.bl.example. IN A 127.0.0.2\n1.2.0.192.bl.example. IN A 127.0.0.2\n", "bl.example", true, Listed, time.Second},
		"lists everything":    {"*.bl.example. IN A 127.0.0.2\n", "bl.example", true, Undecided, time.Second},
		"allows everyone":     {"*.bl.example. IN A 127.0.0.2\n2.0.0.127.good.example. IN A 127.0.0.2\n1.2.0.192.good.example. IN A 127.0.0.2\n", "good.example bl.example*-1", true, Listed, time.Second},
		"not listed":          {"", "bl.example", false, Clean, 0},
		"no test comes along": {"*.bl.example. IN A 127.0.0.2\n", "bl.example", false, Listed, firstTestWait},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLists(t, resolvertest.NewZone(t, c.zone), c.sites, "", Config{Await: true, Signals: true})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if c.run {
					time.AfterFunc(time.Second, func() { l.Run(ctx) })
				}
				started := time.Now()
				for range 2 {
					if r, _ := l.Check(t.Context(), Query{Address: addr("192.0.2.1")}); r.Outcome != c.want {
						t.Errorf("%+v", r)
					}
					if took := time.Since(started); took != c.wait {
						t.Errorf("took %v", took)
					}
					if !c.run {
						return
					}
				}
			})
		})
	}
}

// A list that begins to list everything is tested as soon as it lists many in a row.
func TestManyListingsInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := resolvertest.NewZone(t, world)
		w := watch(t, z, zen, "", Config{})
		z.Replace("*.zen.spamhaus.org. IN A 127.0.0.2")
		time.Sleep(retryFirst)
		refused := 0
		for range 100 {
			if w.check(Query{Address: addr("192.0.2.1")}).Outcome == Listed {
				refused++
			}
			synctest.Wait()
		}
		w.expect("zen.spamhaus.org healthy→lists_everything 127.0.0.1 is listed (127.0.0.2)")
		if refused != firstRow {
			t.Errorf("%d mails refused before it was noticed", refused)
		}
	})
}

// Where most clients are listed, a list that works is seldom tested out of turn.
func TestManyListedClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := resolvertest.NewZone(t, world)
		w := watch(t, z, zen, "", Config{})
		for range 40 * firstRow {
			w.check(Query{Address: addr("192.0.2.7")})
			time.Sleep(time.Second)
		}
		// Rows of 10, 20, 40, 80 and 160 are tested, and none after that.
		if tests := z.Count("1.0.0.127.zen.spamhaus.org", ""); tests != 6 {
			t.Errorf("%d self-tests", tests)
		}
		w.expect()
		// One client that is not listed ends a row.
		z.ResetLog()
		for i := range 100 * firstRow {
			w.check(Query{Address: addr("192.0.2.7")})
			if i%100 == 0 {
				w.check(Query{Address: addr("192.0.2.1")})
			}
		}
		synctest.Wait()
		if tests := z.Count("1.0.0.127.zen.spamhaus.org", ""); tests != 0 {
			t.Errorf("%d self-tests", tests)
		}
	})
}
