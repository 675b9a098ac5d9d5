package milterd

import (
	"testing"

	"github.com/postern-mail/postern/internal/manual/manualtest"
	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/service"
)

// deploy/README.md lists every metric of this daemon, and no other.
func TestManualHasTheMetrics(t *testing.T) {
	m := metrics.New(manualtest.Options(daemonName))
	c := &current{new(service.Current[*state])}
	c.register(m)
	limited(m)
	counted(m)
	for _, c := range []counters{newDMARCCounters(), newSignedCounters(), newFromCounts()} {
		m.Registerer().MustRegister(c.collectors()...) // by the first state
	}
	manualtest.Metrics(t, daemonName, m)
}
