package milterd

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-mail/postern/internal/service"
)

// counters are counters of one part.
type counters interface{ collectors() []prometheus.Collector }

// countersKey is the key under which counters of a type are kept.
type countersKey[C counters] struct{}

// keepCounters makes and registers counters, or returns those of the state in force:
// they count on over reloads.
func keepCounters[C counters](n *needs, newCounters func() C) (C, error) {
	return service.Keep(n.life, countersKey[C]{}, func() (service.Opened[C], error) {
		c := newCounters()
		registry := n.Metrics.Registerer()
		registry.MustRegister(c.collectors()...)
		return service.Opened[C]{Value: c, Close: func() error {
			for _, one := range c.collectors() {
				registry.Unregister(one)
			}
			return nil
		}}, nil
	})
}
