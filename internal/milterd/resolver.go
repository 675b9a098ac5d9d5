package milterd

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/service"
)

// buildResolver makes the resolver of the daemon, or keeps the one in force, with
// its cache, when the same servers are to be asked. One that is replaced is left
// to the messages that still use it: it has no work of its own beyond their
// questions.
func (s *state) buildResolver(r service.Runtime) error {
	o := s.settings
	if len(o.Resolvers) == 0 {
		s.watch(resolver.DefaultResolvConf)
	}
	made, err := resolver.New(resolver.Config{Servers: o.Resolvers, Timeout: o.DNSTimeout})
	if err != nil {
		return o.set.Errorf("resolver", "%w", err)
	}
	s.resolver = made
	if old := o.app.current.Load(); old != nil && old.settings.DNSTimeout == o.DNSTimeout &&
		slices.Equal(old.resolver.Servers(), made.Servers()) {
		made.Close() // it has asked nothing
		s.resolver = old.resolver
		return nil
	}
	for _, server := range made.Servers() {
		if operator := resolver.PublicResolver(server.Addr()); operator != "" {
			r.Log.Warn("public DNS resolver: slow, and blocklists refuse it; run a resolver of your own, such as unbound, and name it with --resolver",
				zap.Stringer("server", server), zap.String("operator", operator))
		}
	}
	return nil
}

// collector gives what the state in force counts to the metrics:
//
//	postern_dns_lookups_total{from}            cache, dns
//	postern_dns_failures_total                 questions that no server answered
//	postern_dns_tries_failed_total{cause}      timeout, unreachable, local, servfail, refused, other_code, malformed
//	postern_dns_packets_ignored_total          wrong id or question: late, or forged
//	postern_dns_tcp_total                      answers that were truncated and asked for again
//	postern_dns_in_flight                      questions that are being asked
//	postern_dns_cache_entries, …_bytes         what the cache holds
//	postern_dns_cache_evictions_total          entries that made room
//	postern_dns_server_up{server}              0 while a server is left out because it failed
//	postern_dns_server_queries_total{server}   packets sent to it
//	postern_dkim_keys{state}                   signing, left_out (see --dkim-require-dns)
//
// The counts begin anew when a reload names other servers.
type collector struct{ current *current }

// metric describes one number of a state.
type metric struct {
	name, help string
	kind       prometheus.ValueType
	label      string // "" for none
	read       func(*state, func(value float64, label ...string))
}

func stateMetrics() []metric {
	stats := func(read func(resolver.Stats, func(float64, ...string))) func(*state, func(float64, ...string)) {
		return func(s *state, emit func(float64, ...string)) { read(s.resolver.Stats(), emit) }
	}
	one := func(value func(resolver.Stats) float64) func(*state, func(float64, ...string)) {
		return stats(func(st resolver.Stats, emit func(float64, ...string)) { emit(value(st)) })
	}
	const counts, now = prometheus.CounterValue, prometheus.GaugeValue
	return []metric{
		{"postern_dns_lookups_total", "DNS lookups, by where the answer came from.", counts, "from", stats(emitLookups)},
		{"postern_dns_failures_total", "DNS questions that no server answered.", counts, "", one(func(st resolver.Stats) float64 { return float64(st.Failed) })},
		{"postern_dns_tries_failed_total", "Questions to a server that failed, by cause.", counts, "cause", stats(emitFailures)},
		{"postern_dns_packets_ignored_total", "Packets of a wrong id or question.", counts, "", one(func(st resolver.Stats) float64 { return float64(st.Mismatched) })},
		{"postern_dns_tcp_total", "Questions asked again over TCP.", counts, "", one(func(st resolver.Stats) float64 { return float64(st.TCP) })},
		{"postern_dns_in_flight", "Questions that are being asked.", now, "", one(func(st resolver.Stats) float64 { return float64(st.InFlight) })},
		{"postern_dns_cache_entries", "Answers in the cache.", now, "", one(func(st resolver.Stats) float64 { return float64(st.CacheEntries) })},
		{"postern_dns_cache_bytes", "Memory of the cache.", now, "", one(func(st resolver.Stats) float64 { return float64(st.CacheBytes) })},
		{"postern_dns_cache_evictions_total", "Answers that made room for others.", counts, "", one(func(st resolver.Stats) float64 { return float64(st.CacheEvictions) })},
		{"postern_dns_server_up", "0 while a server is left out because it failed.", now, "server", stats(emitServers)},
		{"postern_dns_server_queries_total", "Packets sent to the DNS server.", counts, "server", stats(emitQueries)},
		{"postern_dkim_keys", "Private keys, by what is done with them.", now, "state", emitKeys},
	}
}

func emitLookups(st resolver.Stats, emit func(float64, ...string)) {
	emit(float64(st.Hits), "cache")
	emit(float64(st.Misses), "dns")
}

func emitFailures(st resolver.Stats, emit func(float64, ...string)) {
	emit(float64(st.Timeouts), "timeout")
	emit(float64(st.Unreachable), "unreachable")
	emit(float64(st.LocalErrors), "local")
	emit(float64(st.ServFail), "servfail")
	emit(float64(st.Refused), "refused")
	emit(float64(st.OtherCodes), "other_code")
	emit(float64(st.Malformed), "malformed")
}

func emitServers(st resolver.Stats, emit func(float64, ...string)) {
	for _, server := range st.Servers {
		up := 0.0
		if server.Up {
			up = 1
		}
		emit(up, server.Address)
	}
}

func emitQueries(st resolver.Stats, emit func(float64, ...string)) {
	for _, server := range st.Servers {
		emit(float64(server.Queries), server.Address)
	}
}

func (m metric) desc() *prometheus.Desc {
	var labels []string
	if m.label != "" {
		labels = []string{m.label}
	}
	return prometheus.NewDesc(m.name, m.help, labels, nil)
}

// Describe implements prometheus.Collector.
func (*collector) Describe(out chan<- *prometheus.Desc) {
	for _, m := range stateMetrics() {
		out <- m.desc()
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	s := c.current.Load()
	if s == nil {
		return
	}
	for _, m := range stateMetrics() {
		desc := m.desc()
		m.read(s, func(value float64, label ...string) {
			out <- prometheus.MustNewConstMetric(desc, m.kind, value, label...)
		})
	}
}
