package redisstore_test

import (
	"context"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/dmarcreport"
	"github.com/postern-mail/postern/internal/dmarcreport/redisstore"
	"github.com/postern-mail/postern/internal/dmarcreport/storetest"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
	"github.com/postern-mail/postern/internal/store/redistest"
)

func open(t *testing.T, url string) *redisstore.Store {
	t.Helper()
	// All packages of tests run at the same time: the machine may be busy for longer than a
	// daemon waits for its server.
	s, err := redisstore.Open(redisstore.Options{URL: url, Timeout: time.Minute})
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

func TestSingle(t *testing.T) {
	redistest.Require(t)
	n, url := 0, "redis://"+redistest.Start(t).Addr
	storetest.Run(t, func(t *testing.T) dmarcreport.Store {
		n++
		return open(t, url+"?prefix=test"+strconv.Itoa(n))
	})
}

func TestCluster(t *testing.T) {
	redistest.Require(t)
	n, url := 0, redistest.StartCluster(t).URL()
	storetest.Run(t, func(t *testing.T) dmarcreport.Store {
		n++
		return open(t, url+"?prefix=test"+strconv.Itoa(n))
	})
}

// TestTwice shows that a batch whose answer was lost, and which is sent again, counts
// once.
func TestTwice(t *testing.T) {
	redistest.Require(t)
	s := open(t, "redis://"+redistest.Start(t).Addr)
	b := &dmarcreport.Batch{ID: "1", Day: storetest.Day, Domain: "example.com", Rows: []dmarcreport.Counted{{Row: "a", Count: 3, Plain: true}}}
	for range 2 {
		if _, err := s.Add(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := s.Domains(t.Context(), storetest.Day); err != nil || len(list) != 1 || list[0].Messages != 3 {
		t.Error(list, err)
	}
	now := storetest.Day.End()
	if ok, err := s.SwapNote(t.Context(), dmarcreport.StateName(b.Day, b.Domain), "", "begun", now, now.Add(time.Hour)); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if _, err := s.Add(t.Context(), b); err != nil {
		t.Error("it was counted before the report was begun:", err)
	}
}

// TestPurgeByAWrongClock shows that a host whose clock is far ahead removes nothing that
// others need.
func TestPurgeByAWrongClock(t *testing.T) {
	redistest.Require(t)
	s, now := open(t, "redis://"+redistest.Start(t).Addr), time.Now()
	day := dmarcreport.DayOf(now) - 1
	b := &dmarcreport.Batch{ID: "1", Day: day, Domain: "example.com", Rows: []dmarcreport.Counted{{Row: "a", Count: 3, Plain: true}}}
	if _, err := s.Add(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if ok, err := s.SwapNote(t.Context(), "note", "", "text", now, now.Add(time.Hour)); !ok || err != nil {
		t.Fatal(ok, err)
	}
	ahead := now.AddDate(1, 0, 0)
	if err := s.Purge(t.Context(), dmarcreport.DayOf(ahead.Add(-dmarcreport.Retention)), ahead); err != nil {
		t.Fatal(err)
	}
	days, err := s.Days(t.Context())
	note, noteErr := s.Note(t.Context(), "note", now)
	if err != nil || noteErr != nil || len(days) != 1 || days[0] != day || note != "text" {
		t.Errorf("days %v, %v, note %q, %v", days, err, note, noteErr)
	}
}

// written is a store that sums up what is written into reports.
type written struct {
	dmarcreport.Store
	messages int64
}

func (w *written) Rows(ctx context.Context, day dmarcreport.Day, domain string, yield func(dmarcreport.Counted) error) error {
	return w.Store.Rows(ctx, day, domain, func(c dmarcreport.Counted) error {
		w.messages += c.Count
		return yield(c)
	})
}

// TestLateHosts has hosts count on one Redis while another one sends the reports of days
// that are over. Some rows come after the report of their day was begun. Each message is
// in one report.
func TestLateHosts(t *testing.T) {
	redistest.Require(t)
	const hosts, messages = 3, 200
	url := "redis://" + redistest.Start(t).Addr
	var now atomic.Int64
	now.Store(storetest.Day.Begin().Unix())
	clock := func() time.Time { return time.Unix(now.Add(1), 0) } // each look at it is a second later
	var counting sync.WaitGroup
	for host := range hosts {
		c := dmarcreport.NewCollector(open(t, url), clock, nil)
		counting.Go(func() {
			for i := range messages {
				c.Record("a.example", dmarcreport.Policy{P: "none"}, &dmarcreport.Row{Source: "192.0.2." + strconv.Itoa(host), HeaderFrom: "a.example"})
				if i%10 == 9 {
					now.Add(3600)
					if err := c.Flush(t.Context()); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	counted := make(chan struct{})
	go func() { counting.Wait(); close(counted) }()
	s, store := host(t, url, clock), &written{}
	store.Store, s.Store = s.Store, store
	for last := false; ; {
		if err := s.Send(t.Context(), dmarcreport.Selection{}); err != nil {
			t.Fatal(err)
		}
		if last {
			break
		}
		select {
		case <-counted:
			now.Add(3 * 86400)
			last = true
		default:
		}
	}
	if store.messages != hosts*messages {
		t.Errorf("%d messages were reported, not %d", store.messages, hosts*messages)
	}
}

// host returns a sender whose mails go nowhere.
func host(t *testing.T, url string, now func() time.Time) *dmarcreport.Sender {
	t.Helper()
	return &dmarcreport.Sender{
		Reporter: dmarcreport.Reporter{From: "reports@mx.example", Receiver: "mx.example"},
		Store:    open(t, url), Now: now,
		Resolver: resolvertest.NewZone(t, "_dmarc.a.example. IN TXT \"v=DMARC1; p=none; rua=mailto:x@a.example\"\n"),
		Sign: func(context.Context, []dmarcreport.Field, func(io.Writer) error) ([]dmarcreport.Field, error) {
			return nil, nil
		},
		Deliver: func(_ context.Context, _ dmarcreport.Envelope, write func(io.Writer) error) error {
			return write(io.Discard)
		},
	}
}

// TestTwoHosts shows that of two hosts on one Redis, which send at the same time, one
// sends each report.
func TestTwoHosts(t *testing.T) {
	redistest.Require(t)
	url := "redis://" + redistest.Start(t).Addr
	var mails atomic.Int32
	sender := func() *dmarcreport.Sender {
		s := host(t, url, func() time.Time { return storetest.Day.End().Add(time.Hour) })
		s.Deliver = func(_ context.Context, _ dmarcreport.Envelope, write func(io.Writer) error) error {
			mails.Add(1)
			return write(io.Discard)
		}
		return s
	}
	one, other := sender(), sender()
	b := &dmarcreport.Batch{ID: "1", Day: storetest.Day, Domain: "a.example", Policy: dmarcreport.Policy{P: "none"},
		Rows: []dmarcreport.Counted{{Row: `{"ip":"192.0.2.1","do":"none","hf":"a.example"}`, Count: 1, Plain: true}}}
	if _, err := one.Store.Add(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	var hosts sync.WaitGroup
	for range 5 {
		for _, s := range []*dmarcreport.Sender{one, other} {
			hosts.Go(func() {
				if err := s.Send(t.Context(), dmarcreport.Selection{Again: true}); err != nil {
					t.Error(err)
				}
			})
		}
	}
	hosts.Wait()
	if n := mails.Load(); n != 1 {
		t.Errorf("%d mails", n)
	}
}
