package milterd

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-mail/postern/internal/dkim"
)

// publishedCollector shows the state of the keys in the DNS while they are watched
// (--dkim-require-dns):
//
//	postern_dkim_keys_published{dns}   verifies, testing, other, missing, unknown
type publishedCollector struct {
	current   *current
	published *prometheus.Desc
}

func newPublishedCollector(c *current) publishedCollector {
	return publishedCollector{c, prometheus.NewDesc("postern_dkim_keys_published", "Private keys, by what the DNS has of them.", []string{"dns"}, nil)}
}

// Describe implements prometheus.Collector.
func (c publishedCollector) Describe(out chan<- *prometheus.Desc) { out <- c.published }

// Collect implements prometheus.Collector.
func (c publishedCollector) Collect(out chan<- prometheus.Metric) {
	o, release := inForce[*signPart](c.current)
	if release == nil {
		return
	}
	defer release()
	if o.watch == nil {
		return
	}
	for state, keys := range o.watch.published() {
		out <- prometheus.MustNewConstMetric(c.published, prometheus.GaugeValue, float64(keys), state)
	}
}

// published counts the keys by their state in the DNS.
func (w *keyWatch) published() map[string]int {
	words := map[dkim.Published]string{
		dkim.Unpublished: "missing", dkim.PublishedSame: "verifies", dkim.PublishedTesting: "testing", dkim.PublishedOther: "other",
	}
	n := map[string]int{"unknown": 0}
	for _, word := range words {
		n[word] = 0
	}
	states := *w.states.Load()
	for _, key := range w.all.Signing() {
		if s := states[key]; s.asked {
			n[words[s.published]]++
		} else {
			n["unknown"]++
		}
	}
	return n
}
