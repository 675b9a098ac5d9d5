package dns

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-mail/postern/internal/resolver"
)

// Collector collects the metrics of the resolver in force:
//
//	postern_dns_lookups_total{from}            cache, dns
//	postern_dns_failures_total                 questions that no server answered
//	postern_dns_unasked_total                  questions that failed at once because no server answers
//	postern_dns_crowded_out_total              questions without an answer, ended because others waited
//	postern_dns_tries_failed_total{cause}      timeout, unreachable, local, servfail, refused, other_code, malformed
//	postern_dns_packets_ignored_total          wrong id or question: late, or forged
//	postern_dns_tcp_total                      answers that were truncated and asked for again
//	postern_dns_up                             0 while no server answers
//	postern_dns_in_flight                      questions that are being asked
//	postern_dns_cache_entries, …_bytes         what the cache holds
//	postern_dns_cache_evictions_total          entries that made room
//	postern_dns_server_up{server}              0 while a server is left out because it failed
//	postern_dns_server_tcp_up{server}          0 while it does not answer over TCP
//	postern_dns_server_queries_total{server}   packets sent to it
//
// The counts start from zero when a reload changes the servers.
type Collector struct {
	stats   func() (resolver.Stats, bool)
	metrics []metric
}

// NewCollector returns a Collector of what stats returns. When stats returns
// false, no resolver is in force and nothing is collected.
func NewCollector(stats func() (resolver.Stats, bool)) *Collector {
	return &Collector{stats, metrics()}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(out chan<- *prometheus.Desc) {
	for _, m := range c.metrics {
		out <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	stats, ok := c.stats()
	if !ok {
		return
	}
	for _, m := range c.metrics {
		m.read(stats, func(value float64, label ...string) {
			out <- prometheus.MustNewConstMetric(m.desc, m.kind, value, label...)
		})
	}
}

// emit takes one number and the value of its label, if the metric has one.
type emit func(value float64, label ...string)

// metric describes one number of a resolver.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(resolver.Stats, emit)
}

func metrics() []metric {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("postern_dns_"+name, help, labels, nil)
	}
	one := func(value func(resolver.Stats) float64) func(resolver.Stats, emit) {
		return func(s resolver.Stats, out emit) { out(value(s)) }
	}
	const counts, now = prometheus.CounterValue, prometheus.GaugeValue
	return []metric{
		{desc("lookups_total", "DNS lookups, by where the answer came from.", "from"), counts, emitLookups},
		{desc("failures_total", "DNS questions that no server answered."), counts, one(func(s resolver.Stats) float64 { return float64(s.Failed) })},
		{desc("unasked_total", "DNS questions that failed at once because no server answers."), counts, one(func(s resolver.Stats) float64 { return float64(s.Unasked) })},
		{desc("crowded_out_total", "DNS questions without an answer that were ended because others waited for their place."), counts, one(func(s resolver.Stats) float64 { return float64(s.Crowded) })},
		{desc("tries_failed_total", "Questions to a server that failed, by cause.", "cause"), counts, emitFailures},
		{desc("packets_ignored_total", "Packets of a wrong id or question."), counts, one(func(s resolver.Stats) float64 { return float64(s.Mismatched) })},
		{desc("tcp_total", "Questions asked again over TCP."), counts, one(func(s resolver.Stats) float64 { return float64(s.TCP) })},
		{desc("up", "0 while no DNS server answers."), now, one(func(s resolver.Stats) float64 { return number(s.Up) })},
		{desc("in_flight", "Questions that are being asked."), now, one(func(s resolver.Stats) float64 { return float64(s.InFlight) })},
		{desc("cache_entries", "Answers in the cache."), now, one(func(s resolver.Stats) float64 { return float64(s.CacheEntries) })},
		{desc("cache_bytes", "Memory of the cache."), now, one(func(s resolver.Stats) float64 { return float64(s.CacheBytes) })},
		{desc("cache_evictions_total", "Answers that made room for others."), counts, one(func(s resolver.Stats) float64 { return float64(s.CacheEvictions) })},
		{desc("server_up", "0 while a server is left out because it failed.", "server"), now, emitServers},
		{desc("server_tcp_up", "0 while a server does not answer over TCP, so that large answers fail.", "server"), now, emitTCP},
		{desc("server_queries_total", "Packets sent to the DNS server.", "server"), counts, emitQueries},
	}
}

func emitLookups(s resolver.Stats, out emit) {
	out(float64(s.Hits), "cache")
	out(float64(s.Misses), "dns")
}

func emitFailures(s resolver.Stats, out emit) {
	out(float64(s.Timeouts), "timeout")
	out(float64(s.Unreachable), "unreachable")
	out(float64(s.LocalErrors), "local")
	out(float64(s.ServFail), "servfail")
	out(float64(s.Refused), "refused")
	out(float64(s.OtherCodes), "other_code")
	out(float64(s.Malformed), "malformed")
}

func emitServers(s resolver.Stats, out emit) {
	for _, server := range s.Servers {
		out(number(server.Up), server.Address)
	}
}

func emitTCP(s resolver.Stats, out emit) {
	for _, server := range s.Servers {
		out(number(server.TCP), server.Address)
	}
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

func emitQueries(s resolver.Stats, out emit) {
	for _, server := range s.Servers {
		out(float64(server.Queries), server.Address)
	}
}
