package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// There are few buckets, because every scrape has each of them for every
// combination of labels.

// decisionBuckets range from a lookup in memory to more than the deadline of a
// policy request.
func decisionBuckets() []float64 {
	return []float64{.0001, .00025, .0005, .001, .0025, .01, .05, .25, 1, 2.5, 10, 30}
}

// questionBuckets range from one answer of a resolver on this host to all tries
// of a question.
func questionBuckets() []float64 {
	return []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2, 5, 10}
}

// storeBuckets range from a store in memory to the longest wait for Redis.
func storeBuckets() []float64 {
	return []float64{.00001, .00005, .0001, .00025, .0005, .001, .0025, .01, .05, .25, 1, 2}
}

// The values of the label outcome of a store's requests.
const (
	outcomeOK    = "ok"
	outcomeError = "error"
)

func newDecisionDurations(daemon string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:        "postern_decision_duration_seconds",
		Help:        "Time from the last byte of a request to its reply, by the check that decided.",
		ConstLabels: prometheus.Labels{"daemon": daemon},
		Buckets:     decisionBuckets(),
	}, []string{"check"})
}

func newQuestionDurations() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "postern_dns_question_duration_seconds",
		Help:    "Time of a DNS question with all its tries, by outcome; what the cache answers is not counted.",
		Buckets: questionBuckets(),
	}, []string{"outcome"})
}

func newStoreDurations() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "postern_store_request_duration_seconds",
		Help:    "Time of a request to a store and its answer, by store and outcome.",
		Buckets: storeBuckets(),
	}, []string{"store", "outcome"})
}

// DNSQuestions returns a function that takes the outcome and the time of each DNS
// question. Only the named outcomes are counted apart, the rest as "other".
func (m *Metrics) DNSQuestions(outcomes ...string) func(outcome string, took time.Duration) {
	known := make(map[string]prometheus.Observer, len(outcomes))
	for _, outcome := range outcomes {
		known[outcome] = m.questions.WithLabelValues(outcome)
	}
	return func(outcome string, took time.Duration) {
		observer, ok := known[outcome]
		if !ok {
			observer = m.questions.WithLabelValues(other)
		}
		observer.Observe(took.Seconds())
	}
}

// StoreClockSteps returns a function that counts a step of the clock of a store's server.
func (m *Metrics) StoreClockSteps(store string) func() {
	return m.clockSteps.WithLabelValues(store).Inc
}

// StoreLosses returns a function that counts a loss of what a store's server kept, all or the latest.
func (m *Metrics) StoreLosses(store string) func() {
	return m.losses.WithLabelValues(store).Inc
}

// StoreRequests returns a function that takes the time and the error of each
// request to a store. The name of the store is a constant of the program.
func (m *Metrics) StoreRequests(store string) func(took time.Duration, err error) {
	ok, failed := m.stores.WithLabelValues(store, outcomeOK), m.stores.WithLabelValues(store, outcomeError)
	return func(took time.Duration, err error) {
		if err != nil {
			failed.Observe(took.Seconds())
			return
		}
		ok.Observe(took.Seconds())
	}
}
