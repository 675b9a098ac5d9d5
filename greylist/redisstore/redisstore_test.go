package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/greylist/redisstore"
	"github.com/postern-mail/postern/greylist/storetest"
	"github.com/postern-mail/postern/internal/store/redisclient"
	"github.com/postern-mail/postern/internal/store/redistest"
)

// open opens a store that waits for its server however busy the machine is: all packages of
// tests run at the same time.
func open(t testing.TB, url, password string) *redisstore.Store {
	t.Helper()
	return openWith(t, redisstore.Options{URL: url, Password: password, Timeout: time.Minute})
}

// openHasty opens a store that gives up as soon as it does in a daemon, for a server that
// will not answer.
func openHasty(t testing.TB, url, password string) *redisstore.Store {
	t.Helper()
	return openWith(t, redisstore.Options{URL: url, Password: password})
}

func openWith(t testing.TB, o redisstore.Options) *redisstore.Store {
	t.Helper()
	o.CallerClock = true
	s, err := redisstore.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// conform runs the suite, every test with keys of its own.
func conform(t *testing.T, url string) {
	n := 0
	storetest.Run(t, func(t *testing.T) storetest.Subject {
		n++
		settings := "?prefix=test" + strconv.Itoa(n)
		if strings.Contains(url, "?") {
			settings = "&" + settings[1:]
		}
		return open(t, url+settings, "")
	})
}

func TestConformanceMiniredis(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Subject {
		return open(t, "redis://"+miniredis.RunT(t).Addr(), "")
	})
}

func TestConformanceSingle(t *testing.T) {
	t.Parallel()
	conform(t, "redis://"+redistest.Start(t).Addr+"/3")
}

func TestConformanceSentinel(t *testing.T) {
	t.Parallel()
	conform(t, redistest.StartSentinels(t).URL())
}

func TestConformanceCluster(t *testing.T) {
	t.Parallel()
	conform(t, redistest.StartCluster(t).URL())
}

func limits() greylist.Limits { return storetest.Limits() }

func key(i int) greylist.Key {
	return greylist.NewKey("example.org", "example.org", fmt.Sprintf("192.0.%d.0/24", i%250), fmt.Sprint(i, "x@example.org"), "bob@example.net")
}

func at() time.Time { return time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC) }

func TestKeysExpire(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, "redis://"+server.Addr, "")
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer client.Close()
	l := limits()
	s.SetLimits(l)
	ctx := t.Context()
	k := key(1)
	check := func(name string, low, high time.Duration) {
		t.Helper()
		ttl, err := client.PTTL(ctx, name).Result()
		if err != nil || ttl < low || ttl > high {
			t.Errorf("%s expires in %v, %v; want %v to %v", name, ttl, err, low, high)
		}
	}
	see(t, s, k, at())
	check("{postern}:t2:"+string(k.ByDomain()), l.RetryWindow, 2*l.RetryWindow)
	check("{postern}:n:"+k.Window(), time.Hour, 2*time.Hour)
	see(t, s, k, at().Add(l.Delay))
	check("{postern}:t2:"+string(k.ByDomain()), l.PassTTL, 2*l.PassTTL)
	check("{postern}:t2:"+string(k.ByNetwork()), l.PassTTL, 2*l.PassTTL)
	if err := s.Credit(ctx, k.Creditor(), at()); err != nil {
		t.Fatal(err)
	}
	check("{postern}:c:"+k.Creditor(), l.AllowTTL, 2*l.AllowTTL)
	byHand := greylist.Entry{ID: greylist.ID(k.Creditor()), Client: greylist.Client{Manual: true}}
	if err := s.Put(ctx, []greylist.Entry{byHand}); err != nil {
		t.Fatal(err)
	}
	check("{postern}:c:"+k.Creditor(), -1, -1)
}

func see(t *testing.T, s greylist.Store, k greylist.Key, now time.Time) greylist.Outcome {
	t.Helper()
	r, err := s.Seen(t.Context(), k, now, limits())
	if err != nil {
		t.Fatal(err)
	}
	return greylist.Decide(r, now, limits())
}

// TestServersClock has hosts whose own clocks are wrong: they are judged by the
// server's, and harm no one.
func TestServersClock(t *testing.T) {
	server := miniredis.RunT(t)
	now := at()
	server.SetTime(now)
	host := func() *redisstore.Store {
		s, err := redisstore.Open(redisstore.Options{URL: "redis://" + server.Addr()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	l := limits()
	see := func(s *redisstore.Store, clock time.Time) greylist.Outcome {
		t.Helper()
		r, err := s.Seen(t.Context(), key(1), clock, l)
		if err != nil {
			t.Fatal(err)
		}
		return greylist.Decide(r, clock, l)
	}
	dead, ahead := time.Unix(7, 0), at().Add(10*365*24*time.Hour)
	if o := see(host(), dead); o.Why != greylist.New {
		t.Errorf("a host whose clock has stopped: %+v", o)
	}
	server.SetTime(now.Add(l.Delay + 30*time.Second)) // a busy machine reads the clock late
	if o := see(host(), ahead); o.Why != greylist.Waited || o.Waited > l.Delay+time.Minute {
		t.Errorf("a host whose clock is ahead: %+v", o)
	}
	good := host()
	if o := see(good, now.Add(l.Delay+time.Minute)); o.Why != greylist.Known {
		t.Errorf("a host whose clock is right: %+v", o)
	}
	r, err := good.Peek(t.Context(), key(1))
	if last := r.ByNetwork.Last.Time(); err != nil || last.Before(now.Add(l.Delay)) || last.After(now.Add(l.Delay+time.Minute)) {
		t.Errorf("last seen %v, %v", last, err)
	}
	if err := good.Credit(t.Context(), "example.org@192.0.1.0/24", dead); err != nil {
		t.Fatal(err)
	}
	if r, err = good.Peek(t.Context(), key(1)); err != nil || r.DomainClient.Last.Time().Before(now) {
		t.Errorf("credit: %+v, %v", r.DomainClient, err)
	}
}

// TestOlderScheme takes over what a release with the first scheme has written.
func TestOlderScheme(t *testing.T) {
	server := redistest.Start(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer client.Close()
	first := at().UnixMilli()
	old := func(id, value string) {
		t.Helper()
		if err := client.Set(t.Context(), "{postern}:t:"+id, value, time.Hour*1000).Err(); err != nil {
			t.Fatal(err)
		}
	}
	const n = 1200 // more than one round trip
	for i := range n {
		old(fmt.Sprintf("192.0.2.0/24 s%dx@example.org bob@example.net", i), fmt.Sprintf("%d %d 0", first, first))
	}
	old("192.0.2.0/24 b.q7w8e9r0t1y2@news.example bob@example.net", fmt.Sprintf("%d %d 0", first, first))
	old("192.0.2.0/24 b.z9x8c7v6b5n4@news.example bob@example.net", fmt.Sprintf("%d %d %d", first-5, first, first))
	s := open(t, "redis://"+server.Addr, "")
	for i, want := range []int{n + 2, 0} {
		if got, err := s.Migrate(t.Context()); got != want || err != nil {
			t.Errorf("time %d: %d, %v; want %d", i, got, err, want)
		}
	}
	k := greylist.NewKey("", "", "192.0.2.0/24", greylist.Sender("s7x", "example.org"), "bob@example.net")
	if o := see(t, s, k, at().Add(limits().Delay)); o.Why != greylist.Waited {
		t.Errorf("a sender that stays as it is: %+v", o)
	}
	k.Sender = greylist.Sender("b.a1s2d3f4g5h6", "news.example")
	if o := see(t, s, k, at().Add(time.Hour)); o.Why != greylist.Known {
		t.Errorf("one that is masked now: %+v", o)
	}
	if ttl, err := client.TTL(t.Context(), "{postern}:t:192.0.2.0/24 s7x@example.org bob@example.net").Result(); err != nil || ttl > 24*time.Hour {
		t.Errorf("the old key stays %v, %v", ttl, err)
	}
}

// TestStrangeValues finds values under its keys that it has not written: it says
// so, and decides nothing by them.
func TestStrangeValues(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, "redis://"+server.Addr, "")
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer client.Close()
	k := key(1)
	for _, name := range []string{"t2:" + string(k.ByNetwork()), "t2:" + string(k.ByDomain()), "c:" + k.Network, "c:" + string(k.DomainClient())} {
		for _, value := range []string{"x", "1", "1 2", "a b c 1", "1 2 3 4", "1;2;3"} {
			if err := client.Set(t.Context(), "{postern}:"+name, value, 0).Err(); err != nil {
				t.Fatal(err)
			}
			if r, err := s.Seen(t.Context(), k, at(), limits()); err == nil || !strings.Contains(err.Error(), "another release") {
				t.Errorf("%s is %q: %+v, %v", name, value, r, err)
			}
		}
		if err := client.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	see(t, s, k, at())
}

// TestScriptsForgotten has a server that forgets the scripts.
func TestScriptsForgotten(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, "redis://"+server.Addr, "")
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer client.Close()
	for i, want := range []greylist.Why{greylist.New, greylist.Early, greylist.Waited} {
		if got := see(t, s, key(1), at().Add(time.Duration(i)*limits().Delay/2)); got.Why != want {
			t.Errorf("sighting %d: %v, want %v", i, got.Why, want)
		}
		if err := client.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPassword(t *testing.T) {
	server := redistest.Start(t, "--requirepass", "s3cret")
	see(t, open(t, "redis://"+server.Addr, "s3cret"), key(1), at())
	_, err := open(t, "redis://"+server.Addr, "wr0ng").Seen(t.Context(), key(1), at(), limits())
	if err == nil || strings.Contains(err.Error(), "wr0ng") {
		t.Errorf("wrong password: %v", err)
	}
}

// TestServersOwnWords shows what a server says before the first command: to a
// sighting, to a probe, and to what an administrator asks.
func TestServersOwnWords(t *testing.T) {
	server := redistest.Start(t, "--requirepass", "s3cret")
	client := redis.NewClient(&redis.Options{Addr: server.Addr, Password: "s3cret"})
	defer client.Close()
	if err := client.Do(t.Context(), "acl", "setuser", "reader", "on", ">r", "~other:*", "+@all").Err(); err != nil {
		t.Fatal(err)
	}
	for url, test := range map[string]struct{ password, want string }{
		"redis://" + server.Addr:              {"wr0ng", "WRONGPASS"},
		"redis://" + server.Addr + "?":        {"", "NOAUTH"},
		"redis://" + server.Addr + "/99":      {"s3cret", "DB index is out of range"},
		"redis://reader@" + server.Addr:       {"r", "NOPERM"},
		"redis://nosuch@" + server.Addr:       {"r", "WRONGPASS"},
		"redis://reader@" + server.Addr + "?": {"wr0ng", "WRONGPASS"},
	} {
		s := open(t, url, test.password)
		_, seen := s.Seen(t.Context(), key(1), at(), limits())
		_, peeked := s.Peek(t.Context(), key(1))
		for what, err := range map[string]error{
			"Seen": seen, "Peek": peeked, "Probe": s.Probe(t.Context()), "Credit": s.Credit(t.Context(), "x", at()),
		} {
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "another form") {
				t.Errorf("%s, %s: %v, want %s", url, what, err, test.want)
			}
			if what != "Peek" && !errors.Is(err, greylist.ErrDenied) {
				t.Errorf("%s, %s: %v is not ErrDenied", url, what, err)
			}
		}
	}
	if err := open(t, "redis://"+server.Addr, "s3cret").Probe(t.Context()); err != nil {
		t.Errorf("the right password: %v", err)
	}
}

// TestRights gives users few rights. What denies a sighting denies the probe too:
// otherwise the store would count as up between two mails.
func TestRights(t *testing.T) {
	server := redistest.Start(t)
	admin := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer admin.Close()
	for name, c := range map[string]struct {
		rights string
		denied bool
	}{
		"manual":    {"~{postern}:* " + redisclient.Rights, false},
		"nowrite":   {"~{postern}:* +@read +@scripting +@connection +time", true},
		"noscript":  {"~{postern}:* +@read +@write +@connection +time", true},
		"noload":    {"~{postern}:* +@all -script", true},
		"notime":    {"~{postern}:* +@all -time", true},
		"otherkeys": {"~{other}:* +@all", true},
	} {
		args := []any{"acl", "setuser", name, "on", ">secret"}
		for right := range strings.FieldsSeq(c.rights) {
			args = append(args, right)
		}
		if err := admin.Do(t.Context(), args...).Err(); err != nil {
			t.Fatal(err)
		}
		if err := admin.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		s, err := redisstore.Open(redisstore.Options{URL: "redis://" + name + "@" + server.Addr, Password: "secret"})
		if err != nil {
			t.Fatal(err)
		}
		_, seen := s.Seen(t.Context(), key(1), at(), limits())
		for what, err := range map[string]error{"Seen": seen, "Probe": s.Probe(t.Context())} {
			if errors.Is(err, greylist.ErrDenied) != c.denied || (err != nil) != c.denied {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestLost empties a server: the next probe of each host reports it, once.
func TestLost(t *testing.T) {
	server, losses := redistest.Start(t), [2]int{}
	var hosts [2]*redisstore.Store
	for i := range hosts {
		s, err := redisstore.Open(redisstore.Options{URL: "redis://" + server.Addr, Lost: func(time.Duration) { losses[i]++ }})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		hosts[i] = s
	}
	for _, command := range []string{"ping", "flushall", "ping", "ping"} {
		for _, s := range hosts {
			if err := s.Probe(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		server.Command(command)
	}
	if losses != [2]int{1, 1} {
		t.Errorf("losses %v", losses)
	}
}

// TestOlderData restarts a server with the data of an hour ago: the next probe of each host
// reports it, once, and how much is lost.
func TestOlderData(t *testing.T) {
	dir := t.TempDir()
	server, lost := redistest.Start(t, "--dir", dir, "--save", "3600 1"), [2][]time.Duration{}
	var hosts [2]*redisstore.Store
	for i := range hosts {
		s, err := redisstore.Open(redisstore.Options{URL: "redis://" + server.Addr, Lost: func(span time.Duration) { lost[i] = append(lost[i], span) }})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		hosts[i] = s
	}
	probe := func() {
		t.Helper()
		for _, s := range hosts {
			if err := s.Probe(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	probe()
	server.Command("save")
	probe()
	server.Kill()
	server = server.Restart("--dir", dir)
	probe()
	if fmt.Sprint(lost) != "[[] []]" {
		t.Errorf("the data of a moment ago: lost %v", lost)
	}
	// What a snapshot of an hour ago has: each host has not probed since.
	server.Command("eval", "for _, key in ipairs(redis.call('KEYS', '{postern}:stamp:*')) do redis.call('DECRBY', key, 3600) end", "0")
	server.Command("save")
	server.Kill()
	server.Restart("--dir", dir)
	probe()
	probe()
	for _, host := range lost {
		if len(host) != 1 || (host[0]-time.Hour).Abs() > time.Minute {
			t.Errorf("the data of an hour ago: lost %v", lost)
		}
	}
}

// TestReplica asks a server that does not write: who has passed gets an answer.
func TestReplica(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, "redis://"+server.Addr, "")
	see(t, s, key(1), at())
	see(t, s, key(1), at().Add(limits().Delay))
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer client.Close()
	if err := client.ConfigSet(t.Context(), "min-replicas-to-write", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Seen(t.Context(), key(2), at(), limits()); !errors.Is(err, greylist.ErrFull) {
		t.Errorf("a stranger: %v", err)
	}
	if o := see(t, s, key(1), at().Add(time.Hour)); o.Why != greylist.Known {
		t.Errorf("one that has passed: %+v", o)
	}
}

// within runs f and reports an answer that comes later than an operation may
// take. The bound is the store's own, with room for a busy machine.
func within(t *testing.T, f func(ctx context.Context)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	f(ctx)
	if ctx.Err() != nil {
		t.Error("the operation outlasted its deadline")
	}
}

func TestPaused(t *testing.T) {
	server := redistest.Start(t)
	s := openHasty(t, "redis://"+server.Addr, "")
	see(t, s, key(1), at())
	server.Pause()
	within(t, func(ctx context.Context) {
		if r, err := s.Seen(ctx, key(1), at().Add(time.Hour), limits()); err == nil {
			t.Errorf("a paused server answered %+v", r)
		}
	})
	server.Resume()
	eventually(t, func() error {
		_, err := s.Seen(t.Context(), key(2), at(), limits())
		return err
	})
	// The sighting that was given up may have been made, once the server woke.
	if o := see(t, s, key(1), at().Add(time.Hour)); !o.Pass() {
		t.Errorf("after the pause: %+v", o)
	}
}

// eventually tries until f succeeds; the test's own end bounds it.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	var err error
	for t.Context().Err() == nil {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

func TestKilled(t *testing.T) {
	server := redistest.Start(t)
	s := openHasty(t, "redis://"+server.Addr, "")
	see(t, s, key(1), at())
	server.Kill()
	within(t, func(ctx context.Context) {
		if r, err := s.Seen(ctx, key(1), at().Add(time.Hour), limits()); err == nil {
			t.Errorf("a dead server answered %+v", r)
		}
	})
	server.Restart()
	eventually(t, func() error {
		_, err := s.Seen(t.Context(), key(1), at(), limits())
		return err
	})
	// The script has to be loaded anew, too.
	if err := s.Put(t.Context(), []greylist.Entry{{ID: key(2).ByNetwork()}}); err != nil {
		t.Error(err)
	}
}

func TestFull(t *testing.T) {
	server := redistest.Start(t, "--maxmemory", "4mb", "--maxmemory-policy", "noeviction")
	s := open(t, "redis://"+server.Addr, "")
	l := limits()
	known, waiting := key(1), key(2)
	see(t, s, known, at())
	see(t, s, known, at().Add(l.Delay))
	see(t, s, waiting, at())
	var full error
	l.NetworkCap = 0 // they are of one domain
	for i := 3; full == nil; i++ {
		_, full = s.Seen(t.Context(), key(i), at(), l)
	}
	if !errors.Is(full, greylist.ErrFull) || !strings.Contains(full.Error(), "OOM ") {
		t.Errorf("full: %v", full)
	}
	if o := see(t, s, known, at().Add(time.Hour)); o.Why != greylist.Known {
		t.Errorf("known, while full: %+v", o)
	}
	// What cannot be recorded is no answer: the rule for failures applies.
	if r, err := s.Seen(t.Context(), waiting, at().Add(l.Delay), l); err == nil {
		t.Errorf("waiting, while full: %+v", r)
	}
	// Without any mail, the probes notice that it is full, and that it is not any more.
	changes := make(chan greylist.Health, 10)
	b := greylist.NewBreaker(s, time.Now, func(h greylist.Health, _ error) { changes <- h })
	for _, want := range []greylist.Health{greylist.Full, greylist.Healthy} {
		ctx, stop := context.WithCancel(t.Context())
		watched := make(chan struct{})
		go func() { b.Watch(ctx); close(watched) }()
		select {
		case h := <-changes:
			if h != want {
				t.Errorf("health %v, want %v", h, want)
			}
		case <-t.Context().Done():
			t.Errorf("health %v was not noticed", want)
		}
		stop()
		<-watched
		server.Command("config", "set", "maxmemory", "0")
	}
}

func TestSentinelFailover(t *testing.T) {
	servers := redistest.StartSentinels(t)
	s := openHasty(t, servers.URL(), "")
	l := limits()
	see(t, s, key(1), at())
	see(t, s, key(1), at().Add(l.Delay))
	waitForReplica(t, servers.Master.Addr)
	servers.Master.Kill()
	within(t, func(ctx context.Context) {
		if r, err := s.Seen(ctx, key(2), at(), l); err == nil {
			t.Errorf("a dead master answered %+v", r)
		}
	})
	servers.Watchers[0].Await("+switch-master")
	eventually(t, func() error {
		_, err := s.Peek(t.Context(), key(1))
		return err
	})
	if o := see(t, s, key(1), at().Add(time.Hour)); o.Why != greylist.Known {
		t.Errorf("after the failover: %+v", o)
	}
}

// TestSentinelHostLost loses a host as by a power cut: neither the master nor the Sentinel
// that the client asks answers any more, and no connection is closed.
func TestSentinelHostLost(t *testing.T) {
	t.Parallel()
	servers := redistest.StartSentinels(t)
	// The client begins with this one, and learns of the others.
	s := openHasty(t, "redis+sentinel://"+servers.Watchers[0].Addr+"/"+servers.Name, "")
	l := limits()
	see(t, s, key(1), at())
	see(t, s, key(1), at().Add(l.Delay))
	waitForReplica(t, servers.Master.Addr)
	servers.Watchers[0].Pause()
	servers.Master.Pause()
	servers.Watchers[1].Await("+switch-master")
	eventually(t, func() error {
		_, err := s.Peek(t.Context(), key(1))
		return err
	})
	if o := see(t, s, key(1), at().Add(time.Hour)); o.Why != greylist.Known {
		t.Errorf("after the failover: %+v", o)
	}
}

// waitForReplica waits until a replica has all that was written. WAIT waits for what its
// own connection has written, so that it writes something first.
func waitForReplica(t *testing.T, master string) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: master})
	defer client.Close()
	conn := client.Conn()
	defer conn.Close()
	if err := conn.Set(t.Context(), "{postern}:wait", "", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Wait(t.Context(), 1, 0).Result(); err != nil || n < 1 {
		t.Fatalf("WAIT: %d, %v", n, err)
	}
}

// TestClusterNodeLoss kills a node of a Cluster whose user has no more rights than it needs.
func TestClusterNodeLoss(t *testing.T) {
	servers := redistest.StartCluster(t)
	for _, node := range servers.Nodes {
		node.Command(append([]string{"acl", "setuser", "postern", "on", ">secret"}, strings.Fields("~{postern}:* "+redisclient.Rights)...)...)
	}
	s := openHasty(t, strings.Replace(servers.URL(), "://", "://postern@", 1), "secret")
	l := limits()
	see(t, s, key(1), at())
	see(t, s, key(1), at().Add(l.Delay))
	if err := s.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	node := owner(t, servers)
	waitForReplica(t, node.Addr)
	node.Kill()
	within(t, func(ctx context.Context) {
		if r, err := s.Seen(ctx, key(2), at(), l); err == nil {
			t.Errorf("a dead node answered %+v", r)
		}
	})
	eventually(t, func() error {
		_, err := s.Peek(t.Context(), key(1))
		return err
	})
	if o := see(t, s, key(1), at().Add(time.Hour)); o.Why != greylist.Known {
		t.Errorf("after the failover: %+v", o)
	}
}

// owner is the master that has the store's keys.
func owner(t *testing.T, c *redistest.Cluster) *redistest.Server {
	t.Helper()
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{c.Nodes[0].Addr}})
	defer client.Close()
	node, err := client.MasterForKey(t.Context(), "{postern}:")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(node.Options().Addr)
	if err != nil {
		t.Fatal(err)
	}
	server := c.Find("127.0.0.1:" + port)
	if server == nil {
		t.Fatalf("no node at port %s", port)
	}
	return server
}

// TestBreakerReturns goes through the whole of an outage.
func TestBreakerReturns(t *testing.T) {
	server := redistest.Start(t)
	var mu sync.Mutex
	var changes []bool
	b := greylist.NewBreaker(openHasty(t, "redis://"+server.Addr, ""), time.Now, func(h greylist.Health, _ error) {
		mu.Lock()
		defer mu.Unlock()
		changes = append(changes, h == greylist.Down)
	})
	see(t, b, key(1), at())
	server.Kill()
	for {
		if _, err := b.Seen(t.Context(), key(1), at(), limits()); errors.Is(err, greylist.ErrUnavailable) {
			break
		} else if err == nil {
			t.Fatal("a dead server answered")
		}
	}
	server.Restart()
	eventually(t, func() error {
		_, err := b.Seen(t.Context(), key(1), at(), limits())
		return err
	})
	mu.Lock()
	defer mu.Unlock()
	if len(changes) != 2 || !changes[0] || changes[1] || b.Down() != nil {
		t.Errorf("changes: %v, down: %v", changes, b.Down())
	}
}
