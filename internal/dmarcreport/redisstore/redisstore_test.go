package redisstore_test

import (
	"strconv"
	"testing"

	"github.com/postern-mail/postern/internal/dmarcreport"
	"github.com/postern-mail/postern/internal/dmarcreport/redisstore"
	"github.com/postern-mail/postern/internal/dmarcreport/storetest"
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
