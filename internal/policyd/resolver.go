package policyd

import (
	"fmt"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/service"
)

// shared is what one state after the other uses as long as its settings stay
// the same: what it has learnt outlives a reload. The last user closes it.
type shared[T any] struct {
	value T
	key   string // the settings it was made of
	close func()
	users atomic.Int64
}

func share[T any](value T, key string, close func()) *shared[T] {
	h := &shared[T]{value: value, key: key, close: close}
	h.users.Store(1)
	return h
}

// use counts another state in. The caller knows one that has not let go yet.
func (h *shared[T]) use() *shared[T] {
	h.users.Add(1)
	return h
}

// done counts a state out.
func (h *shared[T]) done() error {
	if h.users.Add(-1) == 0 {
		h.close()
	}
	return nil
}

// previous is the state that a reload will replace, or nil. It stays open until
// the one that is being built has been applied or discarded.
func (s *state) previous() *state {
	if s.settings.current == nil {
		return nil // settings that were only read
	}
	return s.settings.current.p.Load()
}

// resolver gives the DNS resolver that all checks of the state share.
func (s *state) resolver(r service.Runtime) (*resolver.Resolver, error) {
	if s.dns == nil {
		dns, err := s.openResolver(r.Log)
		if err != nil {
			return nil, err
		}
		s.dns = dns
		s.closeLater(dns.done)
	}
	return s.dns.value, nil
}

// openResolver makes a resolver, or takes over the one in use when it asks the
// same servers: its cache is worth keeping.
func (s *state) openResolver(log *zap.Logger) (*shared[*resolver.Resolver], error) {
	o := s.settings
	if len(o.Resolvers) == 0 {
		s.watch(resolver.DefaultResolvConf)
	}
	next, err := resolver.New(resolver.Config{Servers: o.Resolvers, Timeout: o.DNSTimeout})
	if err != nil {
		return nil, o.set.Errorf("resolver", "%w", err)
	}
	key := fmt.Sprint(next.Servers(), o.DNSTimeout)
	if before := s.previous(); before != nil && before.dns != nil && before.dns.key == key {
		next.Close()
		return before.dns.use(), nil
	}
	warnPublic(next, log)
	return share(next, key, next.Close), nil
}

// warnPublic tells about resolvers that DNS lists do not serve: some answer
// that nobody is listed.
func warnPublic(dns *resolver.Resolver, log *zap.Logger) {
	for _, server := range dns.Servers() {
		if operator := resolver.PublicResolver(server.Addr()); operator != "" {
			log.Warn("public DNS resolver: lists such as Spamhaus refuse it or answer that nobody is listed; run a resolver on this machine and name it with --resolver",
				zap.Stringer("resolver", server), zap.String("operator", operator))
		}
	}
}

// dnsCollector shows the resolver of the state in force.
type dnsCollector struct {
	current                                              *current
	lookups, failures, inFlight, serverUp, serverQueries *prometheus.Desc
}

func newDNSCollector(c *current) dnsCollector {
	return dnsCollector{
		current:       c,
		lookups:       prometheus.NewDesc("postern_dns_lookups_total", "DNS lookups, by where the answer came from.", []string{"from"}, nil),
		failures:      prometheus.NewDesc("postern_dns_failures_total", "DNS questions that no server answered.", nil, nil),
		inFlight:      prometheus.NewDesc("postern_dns_in_flight", "DNS questions that are being asked.", nil, nil),
		serverUp:      prometheus.NewDesc("postern_dns_server_up", "1 while the DNS server answers.", []string{"server"}, nil),
		serverQueries: prometheus.NewDesc("postern_dns_server_queries_total", "Packets sent to the DNS server.", []string{"server"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c dnsCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.lookups, c.failures, c.inFlight, c.serverUp, c.serverQueries} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. Without a resolver there is nothing
// to show.
func (c dnsCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.current.acquire()
	defer s.done()
	if s.dns == nil {
		return
	}
	stats := s.dns.value.Stats()
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	counter(c.lookups, stats.Hits, "cache")
	counter(c.lookups, stats.Misses, "dns")
	counter(c.failures, stats.Failed)
	ch <- prometheus.MustNewConstMetric(c.inFlight, prometheus.GaugeValue, float64(stats.InFlight))
	for _, server := range stats.Servers {
		ch <- prometheus.MustNewConstMetric(c.serverUp, prometheus.GaugeValue, number(server.Up), server.Address)
		counter(c.serverQueries, server.Queries, server.Address)
	}
}

// number is a condition as a gauge shows it.
func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
