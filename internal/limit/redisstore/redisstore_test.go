package redisstore_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postern-mail/postern/internal/limit"
	"github.com/postern-mail/postern/internal/limit/redisstore"
	"github.com/postern-mail/postern/internal/limit/storetest"
	"github.com/postern-mail/postern/internal/store/redistest"
)

// patience is how long a store waits for its server where the server answers: all packages
// of tests run at the same time, and a machine may be busy for longer than a daemon waits.
const patience = time.Minute

func open(t testing.TB, o redisstore.Options) *redisstore.Store {
	t.Helper()
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
	storetest.Run(t, func(t *testing.T) limit.Store {
		n++
		mark := "?"
		if strings.Contains(url, "?") {
			mark = "&"
		}
		return open(t, redisstore.Options{URL: url + mark + "prefix=test" + strconv.Itoa(n), CallerClock: true, Timeout: patience})
	})
}

func TestSingle(t *testing.T) {
	redistest.Require(t)
	conform(t, "redis://"+redistest.Start(t).Addr)
}

func TestCluster(t *testing.T) {
	redistest.Require(t)
	conform(t, redistest.StartCluster(t).URL())
}

// TestLost empties a server: the next probe reports it, once.
func TestLost(t *testing.T) {
	redistest.Require(t)
	server, losses := redistest.Start(t), 0
	s := open(t, redisstore.Options{URL: "redis://" + server.Addr, Timeout: patience, Lost: func(time.Duration) { losses++ }})
	for _, command := range []string{"ping", "flushall", "ping", "ping"} {
		if err := s.Probe(t.Context()); err != nil {
			t.Fatal(err)
		}
		server.Command(command)
	}
	if losses != 1 {
		t.Errorf("%d losses", losses)
	}
}

// Two daemons on one server hold one limit.
func TestTwoDaemons(t *testing.T) {
	redistest.Require(t)
	url := "redis://" + redistest.Start(t).Addr
	for _, reserve := range []bool{true, false} {
		o := redisstore.Options{URL: url + "?prefix=r" + strconv.FormatBool(reserve), CallerClock: true, Timeout: patience}
		storetest.Crowd(t, []limit.Store{open(t, o), open(t, o)}, reserve)
	}
}

func TestSentinel(t *testing.T) {
	redistest.Require(t)
	conform(t, redistest.StartSentinels(t).URL())
}

// The counters of strangers are bounded, apart from those of logins, and the one that
// has counted most stays.
func TestBudget(t *testing.T) {
	redistest.Require(t)
	const most, senders = 50, 400
	s := open(t, redisstore.Options{URL: "redis://" + redistest.Start(t).Addr, CallerClock: true, Timeout: patience, Strangers: most})
	login := &limit.Rule{Key: limit.Login, Unit: limit.Recipients, Count: 5, Window: time.Hour}
	sender := &limit.Rule{Key: limit.Sender, Unit: limit.Recipients, Count: 100, Window: time.Hour}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	take := func(r *limit.Rule, value, txn string, amount int64) bool {
		t.Helper()
		at = at.Add(time.Millisecond)
		a, err := s.Take(t.Context(), &limit.Op{Step: limit.End, Txn: limit.DigestOf([]byte(txn)), Now: at, Items: []limit.Item{{ID: limit.CounterID(r, value), Rule: r, Amount: amount}}})
		if err != nil {
			t.Fatal(err)
		}
		return a.Refused
	}
	take(login, "bob", "a", 5)
	take(sender, "heavy", "b", 100)
	for i := range senders {
		take(sender, "s"+strconv.Itoa(i), "t"+strconv.Itoa(i), 1)
	}
	if !take(login, "bob", "c", 1) || !take(sender, "heavy", "d", 1) {
		t.Error("a count that must stay was forgotten")
	}
	n := 0
	if err := s.Counters(t.Context(), "sender.", at, func(limit.Counter) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	if n > most || n < most-1 {
		t.Errorf("%d counters of strangers", n)
	}
}

// Each step of a mail is one call of the server, whatever it touches.
func TestOneCall(t *testing.T) {
	redistest.Require(t)
	url := "redis://" + redistest.Start(t).Addr
	s := open(t, redisstore.Options{URL: url, Timeout: patience})
	options, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	defer func() { _ = client.Close() }()
	hour := &limit.Rule{Key: limit.Login, Unit: limit.Recipients, Count: 1000, Window: time.Hour}
	day := &limit.Rule{Key: limit.Login, Unit: limit.Recipients, Count: 2000, Window: 24 * time.Hour}
	const mails = 20
	for i := range mails + 1 {
		if _, err := s.Take(t.Context(), &limit.Op{Txn: limit.DigestOf([]byte(strconv.Itoa(i))), Part: limit.Digest{1}, Reserve: true, Now: time.Now(), Items: []limit.Item{
			{ID: limit.CounterID(hour, "bob"), Rule: hour, Amount: 1}, {ID: limit.CounterID(day, "bob"), Rule: day, Amount: 1},
		}}); err != nil {
			t.Fatal(err)
		}
		if i == 0 { // the first has the script loaded
			if err := client.ConfigResetStat(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	info, err := client.Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(info, "cmdstat_evalsha:calls="+strconv.Itoa(mails)+",") {
		t.Errorf("%s", info)
	}
}
