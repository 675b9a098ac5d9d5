package status

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/postern-mail/postern/internal/record"
)

// The series of a [chart]: the last hour in minutes, the last day in quarters of
// an hour.
const (
	minute  = time.Minute
	quarter = 15 * time.Minute

	minutes  = 60
	quarters = 96
)

// maxKinds bounds the kinds of decisions that one step counts apart. Kinds are
// constants of the program. If there are more kinds after all, the rest is
// counted as one.
const maxKinds = 512

// watched is the verdict of decisions that are only recorded, see [record.ModeShadow].
const watched = "shadow"

// chart counts decisions by time. It is a [record.Sink].
type chart struct {
	mu   sync.Mutex
	hour series
	day  series
}

// newChart returns a chart without decisions.
func newChart() *chart {
	return &chart{hour: newSeries(minute, minutes), day: newSeries(quarter, quarters)}
}

// Record implements [record.Sink].
func (c *chart) Record(r *record.Record, at time.Time) {
	kind := r.Labels()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hour.add(kind, at)
	c.day.add(kind, at)
}

// Count is how often something was decided.
type Count struct {
	Check   string `json:"check"`
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
	Mode    string `json:"mode"`
	Count   uint64 `json:"count"`
}

// Steps are the decisions of a period, the oldest step first.
type Steps struct {
	Step     int                 `json:"step_s"` // seconds of one step
	End      time.Time           `json:"end"`    // of the last step; it may be in the future
	Verdicts []map[string]uint64 `json:"verdicts"`
	Reasons  []Count             `json:"reasons"` // of the whole period, the most frequent first
}

// Hour returns the decisions of the last hour.
func (c *chart) Hour(now time.Time) Steps {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hour.steps(now)
}

// Day returns the decisions of the last day.
func (c *chart) Day(now time.Time) Steps {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.day.steps(now)
}

// series is a ring of steps.
type series struct {
	step  time.Duration
	slots []slot
}

// slot counts the decisions of one step.
type slot struct {
	number int64 // of the step since 1970; the counts of another step are dropped
	kinds  map[record.Labels]uint64
}

func newSeries(step time.Duration, n int) series {
	return series{step, make([]slot, n)}
}

func (s *series) number(at time.Time) int64 { return at.Unix() / int64(s.step/time.Second) }

func (s *series) slot(number int64) *slot {
	n := int64(len(s.slots))
	return &s.slots[(number%n+n)%n]
}

func (s *series) add(kind record.Labels, at time.Time) {
	number := s.number(at)
	slot := s.slot(number)
	if slot.number != number || slot.kinds == nil { // of an earlier round, or a later one when the clock was set back
		slot.number = number
		clear(slot.kinds)
		if slot.kinds == nil {
			slot.kinds = make(map[record.Labels]uint64)
		}
	}
	if _, known := slot.kinds[kind]; !known && len(slot.kinds) >= maxKinds {
		kind = record.Labels{Check: other, Verdict: other, Reason: other, Mode: other}
	}
	slot.kinds[kind]++
}

// other is the label of decisions that are not counted apart.
const other = "other"

func (s *series) steps(now time.Time) Steps {
	last := s.number(now)
	step := int64(s.step / time.Second)
	out := Steps{Step: int(step), End: time.Unix((last+1)*step, 0), Verdicts: make([]map[string]uint64, len(s.slots))}
	sum := make(map[record.Labels]uint64)
	for i := range s.slots {
		number := last - int64(len(s.slots)-1-i)
		verdicts := map[string]uint64{}
		if slot := s.slot(number); slot.number == number {
			for kind, n := range slot.kinds {
				verdicts[verdictOf(kind)] += n
				sum[kind] += n
			}
		}
		out.Verdicts[i] = verdicts
	}
	out.Reasons = counts(sum)
	return out
}

// verdictOf returns the verdict as which a decision is counted. Decisions in the
// shadow are counted apart.
func verdictOf(kind record.Labels) string {
	if kind.Mode == record.ModeShadow {
		return watched
	}
	return orNone(kind.Verdict)
}

func orNone(text string) string { return cmp.Or(text, "none") }

// counts returns the kinds with their counts, the most frequent first.
func counts(of map[record.Labels]uint64) []Count {
	all := make([]Count, 0, len(of))
	for kind, n := range of {
		all = append(all, Count{orNone(kind.Check), orNone(kind.Verdict), orNone(string(kind.Reason)), cmp.Or(kind.Mode, record.ModeEnforce), n})
	}
	slices.SortFunc(all, moreFrequent)
	return all
}
