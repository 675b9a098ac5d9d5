package policyd

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/limit"
	"github.com/postern-mail/postern/policy/checks"
)

// limitStore is a store with the metrics and state of this daemon for it. It is kept
// over reloads.
type limitStore struct {
	store  limit.Store
	guard  *limit.Guard
	blocks *limit.Blocks
	ends   limit.Ends
	trail  limit.Trail
	kind   string // sqlite, memory, redis: for people

	attached checks.Attached

	losses     atomic.Uint64
	unreadable *atomic.Uint64 // rows of the file
	mu         sync.Mutex
	alarms     map[alarmLabels]uint64
}

// alarmLabels are the labels by which alarms are counted.
type alarmLabels struct {
	key, unit string
	percent   int
}

func newLimitStore(store limit.Store, kind string, n *needs) *limitStore {
	s := &limitStore{store: store, kind: kind, alarms: make(map[alarmLabels]uint64)}
	s.guard = limit.NewGuard(store, nil, func(err error) {
		if err != nil {
			n.Log.Error("the limit store does not answer: limit-on-error decides until it does, blocks that are known hold", zap.Error(err))
			return
		}
		n.Log.Info("the limit store works again")
	})
	s.guard.Took = n.Metrics.StoreRequests(checks.LimitName)
	s.blocks = limit.NewBlocks(s.guard)
	return s
}

// reportSalvaged returns a function that logs whether the blocks of a corrupt file are kept.
func reportSalvaged(log *zap.Logger, path string) func(int, error) {
	return func(blocks int, err error) {
		if err != nil {
			log.Error("blocks of logins may be lost with the corrupt limit file; block these logins again", zap.String("path", path), zap.Int("kept", blocks), zap.Error(err))
			return
		}
		log.Warn("the limit file is corrupt, its blocks of logins are kept and its counts are not", zap.String("path", path), zap.Int("kept", blocks))
	}
}

func (s *limitStore) close() error { return closeStore("limit", s.store) }

// limitCondition is the name of the readiness condition for the store.
const limitCondition = "limit store"

// watch looks after the store while the check runs.
func (s *limitStore) watch(ctx context.Context, n *needs) {
	n.Readiness.Follow(limitCondition, func() (bool, string) { return storeState(s.guard.Down(), s.writes()) })
	defer n.Readiness.Remove(limitCondition)
	s.guard.Watch(ctx)
	<-ctx.Done()
}

// writes reports whether new counts are kept.
func (s *limitStore) writes() bool { return s.guard.Down() == nil && !s.unsaved() }

// unsaved reports whether new counts are in memory only, because the file cannot be
// written.
func (s *limitStore) unsaved() bool {
	f, ok := s.store.(interface{ Failing() bool })
	return ok && f.Failing()
}

// lost counts the counts that could not be taken back.
func (s *limitStore) lost(error) { s.losses.Add(1) }

// alarm returns a function for limits that are reached. It counts the alarm, writes its
// record, and passes it to a.
func (s *limitStore) alarm(log *zap.Logger, a *alarms) func(limit.Alarm) {
	return func(alarm limit.Alarm) {
		s.mu.Lock()
		s.alarms[alarmLabels{string(alarm.Rule.Key), string(alarm.Rule.Unit), alarm.Percent}]++
		s.mu.Unlock()
		writeAlarm(log, &alarm)
		a.pass(alarm)
	}
}

// prepare creates the alarm counters of rules with 0. Without that, rate() would miss
// the first alarm.
func (s *limitStore) prepare(rules []limit.Rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range rules {
		for _, percent := range [...]int{80, 100} {
			s.alarms[alarmLabels{string(r.Key), string(r.Unit), percent}] += 0
		}
	}
}

// limitCollector shows the store of the state in force.
type limitCollector struct {
	current                                              *current
	up, writes, alarms, lost, blocks, missed, unreadable *prometheus.Desc
}

func limitMetrics(c *current) []prometheus.Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return []prometheus.Collector{limitCollector{c,
		desc("postern_limit_store_up", "1 while the limit store answers, 0 while its breaker is open."),
		desc("postern_limit_store_writes", "1 while the limit store keeps what is new, 0 while it does not answer or its file cannot be written."),
		desc("postern_limit_alarms_total", "Limits that reached 80 or 100 percent, once a window.", "key", "unit", "percent"),
		desc("postern_limit_uncorrected_total", "Mails that were counted and then refused, and whose count could not be taken back."),
		desc("postern_limit_blocked_logins", "Logins that are blocked."),
		desc("postern_limit_alarms_dropped_total", "Alarms that alarm-command or alarm-mail did not get: too many waited, or it failed."),
		desc("postern_limit_unreadable_rows_total", "Rows of the limit file that could not be read, and whose counts are lost."),
	}}
}

// Describe implements prometheus.Collector.
func (c limitCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.up, c.writes, c.alarms, c.lost, c.blocks, c.missed, c.unreadable} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c limitCollector) Collect(ch chan<- prometheus.Metric) {
	o, release := inForce[*limitPart](c.current)
	if release == nil {
		return
	}
	defer release()
	s := o.store
	if s == nil {
		return
	}
	ch <- prometheus.MustNewConstMetric(c.up, prometheus.GaugeValue, number(s.guard.Down() == nil))
	ch <- prometheus.MustNewConstMetric(c.writes, prometheus.GaugeValue, number(s.writes()))
	ch <- prometheus.MustNewConstMetric(c.lost, prometheus.CounterValue, float64(s.losses.Load()))
	ch <- prometheus.MustNewConstMetric(c.blocks, prometheus.GaugeValue, float64(s.blocks.Len()))
	ch <- prometheus.MustNewConstMetric(c.missed, prometheus.CounterValue, float64(o.passed.missed()))
	ch <- prometheus.MustNewConstMetric(c.unreadable, prometheus.CounterValue, float64(s.unreadable.Load()))
	s.mu.Lock()
	defer s.mu.Unlock()
	for l, n := range s.alarms {
		ch <- prometheus.MustNewConstMetric(c.alarms, prometheus.CounterValue, float64(n), l.key, l.unit, strconv.Itoa(l.percent))
	}
}
