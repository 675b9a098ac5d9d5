package milterd

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/milter/sign"
)

type fragileKey struct{}

// countFragile returns what counts mails whose signature will not survive the way:
//
//	postern_dkim_fragile_total{cause}
func countFragile(n *needs) (func(*sign.Result), error) {
	counter, err := service.Keep(n.life, fragileKey{}, func() (service.Opened[*prometheus.CounterVec], error) {
		c := newFragileCounter()
		registry := n.Metrics.Registerer()
		registry.MustRegister(c)
		return service.Opened[*prometheus.CounterVec]{Value: c, Close: func() error {
			registry.Unregister(c)
			return nil
		}}, nil
	})
	if err != nil {
		return nil, err
	}
	return func(r *sign.Result) {
		for _, cause := range r.Fragile {
			counter.WithLabelValues(string(cause)).Inc()
		}
	}, nil
}

func newFragileCounter() *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "postern_dkim_fragile_total",
		Help: "Signed mails whose signature will not survive the way to every receiver, by what breaks it.",
	}, []string{"cause"})
	for _, cause := range sign.Causes() {
		c.WithLabelValues(string(cause))
	}
	return c
}
