package status

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Bounds of what is taken from the metrics.
const (
	maxCounts     = 1024
	maxHistograms = 64
	maxLamps      = 256
)

// ours is the prefix of our own metrics, as opposed to those of Go and of the
// process.
const ours = "postern_"

// decisions is the counter of decisions.
const decisions = "postern_decisions_total"

// Histogram is a metric that measures times.
type Histogram struct {
	Name   string            `json:"name"`
	Help   string            `json:"help"`
	Labels map[string]string `json:"labels,omitempty"`
	Count  uint64            `json:"count"`
	Sum    float64           `json:"sum"`
	Bounds []float64         `json:"bounds"` // upper bounds of the buckets, except the last one, which has none
	Counts []uint64          `json:"counts"` // of each bucket alone
}

// Lamp is a good or bad condition that a metric shows.
type Lamp struct {
	Name   string            `json:"name"` // of the metric
	Help   string            `json:"help"`
	Labels map[string]string `json:"labels,omitempty"`
	Value  float64           `json:"value"`
	Good   bool              `json:"good"`
}

// Numbers are the metrics that the page shows.
type Numbers struct {
	Decisions  []Count            `json:"decisions"` // since the start, the most frequent first
	Histograms []Histogram        `json:"histograms"`
	Lamps      []Lamp             `json:"lamps"`
	Values     map[string]float64 `json:"values"` // metrics without labels
}

// gather reads the metrics. An error may come with the part that could be read.
func gather(from prometheus.Gatherer) (Numbers, error) {
	families, err := from.Gather()
	n := Numbers{Decisions: []Count{}, Histograms: []Histogram{}, Lamps: []Lamp{}, Values: map[string]float64{}}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), ours) {
			continue
		}
		for _, m := range f.GetMetric() {
			n.addMetric(f, m)
		}
	}
	slices.SortFunc(n.Decisions, moreFrequent)
	return n, err
}

func (n *Numbers) addMetric(f *dto.MetricFamily, m *dto.Metric) {
	labels := labelsOf(m)
	value, isNumber := number(m)
	switch {
	case f.GetName() == decisions:
		if len(n.Decisions) < maxCounts && value > 0 {
			n.Decisions = append(n.Decisions, Count{labels["check"], labels["verdict"], labels["reason"], labels["mode"], uint64(value)})
		}
	case m.GetHistogram() != nil:
		if len(n.Histograms) < maxHistograms {
			n.Histograms = append(n.Histograms, histogram(f, m, labels))
		}
	case !isNumber || math.IsNaN(value) || math.IsInf(value, 0):
	default:
		if good, is := lamp(f.GetName(), labels, value); is && len(n.Lamps) < maxLamps {
			n.Lamps = append(n.Lamps, Lamp{f.GetName(), f.GetHelp(), labels, value, good})
		}
		if len(labels) == 0 {
			n.Values[f.GetName()] = value
		}
	}
}

func labelsOf(m *dto.Metric) map[string]string {
	labels := make(map[string]string, len(m.GetLabel()))
	for _, l := range m.GetLabel() {
		labels[l.GetName()] = l.GetValue()
	}
	return labels
}

func number(m *dto.Metric) (value float64, ok bool) {
	switch {
	case m.GetGauge() != nil:
		return m.GetGauge().GetValue(), true
	case m.GetCounter() != nil:
		return m.GetCounter().GetValue(), true
	case m.GetUntyped() != nil:
		return m.GetUntyped().GetValue(), true
	}
	return 0, false
}

func histogram(f *dto.MetricFamily, m *dto.Metric, labels map[string]string) Histogram {
	from := m.GetHistogram()
	h := Histogram{Name: f.GetName(), Help: f.GetHelp(), Labels: labels, Count: from.GetSampleCount(), Sum: from.GetSampleSum(), Bounds: []float64{}, Counts: []uint64{}}
	if math.IsNaN(h.Sum) || math.IsInf(h.Sum, 0) {
		h.Sum = 0
	}
	below := uint64(0)
	for _, b := range from.GetBucket() {
		if math.IsInf(b.GetUpperBound(), 1) {
			continue
		}
		h.Bounds = append(h.Bounds, b.GetUpperBound())
		h.Counts = append(h.Counts, b.GetCumulativeCount()-below)
		below = b.GetCumulativeCount()
	}
	h.Counts = append(h.Counts, h.Count-below)
	return h
}

// lamp reports whether a metric is a condition, and whether the condition is
// good. The names of conditions that should be 1 end in up or writes.
func lamp(name string, labels map[string]string, value float64) (good, is bool) {
	if strings.HasSuffix(name, "_up") || strings.HasSuffix(name, "_writes") {
		return value != 0, true
	}
	for _, z := range shouldBeZero() {
		if z.name == name && (z.label == "" || slices.Contains(z.values, labels[z.label])) {
			return value == 0, true
		}
	}
	return false, false
}

// zero is a metric that is 0 while there is no problem. With a label only those with one of
// its values are meant.
type zero struct {
	name   string
	label  string
	values []string
}

// shouldBeZero returns what is 0 while there is no problem. A counter of what was lost since
// the start is not 0 again before the next one.
func shouldBeZero() []zero {
	return []zero{
		{name: "postern_config_reload_failed"}, {name: "postern_files_held_back"},
		{name: "postern_log_blocked"}, {name: "postern_log_write_failures_total"},
		{"postern_connections_over_limit_total", "action", []string{"refused"}},
		{name: "postern_store_losses_total"}, {name: "postern_store_clock_steps_total"}, {name: "postern_greylist_forgotten_total"},
		{name: "postern_limit_unreadable_rows_total"}, {name: "postern_limit_alarms_dropped_total"}, {name: "postern_limit_blocked_logins"},
		{name: "postern_hold_queue_messages"},
		{"postern_dmarc_report_messages_total", "result", []string{"dropped"}},
		{name: "postern_dkim_key_problems"}, {name: "postern_dkim_rotation_problems"},
		{"postern_dkim_keys_published", "dns", []string{"missing", "other"}},
	}
}

func moreFrequent(a, b Count) int {
	return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Check, b.Check), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Verdict, b.Verdict), cmp.Compare(a.Mode, b.Mode))
}
