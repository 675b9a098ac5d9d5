// Package storetest tests that all greylist stores behave the same.
//
// Invariant: for any sequence of sightings, a store returns and keeps the same as
// greylist.Record.Advance. The model in model.go does only that.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/greylist"
)

// Subject is a store under test.
type Subject interface {
	greylist.Store
	greylist.Browser
}

// Limits returns the limits that the suite uses.
func Limits() greylist.Limits {
	return greylist.Limits{
		Delay: 3 * time.Minute, RetryWindow: 48 * time.Hour, PassTTL: 35 * 24 * time.Hour,
		AllowAfter: 5, AllowTTL: 35 * 24 * time.Hour, NetworkCap: 100,
	}
}

// Run tests the stores that open returns. Each must be empty.
func Run(t *testing.T, open func(t *testing.T) Subject) {
	for name, test := range map[string]func(*testing.T, Subject){
		"delay then pass":           delayThenPass,
		"domain from any network":   domainFromAnyNetwork,
		"older of both keys":        olderOfBoth,
		"changed limits":            changedLimits,
		"clock set back":            clockSetBack,
		"clock behind":              clockBehind,
		"a sender of much mail":     muchMail,
		"credit":                    credit,
		"network flood":             networkFlood,
		"domain flood":              domainFlood,
		"daemon flood":              daemonFlood,
		"peek records nothing":      peekRecordsNothing,
		"browse":                    browse,
		"put merges":                putMerges,
		"strange keys":              strangeKeys,
		"cancelled":                 cancelled,
		"one first among many":      oneFirstAmongMany,
		"as the model, any history": asTheModel,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

// start is when every history begins. Stores must not care that it is not now.
func start() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

func key(domain, network string) greylist.Key {
	return greylist.NewKey(domain, domain, network, "alice@example.org", "bob@example.net")
}

// see records a sighting and returns the decision.
func see(t *testing.T, s greylist.Store, k greylist.Key, at time.Time, l greylist.Limits) greylist.Outcome {
	t.Helper()
	r, err := s.Seen(t.Context(), k, at, l)
	if err != nil {
		t.Fatalf("Seen: %v", err)
	}
	return greylist.Decide(r, at, l)
}

func want(t *testing.T, got greylist.Outcome, why greylist.Why) {
	t.Helper()
	if got.Why != why {
		t.Errorf("got %+v, want %v", got, why)
	}
}

func delayThenPass(t *testing.T, s Subject) {
	k, l, at := key("", "192.0.2.0/24"), Limits(), start()
	want(t, see(t, s, k, at, l), greylist.New)
	if o := see(t, s, k, at.Add(time.Minute), l); o.Why != greylist.Early || o.Wait != 2*time.Minute {
		t.Errorf("after a minute: %+v", o)
	}
	if o := see(t, s, k, at.Add(3*time.Minute), l); o.Why != greylist.Waited || o.Waited != 3*time.Minute {
		t.Errorf("after the delay: %+v", o)
	}
	want(t, see(t, s, k, at.Add(4*time.Minute), l), greylist.Known)
	late := at.Add(4*time.Minute + l.PassTTL)
	want(t, see(t, s, k, late, l), greylist.Known)
	want(t, see(t, s, k, late.Add(l.PassTTL+time.Millisecond), l), greylist.New)

	other := greylist.NewKey("", "", "198.51.100.0/24", "alice@example.org", "bob@example.net")
	want(t, see(t, s, other, at, l), greylist.New)
	want(t, see(t, s, other, at.Add(l.RetryWindow+time.Millisecond), l), greylist.New)
}

func domainFromAnyNetwork(t *testing.T, s Subject) {
	l, at := Limits(), start()
	want(t, see(t, s, key("example.org", "192.0.2.0/24"), at, l), greylist.New)
	want(t, see(t, s, key("example.org", "198.51.100.0/24"), at.Add(l.Delay), l), greylist.Waited)
	want(t, see(t, s, key("", "203.0.113.0/24"), at.Add(l.Delay), l), greylist.New)
	// Another domain from a network that has been seen with this sender shares
	// the network's wait.
	want(t, see(t, s, key("example.com", "203.0.113.0/24"), at.Add(l.Delay), l), greylist.Early)
}

func olderOfBoth(t *testing.T, s Subject) {
	l, at := Limits(), start()
	// SPF had no result at first, but had one at the retry; and the other way round.
	want(t, see(t, s, key("", "192.0.2.0/24"), at, l), greylist.New)
	want(t, see(t, s, key("example.org", "192.0.2.0/24"), at.Add(l.Delay), l), greylist.Waited)
	want(t, see(t, s, key("example.org", "198.51.100.0/24"), at.Add(l.Delay), l), greylist.Known)
	k := greylist.NewKey("example.com", "example.com", "192.0.2.0/24", "carol@example.com", "bob@example.net")
	want(t, see(t, s, k, at, l), greylist.New)
	k.Domain = ""
	want(t, see(t, s, k, at.Add(l.Delay), l), greylist.Waited)
}

func changedLimits(t *testing.T, s Subject) {
	k, l, at := key("", "192.0.2.0/24"), Limits(), start()
	want(t, see(t, s, k, at, l), greylist.New)
	longer, shorter := l, l
	longer.Delay, shorter.Delay = time.Hour, time.Second
	want(t, see(t, s, k, at.Add(10*time.Minute), longer), greylist.Early)
	want(t, see(t, s, k, at.Add(11*time.Minute), shorter), greylist.Waited)
	want(t, see(t, s, k, at.Add(12*time.Minute), longer), greylist.Known)
	l.PassTTL = time.Hour
	want(t, see(t, s, k, at.Add(3*time.Hour), l), greylist.New)
}

func clockSetBack(t *testing.T, s Subject) {
	k, l, at := key("", "192.0.2.0/24"), Limits(), start()
	ahead := at.Add(10 * 365 * 24 * time.Hour)
	want(t, see(t, s, k, ahead, l), greylist.New)
	if o := see(t, s, k, at, l); o.Why != greylist.Early || o.Wait != l.Delay {
		t.Errorf("seen in the future: %+v", o)
	}
	want(t, see(t, s, k, at.Add(l.Delay), l), greylist.Waited)
}

// clockBehind tests a host whose clock has stopped. Its sightings must not make an
// entry look older to the others.
func clockBehind(t *testing.T, s Subject) {
	k, l, at := key("example.org", "192.0.2.0/24"), Limits(), start()
	want(t, see(t, s, k, at, l), greylist.New)
	want(t, see(t, s, k, at.Add(l.Delay), l), greylist.Waited)
	want(t, see(t, s, k, time.Unix(100, 0), l), greylist.Known)
	r, err := s.Peek(t.Context(), k)
	if last := greylist.At(at.Add(l.Delay)); err != nil || r.ByDomain.Last != last || r.ByNetwork.Last != last {
		t.Errorf("the latest sighting went back: %+v, %v", r, err)
	}
	want(t, see(t, s, k, at.Add(l.Delay+l.PassTTL), l), greylist.Known)
	for _, when := range []time.Time{at, time.Unix(100, 0)} {
		if err := s.Credit(t.Context(), k.Creditor(), when); err != nil {
			t.Fatal(err)
		}
	}
	if r, err = s.Peek(t.Context(), k); err != nil || r.DomainClient.Last != greylist.At(at) {
		t.Errorf("the latest credit went back: %+v, %v", r.DomainClient, err)
	}
}

// muchMail tests that the sightings of a triplet that has passed are written at most
// once in an interval, and that a domain that SPF authorises later is written at once.
func muchMail(t *testing.T, s Subject) {
	k, l, at := key("", "192.0.2.0/24"), Limits(), start()
	last := func(id greylist.ID, want time.Time) {
		t.Helper()
		if got := entries(t, s)[id].Triplet.Last; got != greylist.At(want) {
			t.Errorf("%s: latest sighting %v, want %v", id, got.Time(), want)
		}
	}
	want(t, see(t, s, k, at, l), greylist.New)
	want(t, see(t, s, k, at.Add(time.Second), l), greylist.Early)
	last(k.ByNetwork(), at.Add(time.Second)) // it has not passed: every sighting is written
	passed := at.Add(l.Delay)
	want(t, see(t, s, k, passed, l), greylist.Waited)
	want(t, see(t, s, k, passed.Add(l.NoteInterval()-time.Millisecond), l), greylist.Known)
	last(k.ByNetwork(), passed)
	want(t, see(t, s, k, passed.Add(l.NoteInterval()), l), greylist.Known)
	last(k.ByNetwork(), passed.Add(l.NoteInterval()))
	k = key("example.org", "192.0.2.0/24")
	authorised := passed.Add(l.NoteInterval() + time.Second)
	want(t, see(t, s, k, authorised, l), greylist.Known)
	last(k.ByDomain(), authorised)
	last(k.ByNetwork(), authorised)
	want(t, see(t, s, k, authorised.Add(time.Second), l), greylist.Known)
	last(k.ByDomain(), authorised)
	l.PassTTL = time.Second // the interval is a part of it
	want(t, see(t, s, k, authorised.Add(time.Second/2), l), greylist.Known)
	last(k.ByDomain(), authorised.Add(time.Second/2))
}

// domainFlood tests that a domain that SPF authorised is counted alone, from whatever
// network it comes, and not together with its neighbours.
func domainFlood(t *testing.T, s Subject) {
	l, at := Limits(), start()
	l.NetworkCap = 3
	neighbour := key("", "192.0.2.0/24")
	for i := range 4 {
		neighbour.Sender = fmt.Sprint(i, "@neighbour.example")
		see(t, s, neighbour, at, l)
	}
	for i := range 5 {
		k := key("example.org", fmt.Sprintf("192.0.%d.0/24", 2+i))
		k.Sender = fmt.Sprint(i, "@example.org")
		o := see(t, s, k, at.Add(time.Duration(i)*time.Minute), l)
		if i < 3 {
			want(t, o, greylist.New)
		} else if left := greylist.FloodWindow - time.Duration(i)*time.Minute; o.Why != greylist.FloodNetwork || o.Wait != left {
			t.Errorf("new sender %d of a domain: %+v, want to wait %v", i, o, left)
		}
	}
	k := key("example.org", "192.0.2.0/24")
	k.Sender = "4@example.org"
	want(t, see(t, s, k, at.Add(greylist.FloodWindow), l), greylist.New)
}

func credit(t *testing.T, s Subject) {
	k, l, at := key("example.org", "192.0.2.0/24"), Limits(), start()
	client := k.Creditor()
	give := func(at time.Time) {
		if err := s.Credit(t.Context(), client, at); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		give(at.Add(time.Duration(i) * time.Hour))
		give(at.Add(time.Duration(i)*time.Hour + 59*time.Minute)) // in the same hour: not counted
		k.Recipient = fmt.Sprint(i, "@example.net")
		wanted := greylist.New
		if i == 4 {
			wanted = greylist.AutoAllowed
		}
		want(t, see(t, s, k, at.Add(time.Duration(i)*time.Hour), l), wanted)
	}
	at = at.Add(5 * time.Hour)
	elsewhere := key("example.org", "198.51.100.0/24")
	want(t, see(t, s, elsewhere, at, l), greylist.New)
	claimed := greylist.NewKey("", "example.org", "192.0.2.0/24", "x@example.org", "y@example.net")
	want(t, see(t, s, claimed, at, l), greylist.AutoAllowed)
	claimed.Claimed = ""
	want(t, see(t, s, claimed, at, l), greylist.New)
	// Use keeps the credit alive, disuse ends it.
	at = at.Add(l.AllowTTL - time.Hour)
	want(t, see(t, s, k, at, l), greylist.AutoAllowed)
	at = at.Add(l.AllowTTL)
	want(t, see(t, s, k, at, l), greylist.AutoAllowed)
	want(t, see(t, s, k, at.Add(l.AllowTTL+time.Millisecond), l), greylist.New)
	r, err := s.Peek(t.Context(), k)
	if err != nil || r.DomainClient.Passes != 5 {
		t.Errorf("credit: %+v, %v", r.DomainClient, err)
	}
}

func networkFlood(t *testing.T, s Subject) {
	l, at := Limits(), start()
	l.NetworkCap = 3
	k := key("", "192.0.2.0/24")
	for i := range 5 {
		k.Sender = fmt.Sprint(i, "@example.org")
		wanted := greylist.New
		if i >= 3 {
			wanted = greylist.FloodNetwork
		}
		want(t, see(t, s, k, at.Add(time.Duration(i)*time.Second), l), wanted)
	}
	if r, err := s.Peek(t.Context(), k); err != nil || r.ByNetwork != (greylist.Triplet{}) {
		t.Errorf("a refused triplet was recorded: %+v, %v", r, err)
	}
	k.Sender = "0@example.org"
	want(t, see(t, s, k, at.Add(l.Delay), l), greylist.Waited)
	k.Network = "198.51.100.0/24"
	want(t, see(t, s, k, at, l), greylist.New)
	k.Network, k.Sender = "192.0.2.0/24", "9@example.org"
	want(t, see(t, s, k, at.Add(greylist.FloodWindow), l), greylist.New)
}

func daemonFlood(t *testing.T, s Subject) {
	l, at := Limits(), start()
	k := key("example.org", "192.0.2.0/24")
	full := l
	full.Full = true
	want(t, see(t, s, k, at, full), greylist.FloodDaemon)
	want(t, see(t, s, k, at.Add(time.Hour), l), greylist.New)
	want(t, see(t, s, k, at.Add(time.Hour+l.Delay), full), greylist.Waited)
}

func peekRecordsNothing(t *testing.T, s Subject) {
	k := key("example.org", "192.0.2.0/24")
	for range 2 {
		if r, err := s.Peek(t.Context(), k); err != nil || r != (greylist.Record{}) {
			t.Fatalf("Peek: %+v, %v", r, err)
		}
	}
	want(t, see(t, s, k, start(), Limits()), greylist.New)
	r, err := s.Peek(t.Context(), k)
	at := greylist.At(start())
	if err != nil || r.ByDomain != (greylist.Triplet{First: at, Last: at}) || r.ByNetwork != r.ByDomain {
		t.Errorf("Peek: %+v, %v", r, err)
	}
}

func entries(t *testing.T, s Subject) map[greylist.ID]greylist.Entry {
	t.Helper()
	all := map[greylist.ID]greylist.Entry{}
	err := s.Walk(t.Context(), func(e greylist.Entry) error {
		all[e.ID] = e
		return nil
	})
	if err != nil {
		t.Fatalf("Walk: %v", err)
	}
	return all
}

func browse(t *testing.T, s Subject) {
	k := key("example.org", "192.0.2.0/24")
	see(t, s, k, start(), Limits())
	if err := s.Credit(t.Context(), k.Creditor(), start()); err != nil {
		t.Fatal(err)
	}
	at := greylist.At(start())
	all := entries(t, s)
	if len(all) != 3 || all[k.ByDomain()].Triplet.First != at || all[k.ByNetwork()].Triplet.Last != at ||
		all[greylist.ID(k.Creditor())].Client != (greylist.Client{Passes: 1, Last: at}) {
		t.Errorf("entries: %+v", all)
	}
	n, err := s.Delete(t.Context(), []greylist.ID{k.ByNetwork(), k.ByDomain(), "nobody", "no such triplet"})
	if n != 2 || err != nil {
		t.Errorf("Delete: %d, %v", n, err)
	}
	if all := entries(t, s); len(all) != 1 {
		t.Errorf("after Delete: %+v", all)
	}
	want(t, see(t, s, k, start().Add(time.Hour), Limits()), greylist.New)
	stop := errors.New("enough")
	if err := s.Walk(t.Context(), func(greylist.Entry) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("Walk stopped: %v", err)
	}
}

func putMerges(t *testing.T, s Subject) {
	k, at := key("", "192.0.2.0/24"), greylist.At(start())
	put := func(all ...greylist.Entry) {
		t.Helper()
		if err := s.Put(t.Context(), all); err != nil {
			t.Fatal(err)
		}
	}
	triplet := func(first, last, passed greylist.Stamp) greylist.Entry {
		return greylist.Entry{ID: k.ByNetwork(), Triplet: greylist.Triplet{First: first, Last: last, Passed: passed}}
	}
	put(triplet(at, at+10, 0), triplet(at+5, at+20, at+15), triplet(at+7, at+8, at+18))
	if got := entries(t, s)[k.ByNetwork()].Triplet; got != (greylist.Triplet{First: at, Last: at + 20, Passed: at + 15}) {
		t.Errorf("merged triplet: %+v", got)
	}
	client := func(c greylist.Client) greylist.Entry { return greylist.Entry{ID: "192.0.2.0/24", Client: c} }
	put(client(greylist.Client{Passes: 2, Last: at}), client(greylist.Client{Passes: 1, Last: at + 1}), client(greylist.Client{Manual: true}))
	if got := entries(t, s)["192.0.2.0/24"].Client; got != (greylist.Client{Passes: 2, Last: at + 1, Manual: true}) {
		t.Errorf("merged client: %+v", got)
	}
	want(t, see(t, s, k, start().Add(10*365*24*time.Hour), greylist.Limits{}), greylist.AllowedByHand)
	put()
}

func strangeKeys(t *testing.T, s Subject) {
	l := Limits()
	for i, sender := range []string{"", greylist.NullSender, "a b\x00c\nd@example.org", "jürgen@bücher.example", "{}*?[]\\\"'", string(make([]byte, 5000)), "\xff\xfe"} {
		k := greylist.NewKey("", "", "2001:db8::/64", sender, "x\ty@example.net")
		at := start().Add(time.Duration(i) * time.Hour)
		want(t, see(t, s, k, at, l), greylist.New)
		want(t, see(t, s, k, at.Add(l.Delay), l), greylist.Waited)
		if e, ok := entries(t, s)[k.ByNetwork()]; !ok || e.Triplet.First != greylist.At(at) {
			t.Errorf("%.20q: %+v", sender, e)
		}
	}
}

func cancelled(t *testing.T, s Subject) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	k := key("", "192.0.2.0/24")
	// A store may answer from memory; one that cannot must say so.
	if r, err := s.Seen(ctx, k, start(), Limits()); err != nil && r != (greylist.Record{}) {
		t.Errorf("an error with an answer: %+v, %v", r, err)
	}
	if err := s.Walk(ctx, func(greylist.Entry) error { return nil }); err == nil {
		t.Error("Walk went on after its context had ended")
	}
}

// oneFirstAmongMany tests simultaneous sightings: there must be one new triplet and
// one first pass.
func oneFirstAmongMany(t *testing.T, s Subject) {
	l, at := Limits(), start()
	k := key("example.org", "192.0.2.0/24")
	for round, why := range []greylist.Why{greylist.New, greylist.Waited} {
		var mu sync.Mutex
		got := map[greylist.Why]int{}
		var wg sync.WaitGroup
		for i := range 32 {
			wg.Go(func() {
				mine := k
				if i%2 == 0 {
					mine.Network = fmt.Sprintf("198.51.%d.0/24", i)
				}
				at := at.Add(time.Duration(round) * l.Delay)
				r, err := s.Seen(t.Context(), mine, at, l)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				got[greylist.Decide(r, at, l).Why]++
			})
		}
		wg.Wait()
		if got[why] != 1 {
			t.Errorf("round %d: %v", round, got)
		}
	}
}

// mostRepeats is how many sightings of a history may be applied twice, as a store on a
// server does when it has sent one again because no answer came.
const mostRepeats = 2

// asTheModel compares a store with the model over long random histories.
func asTheModel(t *testing.T, s Subject) {
	repeats := 0
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	m := newModel()
	at := start()
	for step := range 2000 {
		at = at.Add(jump(random))
		k, l := anyKey(random), anyLimits(random)
		if random.IntN(4) == 0 {
			if err := s.Credit(t.Context(), k.Creditor(), at); err != nil {
				t.Fatal(err)
			}
			m.credit(k.Creditor(), at)
			continue
		}
		got, err := s.Seen(t.Context(), k, at, l)
		wanted := m.seen(k, at, l)
		if err == nil && got != wanted && repeats < mostRepeats && got == m.seen(k, at, l) {
			repeats++
			t.Logf("seed %d, step %d: the sighting was applied twice", seed, step)
			continue
		}
		if err != nil || got != wanted {
			t.Fatalf("seed %d, step %d, %s, %+v:\ngot  %+v, %v\nwant %+v", seed, step, at, k, got, err, wanted)
		}
	}
	got := entries(t, s)
	for id, e := range m.entries {
		if got[id] != e {
			t.Errorf("seed %d: %s: got %+v, want %+v", seed, id, got[id], e)
		}
	}
	if len(got) != len(m.entries) {
		t.Errorf("seed %d: %d entries, want %d", seed, len(got), len(m.entries))
	}
}

func jump(r *rand.Rand) time.Duration {
	return []time.Duration{time.Second, 50 * time.Second, 20 * time.Minute, -3 * time.Minute, time.Hour}[r.IntN(5)]
}

func anyKey(r *rand.Rand) greylist.Key {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	k := greylist.NewKey(pick("", "example.org", "example.com"), pick("", "example.org"),
		pick("192.0.2.0/24", "2001:db8::/64"), pick("a@example.org", greylist.NullSender), pick("b@example.net", "c@example.net"))
	if k.Domain != "" {
		k.Claimed = k.Domain
	}
	return k
}

func anyLimits(r *rand.Rand) greylist.Limits {
	l := Limits()
	l.NetworkCap = []int{0, 1, 5}[r.IntN(3)]
	l.AllowAfter = []int{0, 2, 50}[r.IntN(3)]
	l.AllowTTL = []time.Duration{time.Hour, 90 * time.Minute}[r.IntN(2)]
	l.PassTTL = []time.Duration{time.Hour, 35 * 24 * time.Hour}[r.IntN(2)]
	l.RetryWindow = []time.Duration{10 * time.Minute, time.Hour}[r.IntN(2)]
	l.Full = r.IntN(10) == 0
	return l
}
