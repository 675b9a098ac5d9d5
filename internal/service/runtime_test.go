package service

import (
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/logging"
	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/record"
)

// onWrite is a log that calls a function for each line.
type onWrite func()

func (w onWrite) Write(line []byte) (int, error) {
	w()
	return len(line), nil
}

// Who has read a record in the log finds it counted and remembered.
func TestRecordIsLoggedLast(t *testing.T) {
	d := &running[*gateState]{metrics: metrics.New(metrics.Options{}), recent: newRecent()}
	lines := 0
	var err error
	d.log, err = logging.Open(logging.Options{Err: onWrite(func() {
		lines++
		if n := decisions(t, d.metrics); n != 1 {
			t.Errorf("%v decisions are counted", n)
		}
		if ids, _ := shown(t, d.recent, t.Context(), api.LogArgs{}); ids != "A" {
			t.Errorf("%q is remembered", ids)
		}
	})})
	if err != nil {
		t.Fatal(err)
	}
	d.runtime().Records.Record(&record.Record{Daemon: "gate", Verdict: "pass", QueueID: "A"}, time.Now())
	if lines != 1 {
		t.Errorf("%d lines were logged", lines)
	}
}

// decisions returns how many decisions have been counted.
func decisions(t *testing.T, m *metrics.Metrics) (n float64) {
	t.Helper()
	families, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "postern_decisions_total" {
			continue
		}
		for _, series := range family.GetMetric() {
			n += series.GetCounter().GetValue()
		}
	}
	return n
}
