package redisstore_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/limit"
	"github.com/postern-mail/postern/internal/limit/redisstore"
	"github.com/postern-mail/postern/internal/limit/storetest"
	"github.com/postern-mail/postern/internal/store/redistest"
)

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
		return open(t, redisstore.Options{URL: url + mark + "prefix=test" + strconv.Itoa(n), CallerClock: true})
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

// Two daemons on one server hold one limit.
func TestTwoDaemons(t *testing.T) {
	redistest.Require(t)
	url := "redis://" + redistest.Start(t).Addr
	for _, reserve := range []bool{true, false} {
		o := redisstore.Options{URL: url + "?prefix=r" + strconv.FormatBool(reserve), CallerClock: true}
		storetest.Crowd(t, []limit.Store{open(t, o), open(t, o)}, reserve)
	}
}
