package milterd

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-mail/postern/milter/sign"
)

// signedCounters count mails that were signed:
//
//	postern_dkim_fragile_total{cause}     whose signature will break on the way
//	postern_dkim_selfcheck_total{result}  whose signature was verified before it left
type signedCounters struct{ fragile, selfCheck *prometheus.CounterVec }

func newSignedCounters() *signedCounters {
	c := &signedCounters{
		fragile: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_dkim_fragile_total",
			Help: "Signed mails whose signature will not survive the way to every receiver, by what breaks it.",
		}, []string{"cause"}),
		selfCheck: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_dkim_selfcheck_total",
			Help: "Signed mails that were verified before they left, by what came of it.",
		}, []string{"result"}),
	}
	for _, cause := range sign.Causes() {
		c.fragile.WithLabelValues(string(cause))
	}
	for _, result := range []string{"pass", "fail"} {
		c.selfCheck.WithLabelValues(result)
	}
	return c
}

func (c *signedCounters) collectors() []prometheus.Collector {
	return []prometheus.Collector{c.fragile, c.selfCheck}
}

func (c *signedCounters) observe(r *sign.Outcome) {
	for _, cause := range r.Fragile {
		c.fragile.WithLabelValues(string(cause)).Inc()
	}
	switch {
	case r.CheckErr != nil:
		c.selfCheck.WithLabelValues("fail").Inc()
	case r.Checked:
		c.selfCheck.WithLabelValues("pass").Inc()
	}
}

// countSigned returns a function that counts mails that were signed.
func countSigned(n *needs) (func(*sign.Outcome), error) {
	c, err := keepCounters(n, newSignedCounters)
	if err != nil {
		return nil, err
	}
	return c.observe, nil
}
