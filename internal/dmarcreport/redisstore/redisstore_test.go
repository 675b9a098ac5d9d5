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
	s, err := redisstore.Open(redisstore.Options{URL: url})
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
}

// TestTwoHosts shows that of two hosts on one Redis, which send at the same time, one
// sends each report.
func TestTwoHosts(t *testing.T) {
	redistest.Require(t)
	url := "redis://" + redistest.Start(t).Addr
	var mails atomic.Int32
	dns := resolvertest.NewZone(t, "_dmarc.a.example. IN TXT \"v=DMARC1; p=none; rua=mailto:x@a.example\"\n")
	host := func() *dmarcreport.Sender {
		return &dmarcreport.Sender{
			Reporter: dmarcreport.Reporter{From: "reports@mx.example", Receiver: "mx.example"},
			Store:    open(t, url), Resolver: dns,
			Now: func() time.Time { return storetest.Day.End().Add(time.Hour) },
			Sign: func(context.Context, []dmarcreport.Field, func(io.Writer) error) ([]dmarcreport.Field, error) {
				return nil, nil
			},
			Deliver: func(_ context.Context, _ dmarcreport.Envelope, write func(io.Writer) error) error {
				mails.Add(1)
				return write(io.Discard)
			},
		}
	}
	one, other := host(), host()
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
