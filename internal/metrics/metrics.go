// Package metrics counts what the daemons decide and reports whether they serve.
//
// Metrics, next to those of the Go runtime (go_…) and the process (process_…):
//
//	postern_build_info{daemon,version,revision,goversion}    always 1
//	postern_decisions_total{check,verdict,reason,mode}       one for each record in the log; check is
//	                                                         "none" when no check decided
//	postern_check_errors_total{check,reason}                 policyd: checks that could not decide, also when
//	                                                         another check decided
//	postern_decision_duration_seconds{daemon,check}          histogram: last byte of the request to the reply
//	postern_dns_question_duration_seconds{outcome}           histogram: a DNS question with all its tries
//	postern_store_request_duration_seconds{store,outcome}    histogram: a request to a store and its answer
//	postern_requests_in_flight                               requests whose reply is not written yet
//	postern_connections                                      open connections of Postfix
//	postern_connections_over_limit_total{action}             connections that --max-connections has ended: "closed"
//	                                                         idle ones, "refused" new ones
//	postern_config_reload_failed                             1 when the last reload was refused and the
//	                                                         old settings stay in force, else 0
//	postern_config_last_reload_timestamp_seconds             when settings were last put in force, Unix time
//	postern_files_held_back                                  tables and allow lists whose new text is not used
//	postern_log_write_failures_total                         log lines lost (disk full, reader gone or stuck)
//	postern_log_blocked                                      1 while a write to the log does not end
//
// Other packages register theirs with Registerer. Invariants:
//
//   - The registry is our own: nothing is registered by import.
//   - Label values come from constants of the program. If one ever does not, at
//     most maxSeries combinations are counted apart, the rest as "other".
//   - Observing takes no lock and allocates nothing once a combination has
//     been seen.
package metrics

import (
	"maps"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/postern-mail/postern/internal/record"
)

// maxSeries bounds the label combinations of postern_decisions_total.
const maxSeries = 1024

// maxValue bounds the value of a label of postern_decisions_total, in bytes.
const maxValue = 64

// other replaces all label values once there are maxSeries combinations.
const other = "other"

// Options describe the daemon.
type Options struct {
	Daemon   string // "policyd" or "milterd"
	Version  string
	Revision string

	LogFailures func() uint64 // lost log lines so far; nil leaves the metric out
	LogBlocked  func() bool   // whether the log takes no lines now; likewise

	// ConnsClosed and ConnsRefused return how many connections were closed
	// because of a bound; nil leaves the metric out.
	ConnsClosed, ConnsRefused func() uint64
}

// Labels are those of postern_decisions_total.
type Labels = record.Labels

// Metrics is safe for concurrent use.
type Metrics struct {
	registry     *prometheus.Registry
	decisions    *prometheus.CounterVec
	checkErrors  *prometheus.CounterVec
	durations    *prometheus.HistogramVec
	questions    *prometheus.HistogramVec
	stores       *prometheus.HistogramVec
	clockSteps   *prometheus.CounterVec
	losses       *prometheus.CounterVec
	inFlight     prometheus.Gauge
	connections  prometheus.Gauge
	reloadFailed prometheus.Gauge
	lastReload   prometheus.Gauge
	heldBack     prometheus.Gauge

	// series is replaced, never changed: Decided reads it without a lock.
	series atomic.Pointer[map[Labels]series]
	grow   sync.Mutex
}

// series is where the decisions of one combination of labels are counted.
type series struct {
	count prometheus.Counter
	took  prometheus.Observer
}

// New makes the metrics of one daemon.
func New(o Options) *Metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_decisions_total",
			Help: "Decisions, by the check that made them, verdict, reason and mode.",
		}, []string{"check", "verdict", "reason", "mode"}),
		checkErrors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_check_errors_total",
			Help: "Checks that could not decide, by check and reason, also when another check decided.",
		}, []string{"check", "reason"}),
		durations: newDecisionDurations(o.Daemon),
		questions: newQuestionDurations(),
		stores:    newStoreDurations(),
		clockSteps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_store_clock_steps_total",
			Help: "How often the clock of a store's Redis server was set forward or back.",
		}, []string{"store"}),
		losses: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_store_losses_total",
			Help: "How often a store's Redis server had lost what it kept.",
		}, []string{"store"}),
		inFlight:     gauge("postern_requests_in_flight", "Requests whose reply is not written yet."),
		connections:  gauge("postern_connections", "Open connections of Postfix."),
		reloadFailed: gauge("postern_config_reload_failed", "1 when the last reload was refused and the old settings stay in force."),
		heldBack:     gauge("postern_files_held_back", "Tables and allow lists whose new text is not used because it would lose more than half of the entries."),
		lastReload:   gauge("postern_config_last_reload_timestamp_seconds", "When settings were last put in force, Unix time."),
	}
	m.series.Store(&map[Labels]series{})
	m.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		buildInfo(o),
		m.decisions, m.checkErrors, m.durations, m.questions, m.stores, m.clockSteps, m.losses, m.inFlight, m.connections, m.reloadFailed, m.lastReload, m.heldBack,
	)
	if o.LogFailures != nil {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "postern_log_write_failures_total",
			Help: "Log lines that could not be written.",
		}, func() float64 { return float64(o.LogFailures()) }))
	}
	if o.ConnsClosed != nil {
		m.registry.MustRegister(overLimit("closed", o.ConnsClosed), overLimit("refused", o.ConnsRefused))
	}
	if o.LogBlocked != nil {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "postern_log_blocked",
			Help: "1 while a write to the log does not end and lines may be lost.",
		}, func() float64 {
			if o.LogBlocked() {
				return 1
			}
			return 0
		}))
	}
	return m
}

func overLimit(action string, count func() uint64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name:        "postern_connections_over_limit_total",
		Help:        "Connections that a bound on their number has ended.",
		ConstLabels: prometheus.Labels{"action": action},
	}, func() float64 { return float64(count()) })
}

func buildInfo(o Options) prometheus.Collector {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "postern_build_info",
		Help: "Always 1; what is running.",
		ConstLabels: prometheus.Labels{
			"daemon": o.Daemon, "version": o.Version, "revision": o.Revision, "goversion": runtime.Version(),
		},
	})
	g.Set(1)
	return g
}

// Registerer returns where other packages register their metrics: breakers,
// stores, caches.
func (m *Metrics) Registerer() prometheus.Registerer { return m.registry }

// Gatherer returns all metrics, for tests and for the HTTP server.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.registry }

// Record implements [record.Sink]: each record is counted, and each check in it that
// could not decide.
func (m *Metrics) Record(r *record.Record, _ time.Time) {
	m.Decided(r.Labels(), r.Duration)
	for i := range r.Steps {
		if s := &r.Steps[i]; s.Failed() {
			m.checkErrors.WithLabelValues(value(s.Check, "none"), value(string(s.Reason), "none")).Inc()
		}
	}
}

// PrepareErrors adds the errors of a check with the value 0, so that a rate includes
// the first one.
func (m *Metrics) PrepareErrors(check string, reasons ...record.Reason) {
	for _, reason := range reasons {
		m.checkErrors.WithLabelValues(check, string(reason))
	}
}

// Decided counts one decision and how long it took.
func (m *Metrics) Decided(l Labels, took time.Duration) {
	s, ok := (*m.series.Load())[l]
	if !ok {
		s = m.newSeries(l)
	}
	s.count.Inc()
	s.took.Observe(took.Seconds())
}

// Prepare adds combinations with the value 0 before the first decision, so that a
// rate includes the first one.
func (m *Metrics) Prepare(all ...Labels) {
	for _, l := range all {
		if _, ok := (*m.series.Load())[l]; !ok {
			m.newSeries(l)
		}
	}
}

func (m *Metrics) newSeries(l Labels) series {
	m.grow.Lock()
	defer m.grow.Unlock()
	old := *m.series.Load()
	if s, ok := old[l]; ok {
		return s
	}
	if len(old) >= maxSeries {
		return series{m.decisions.WithLabelValues(other, other, other, other), m.durations.WithLabelValues(other)}
	}
	v := values(l)
	made := series{m.decisions.WithLabelValues(v...), m.durations.WithLabelValues(v[0])}
	all := maps.Clone(old)
	all[l] = made
	m.series.Store(&all)
	return made
}

// values returns the values of the labels, in the order of
// postern_decisions_total.
func values(l Labels) []string {
	return []string{value(l.Check, "none"), value(l.Verdict, "none"), value(string(l.Reason), "none"), value(l.Mode, record.ModeEnforce)}
}

// value returns s as the value of a label, which client_golang requires to be
// UTF-8. If s is empty, it returns otherwise.
func value(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return strings.ToValidUTF8(s[:min(len(s), maxValue)], "?")
}

// RequestStarted counts a request that has begun; RequestDone must follow.
func (m *Metrics) RequestStarted() { m.inFlight.Inc() }

// RequestDone ends what RequestStarted began.
func (m *Metrics) RequestDone() { m.inFlight.Dec() }

// ConnectionOpened counts an open connection; ConnectionClosed must follow.
func (m *Metrics) ConnectionOpened() { m.connections.Inc() }

// ConnectionClosed ends what ConnectionOpened began.
func (m *Metrics) ConnectionClosed() { m.connections.Dec() }

// Reloaded notes the outcome of a load of the configuration, also of the first
// one. With a nil error, now is when the settings came into force.
func (m *Metrics) Reloaded(now time.Time, err error) {
	if err != nil {
		m.reloadFailed.Set(1)
		return
	}
	m.reloadFailed.Set(0)
	m.lastReload.Set(float64(now.UnixMilli()) / 1000)
}

// HeldBack sets how many tables and allow lists have a new text that is not used.
func (m *Metrics) HeldBack(files int) { m.heldBack.Set(float64(files)) }
