package greylist_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/greylist"
)

var epoch = time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)

func ago(d time.Duration) greylist.Stamp { return greylist.At(epoch.Add(-d)) }

func TestDecide(t *testing.T) {
	l := greylist.Limits{Delay: 3 * time.Minute, RetryWindow: 48 * time.Hour, PassTTL: 840 * time.Hour, AllowAfter: 5, AllowTTL: 840 * time.Hour}
	const never = time.Duration(-1)
	triplet := func(first, last, passed time.Duration) greylist.Triplet {
		r := greylist.Triplet{First: ago(first), Last: ago(last)}
		if passed != never {
			r.Passed = ago(passed)
		}
		return r
	}
	tests := []struct {
		name   string
		r      greylist.Record
		change func(*greylist.Limits)
		want   greylist.Outcome
	}{
		{"nothing known", greylist.Record{}, nil, greylist.Outcome{Why: greylist.New, Wait: 3 * time.Minute}},
		{"network flood", greylist.Record{Refused: greylist.NetworkFlooded}, nil, greylist.Outcome{Why: greylist.FloodNetwork, Wait: 3 * time.Minute}},
		{"daemon flood", greylist.Record{Refused: greylist.DaemonFlooded}, nil, greylist.Outcome{Why: greylist.FloodDaemon, Wait: 3 * time.Minute}},
		{"too early", greylist.Record{ByNetwork: triplet(time.Minute, time.Minute, never)}, nil,
			greylist.Outcome{Why: greylist.Early, Wait: 2 * time.Minute, Waited: time.Minute}},
		{"at the moment", greylist.Record{ByNetwork: triplet(3*time.Minute, time.Minute, never)}, nil, greylist.Outcome{Why: greylist.Waited, Waited: 3 * time.Minute}},
		{"older key counts", greylist.Record{ByDomain: triplet(time.Minute, 0, never), ByNetwork: triplet(4*time.Minute, 0, never)}, nil,
			greylist.Outcome{Why: greylist.Waited, Waited: 4 * time.Minute}},
		{"a forgotten key does not count", greylist.Record{ByDomain: triplet(time.Minute, 0, never), ByNetwork: triplet(49*time.Hour, 49*time.Hour, never)}, nil,
			greylist.Outcome{Why: greylist.Early, Wait: 2 * time.Minute, Waited: time.Minute}},
		{"known", greylist.Record{ByDomain: triplet(time.Hour, time.Minute, 2*time.Minute)}, nil, greylist.Outcome{Why: greylist.Known, Waited: time.Hour}},
		{"known of the other key", greylist.Record{ByDomain: triplet(0, 0, never), ByNetwork: triplet(time.Hour, 0, time.Minute)}, nil, greylist.Outcome{Why: greylist.Known, Waited: time.Hour}},
		{"future", greylist.Record{ByNetwork: triplet(-1000*time.Hour, -1000*time.Hour, never)}, nil, greylist.Outcome{Why: greylist.Early, Wait: 3 * time.Minute}},
		{"passed in the future", greylist.Record{ByNetwork: triplet(-1000*time.Hour, -1000*time.Hour, -1000*time.Hour)}, nil, greylist.Outcome{Why: greylist.Known}},
		{"credit", greylist.Record{DomainClient: greylist.Client{Passes: 5, Last: ago(time.Hour)}}, nil, greylist.Outcome{Why: greylist.AutoAllowed}},
		{"too little credit", greylist.Record{NetworkClient: greylist.Client{Passes: 4, Last: ago(time.Hour)}}, nil, greylist.Outcome{Why: greylist.New, Wait: 3 * time.Minute}},
		{"credit is off", greylist.Record{NetworkClient: greylist.Client{Passes: 9, Last: ago(time.Hour)}}, func(l *greylist.Limits) { l.AllowAfter = 0 }, greylist.Outcome{Why: greylist.New, Wait: 3 * time.Minute}},
		{"credit is old", greylist.Record{NetworkClient: greylist.Client{Passes: 9, Last: ago(841 * time.Hour)}}, nil, greylist.Outcome{Why: greylist.New, Wait: 3 * time.Minute}},
		{"by hand", greylist.Record{NetworkClient: greylist.Client{Manual: true}}, func(l *greylist.Limits) { l.AllowAfter = 0 }, greylist.Outcome{Why: greylist.AllowedByHand}},
	}
	for _, test := range tests {
		limits := l
		if test.change != nil {
			test.change(&limits)
		}
		if got := greylist.Decide(test.r, epoch, limits); got != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
}

func TestOutcome(t *testing.T) {
	for why := greylist.AllowedByHand; why <= greylist.FloodDaemon; why++ {
		if pass := (greylist.Outcome{Why: why}).Pass(); pass != (why < greylist.New) {
			t.Errorf("%d passes: %t", why, pass)
		}
	}
}

func TestNetwork(t *testing.T) {
	for _, test := range []struct {
		addr   string
		b4, b6 int
		want   string
	}{
		{"192.0.2.77", 24, 64, "192.0.2.0/24"},
		{"192.0.2.77", 32, 64, "192.0.2.77/32"},
		{"::ffff:192.0.2.77", 24, 64, "192.0.2.0/24"},
		{"2001:db8:1:2:3::4", 24, 64, "2001:db8:1:2::/64"},
		{"fe80::1%eth0", 24, 64, "fe80::/64"},
		{"192.0.2.77", 99, 64, "192.0.2.77/32"},
	} {
		if got := greylist.Network(netip.MustParseAddr(test.addr), test.b4, test.b6); got != test.want {
			t.Errorf("%s: %s, want %s", test.addr, got, test.want)
		}
	}
}

func TestKey(t *testing.T) {
	k := greylist.NewKey("example.org", "example.org", "192.0.2.0/24", "a@example.org", "b@example.net")
	for _, test := range []struct{ got, want string }{
		{string(k.ByDomain()), "spf:example.org a@example.org b@example.net"},
		{string(k.ByNetwork()), "192.0.2.0/24 a@example.org b@example.net"},
		{string(k.DomainClient()), "example.org@192.0.2.0/24"},
		{string(k.NetworkClient()), "192.0.2.0/24"},
		{k.Creditor(), "example.org@192.0.2.0/24"},
		{k.Client(), "spf:example.org"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
	k.Domain = ""
	if k.Creditor() != "192.0.2.0/24" || k.Client() != "192.0.2.0/24" || k.ByDomain() != "" {
		t.Errorf("without a domain: %q %q %q", k.Creditor(), k.Client(), k.ByDomain())
	}
	long := strings.Repeat("x", 400)
	if a, b := greylist.NewKey("", "", "", long+"1", ""), greylist.NewKey("", "", "", long+"2", ""); a == b || len(a.Sender) > 320 {
		t.Errorf("long senders: %d octets, equal: %t", len(a.Sender), a == b)
	}
}

func TestFlood(t *testing.T) {
	f := greylist.NewFlood(60)
	now := epoch
	for i := range 60 {
		if f.Full(now) {
			t.Fatalf("full after %d", i)
		}
		f.Made()
	}
	if !f.Full(now) {
		t.Error("not full after 60")
	}
	if f.Full(now.Add(time.Minute)) {
		t.Error("nothing was refilled in a minute")
	}
	f.Made()
	if !f.Full(now.Add(time.Minute)) || !f.Full(now.Add(-time.Hour)) {
		t.Error("a minute refilled more than one, or a clock set back did")
	}
	f.SetCap(0)
	if f.Full(now) {
		t.Error("full without a bound")
	}
	f.SetCap(10)
	if f.Full(now) {
		t.Error("a new bound began empty")
	}
}

// fake is a store that fails as told.
type fake struct {
	record greylist.Record
	err    error
	asked  int
	block  chan struct{} // nil: answers at once
}

func (f *fake) Seen(context.Context, greylist.Key, time.Time, greylist.Limits) (greylist.Record, error) {
	f.asked++
	if f.block != nil {
		<-f.block
	}
	return f.record, f.err
}

func (f *fake) Credit(context.Context, string, time.Time) error { f.asked++; return f.err }

func (f *fake) Peek(context.Context, greylist.Key) (greylist.Record, error) {
	f.asked++
	return f.record, f.err
}

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("connection refused")
		store := &fake{}
		var changes []greylist.Health
		b := greylist.NewBreaker(store, time.Now, func(h greylist.Health, _ error) { changes = append(changes, h) })
		see := func() error {
			_, err := b.Seen(t.Context(), greylist.Key{}, time.Now(), greylist.Limits{})
			return err
		}
		// Two failures, a success, and those of callers that went away do not
		// open it.
		for _, err := range []error{down, down, nil, down, context.Canceled, greylist.ErrFull, down, down} {
			store.err = err
			if got := see(); !errors.Is(got, err) || errors.Is(got, greylist.ErrUnavailable) {
				t.Fatalf("closed: %v, want %v", got, err)
			}
		}
		store.err = down
		if err := see(); !errors.Is(err, down) || b.Down() == nil {
			t.Fatalf("third failure: %v, down: %v", err, b.Down())
		}
		asked := store.asked
		if err := b.Credit(t.Context(), "x", time.Now()); !errors.Is(err, greylist.ErrUnavailable) || !errors.Is(err, down) || store.asked != asked {
			t.Errorf("open: %v, asked %d times", err, store.asked-asked)
		}
		if _, err := b.Peek(t.Context(), greylist.Key{}); !errors.Is(err, down) || store.asked != asked+1 {
			t.Errorf("Peek while open: %v", err)
		}
		time.Sleep(time.Second) // of the fake clock
		if err := see(); errors.Is(err, greylist.ErrUnavailable) {
			t.Errorf("no try after a second: %v", err)
		}
		if err := see(); !errors.Is(err, greylist.ErrUnavailable) {
			t.Errorf("a second try at once: %v", err)
		}
		time.Sleep(time.Second)
		store.err = nil
		if err := see(); err != nil || b.Down() != nil {
			t.Errorf("back again: %v, %v", err, b.Down())
		}
		if want := []greylist.Health{greylist.Full, greylist.Down, greylist.Healthy}; !slices.Equal(changes, want) {
			t.Errorf("changes: %v, want %v", changes, want)
		}
	})
}

// TestBreakerFull has a store that takes nothing new: who has passed is let in, and
// it counts as full until it has taken something new again.
func TestBreakerFull(t *testing.T) {
	store := &fake{err: greylist.ErrFull}
	var changes []greylist.Health
	b := greylist.NewBreaker(store, time.Now, func(h greylist.Health, _ error) { changes = append(changes, h) })
	limits := greylist.Limits{Delay: time.Minute, RetryWindow: time.Hour, PassTTL: time.Hour}
	see := func() error {
		_, err := b.Seen(t.Context(), greylist.Key{}, epoch, limits)
		return err
	}
	for range 10 { // far more than open it
		if err := see(); !errors.Is(err, greylist.ErrFull) || errors.Is(err, greylist.ErrUnavailable) {
			t.Fatalf("a stranger: %v", err)
		}
	}
	store.err = nil
	store.record = greylist.Record{ByNetwork: greylist.Triplet{First: ago(time.Minute), Last: ago(time.Second), Passed: ago(time.Second)}}
	if err := see(); err != nil || b.Health() != greylist.Full {
		t.Errorf("one that has passed: %v, health %v", err, b.Health())
	}
	store.record = greylist.Record{}
	if err := see(); err != nil || b.Health() != greylist.Healthy {
		t.Errorf("a stranger again: %v, health %v", err, b.Health())
	}
	if want := []greylist.Health{greylist.Full, greylist.Healthy}; !slices.Equal(changes, want) {
		t.Errorf("changes: %v, want %v", changes, want)
	}
}

// probed is a store that is probed, with the error of the probe.
type probed struct {
	fake
	probe error
}

func (p *probed) Probe(context.Context) error { return p.probe }

// A store that is full when it comes back has not worked again in between, whoever finds
// it so: the probe or a request.
func TestBreakerBackFull(t *testing.T) {
	down := errors.New("connection refused")
	for name, back := range map[string]func(context.Context, *greylist.Breaker){
		"probe": func(ctx context.Context, b *greylist.Breaker) { b.Watch(ctx) },
		"request": func(ctx context.Context, b *greylist.Breaker) {
			_, _ = b.Seen(ctx, greylist.Key{}, time.Now(), greylist.Limits{})
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			store := &probed{probe: down}
			var changes []string
			b := greylist.NewBreaker(store, time.Now, func(h greylist.Health, err error) { changes = append(changes, fmt.Sprint(h, " ", err)) })
			ctx, end := context.WithTimeout(t.Context(), 4*time.Second) // of the fake clock
			b.Watch(ctx)
			end()
			store.err, store.probe = greylist.ErrFull, greylist.ErrFull
			time.Sleep(time.Second)
			ctx, end = context.WithTimeout(t.Context(), time.Second)
			defer end()
			back(ctx, b)
			want := fmt.Sprintf("[%d %v %d %v]", greylist.Down, down, greylist.Full, greylist.ErrFull)
			if fmt.Sprint(changes) != want {
				t.Errorf("%s: changes %v, want %s", name, changes, want)
			}
		})
	}
}

// A store that denies access is down at once.
func TestBreakerDenied(t *testing.T) {
	store := &fake{err: fmt.Errorf("%w: WRONGPASS", greylist.ErrDenied)}
	b := greylist.NewBreaker(store, time.Now, func(greylist.Health, error) {})
	_, _ = b.Seen(t.Context(), greylist.Key{}, epoch, greylist.Limits{})
	if err := b.Down(); !errors.Is(err, greylist.ErrDenied) || b.Health() != greylist.Down {
		t.Errorf("down: %v, health %v", err, b.Health())
	}
}

// TestBreakerOneTry has a try that hangs: no other joins it.
func TestBreakerOneTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fake{err: errors.New("down")}
		b := greylist.NewBreaker(store, time.Now, func(greylist.Health, error) {})
		see := func() error {
			_, err := b.Seen(t.Context(), greylist.Key{}, time.Now(), greylist.Limits{})
			return err
		}
		for range 3 {
			if see() == nil {
				t.Fatal("no failure")
			}
		}
		store.block = make(chan struct{})
		time.Sleep(time.Second)
		go see()
		synctest.Wait()
		time.Sleep(time.Minute)
		if err := see(); !errors.Is(err, greylist.ErrUnavailable) {
			t.Errorf("beside a try that hangs: %v", err)
		}
		close(store.block)
		synctest.Wait()
	})
}

func TestStamp(t *testing.T) {
	if greylist.At(time.Time{}) != 0 || !greylist.Stamp(0).Time().IsZero() || !greylist.At(epoch).Time().Equal(epoch) {
		t.Error("times do not survive")
	}
}
