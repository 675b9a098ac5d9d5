package status

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
)

// sendersPage is the page of a daemon that answers one question.
func sendersPage(answer admin.Handler) *Server {
	return New(Options{
		Metrics: prometheus.NewRegistry(), Ready: func() (bool, string) { return true, "" },
		Commands: func() map[string]admin.Handler { return map[string]admin.Handler{api.DMARCSenders: answer} },
	})
}

// The page does not wait for a slow file, and goes on to show what it has.
func TestSendersDelayNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const took = 20 * time.Second
		s := sendersPage(func(context.Context, json.RawMessage, func(any)) (any, error) {
			time.Sleep(took)
			return &api.DMARCSendersResult{File: took.String()}, nil
		})
		snapshot := func() *api.DMARCSendersResult {
			t.Helper()
			began := time.Now()
			got := s.snapshot(began).Senders
			if waited := time.Since(began); waited > aboutWait {
				t.Errorf("the page waited %v", waited)
			}
			return got
		}
		if got := snapshot(); got != nil {
			t.Errorf("%+v", got)
		}
		time.Sleep(took + time.Second)
		first := snapshot() // and it is asked for again
		if first == nil || first.File != "20s" {
			t.Fatalf("%+v", first)
		}
		time.Sleep(took / 2)
		if got := snapshot(); got != first {
			t.Errorf("meanwhile %+v", got)
		}
		time.Sleep(took)
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// An answer that never comes does not keep the daemon from ending.
func TestShutdownWaitsForNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := make(chan struct{})
		s := sendersPage(func(context.Context, json.RawMessage, func(any)) (any, error) {
			<-disk
			return nil, errors.New("the disk is away")
		})
		s.snapshot(time.Now())
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		close(disk)
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestSendersAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			answer any
			err    error
			want   string
		}{
			{(*api.DMARCSendersResult)(nil), nil, "null"},
			{nil, errors.New("not today"), `{"file":"","since":"","error":"not today","domains":[]}`},
		} {
			s := sendersPage(func(context.Context, json.RawMessage, func(any)) (any, error) { return tt.answer, tt.err })
			s.snapshot(time.Now())
			synctest.Wait()
			if got, err := json.Marshal(s.snapshot(time.Now()).Senders); err != nil || string(got) != tt.want {
				t.Errorf("%s, want %s (%v)", got, tt.want, err)
			}
			if err := s.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
}
