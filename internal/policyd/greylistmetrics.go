package policyd

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-mail/postern/greylist"
)

// greylistCollector shows the store of the state in force.
type greylistCollector struct {
	current               *current
	up, writes, forgotten *prometheus.Desc
	waited                prometheus.Histogram // for its description only
}

func greylistMetrics(c *current) []prometheus.Collector {
	return []prometheus.Collector{greylistCollector{c,
		prometheus.NewDesc("postern_greylist_store_up", "1 while the greylist store answers, 0 while its breaker is open.", nil, nil),
		prometheus.NewDesc("postern_greylist_store_writes", "1 while the greylist store keeps what is new, 0 while its memory or disk is full or its file cannot be written.", nil, nil),
		prometheus.NewDesc("postern_greylist_forgotten_total", "Entries that were forgotten because greylist-memory is too small for all of the file; their senders wait once more.", nil, nil),
		newWaited(),
	}}
}

// newWaited returns the histogram of how long senders had waited when they first
// passed. It covers the shortest delay to the longest retry window.
func newWaited() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "postern_greylist_waited_seconds",
		Help:    "Time from the first try of a sender to the one that passed.",
		Buckets: []float64{60, 180, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400, 172800},
	})
}

// Describe implements prometheus.Collector.
func (c greylistCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.up
	ch <- c.writes
	ch <- c.forgotten
	c.waited.Describe(ch)
}

// Collect implements prometheus.Collector.
func (c greylistCollector) Collect(ch chan<- prometheus.Metric) {
	o, release := inForce[*greylistPart](c.current)
	if release == nil {
		return
	}
	defer release()
	ch <- prometheus.MustNewConstMetric(c.up, prometheus.GaugeValue, number(o.store.breaker.Health() != greylist.Down))
	ch <- prometheus.MustNewConstMetric(c.writes, prometheus.GaugeValue, number(o.store.writes()))
	ch <- prometheus.MustNewConstMetric(c.forgotten, prometheus.CounterValue, float64(o.store.forgotten()))
	o.store.waited.Collect(ch)
}
