package policyd

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/service"
)

// Both losses of a Redis are counted, and the log tells them apart.
func TestReportLoss(t *testing.T) {
	core, logs := observer.New(zap.ErrorLevel)
	m := metrics.New(metrics.Options{})
	report := reportLoss(service.Runtime{Log: zap.New(core), Metrics: m}, "limit", "counts begin at 0", "block those logins again, and ")
	report(0)
	report(time.Hour)
	all := logs.All()
	if len(all) != 2 || !strings.Contains(all[0].Message, "counts begin at 0: it was restarted without its data") {
		t.Fatalf("logged %v", all)
	}
	if !strings.Contains(all[1].Message, "a snapshot was restored") || !strings.Contains(all[1].Message, "block those logins again") || all[1].ContextMap()["at_least"] != time.Hour {
		t.Errorf("logged %v", all[1])
	}
	const want = `
# HELP postern_store_losses_total How often a store's Redis server had lost what it kept.
# TYPE postern_store_losses_total counter
postern_store_losses_total{store="limit"} 2
`
	if err := testutil.GatherAndCompare(m.Gatherer(), strings.NewReader(want), "postern_store_losses_total"); err != nil {
		t.Error(err)
	}
}
