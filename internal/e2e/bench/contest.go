package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/manual"
)

// contest is a group of servers that get the same load in turn.
type contest struct {
	key              string // of --only
	name, text, unit string
	open             bool // whether open files and goroutines are shown
	contenders       []contender
}

// contender is one server of a contest.
type contender struct {
	server, note string
	ours         bool
	// The bounds of Postern's rate against this server's, and of this server's CPU time
	// against Postern's.
	leastRate, leastCPU float64
	start               func(ctx context.Context, e *env) (candidate, error)
}

// candidate is a contender that runs.
type candidate struct {
	subject
	stop func() error
	load func(ctx context.Context, t turn) ([]loaded, error)
}

// turn is a round of one candidate.
type turn struct {
	round int // 0 warms up and is not counted
	share int // the load is divided by it
}

// warmUp is the share of the round that warms up.
const warmUp = 10

// sized returns a load for this turn. It is a multiple of the connections.
func (t turn) sized(load int) int {
	const conns = milterConns // policy clients have as many
	return max(load/t.share/conns, 1) * conns
}

// loaded is the sample of one kind of load. A floor has no rate if wall is 0.
type loaded struct {
	load string
	sample
}

// measured holds the figures of a contender: one value of each round.
type measured struct {
	contender
	candidate
	missing string
	loads   []string
	samples map[string][]sample
}

// run measures all contenders in turn, after a round that warms them up. One that cannot
// be started or measured gets a row that says why.
func (c contest) run(ctx context.Context, e *env, rounds, share int) (manual.FigureGroup, error) {
	g := manual.FigureGroup{Name: c.name, Text: c.text, Unit: c.unit}
	all := make([]*measured, len(c.contenders))
	for i, one := range c.contenders {
		m := &measured{contender: one, samples: map[string][]sample{}}
		candidate, err := one.start(ctx, e)
		if err != nil {
			m.fail(err)
		}
		m.candidate = candidate
		all[i] = m
	}
	for round := range rounds + 1 {
		t := turn{round, share}
		if round == 0 {
			t.share = max(share, warmUp)
		}
		for _, m := range all {
			m.measure(ctx, t)
		}
	}
	for _, m := range all {
		m.finish()
	}
	if err := ctx.Err(); err != nil {
		return g, err
	}
	for _, m := range all {
		if m.ours && m.missing != "" {
			return g, fmt.Errorf("%s: %s: %s", c.name, m.server, m.missing)
		}
	}
	g.Rows = rowsOf(all)
	for i := range g.Rows {
		if !c.open {
			g.Rows[i].Descriptors = 0
		}
	}
	return g, nil
}

// fail notes the reason why a contender has no figures.
func (m *measured) fail(err error) {
	fmt.Fprintf(os.Stderr, "bench: %s: %v\n", m.server, err)
	line, _, _ := strings.Cut(err.Error(), "\n")
	m.missing = strings.ReplaceAll(line, "|", "/") // a table's cell
}

func (m *measured) measure(ctx context.Context, t turn) {
	if m.missing != "" {
		return
	}
	got, err := m.load(ctx, t)
	if err != nil {
		m.fail(err)
		return
	}
	if t.round == 0 {
		return
	}
	for _, l := range got {
		if !slices.Contains(m.loads, l.load) {
			m.loads = append(m.loads, l.load)
		}
		m.samples[l.load] = append(m.samples[l.load], l.sample)
	}
}

// finish stops the contender.
func (m *measured) finish() {
	if m.stop == nil {
		return
	}
	if err := m.stop(); err != nil {
		m.fail(err)
	}
}

// rowsOf returns a row for each load and contender.
func rowsOf(all []*measured) (rows []manual.FigureRow) {
	var loads []string
	for _, m := range all {
		if m.missing != "" {
			continue
		}
		for _, load := range m.loads {
			if !slices.Contains(loads, load) {
				loads = append(loads, load)
			}
		}
	}
	for _, load := range loads {
		reference := referenceOf(all, load)
		for _, m := range all {
			if m.missing == "" && len(m.samples[load]) > 0 {
				rows = append(rows, m.row(load, reference))
			}
		}
	}
	for _, m := range all {
		if m.missing != "" {
			rows = append(rows, manual.FigureRow{Server: m.server, Note: m.note, Missing: m.missing})
		}
	}
	return rows
}

// referenceOf returns the first of Postern's contenders with a load, or nil.
func referenceOf(all []*measured, load string) *measured {
	i := slices.IndexFunc(all, func(m *measured) bool { return m.ours && m.missing == "" && len(m.samples[load]) > 0 })
	if i < 0 {
		return nil
	}
	return all[i]
}

// row returns the medians of one load.
func (m *measured) row(load string, reference *measured) manual.FigureRow {
	samples := m.samples[load]
	of := func(f func(sample) float64) float64 {
		values := make([]float64, len(samples))
		for i, s := range samples {
			values[i] = f(s)
		}
		return median(values)
	}
	r := manual.FigureRow{Server: m.server, Note: m.note, Load: load, Ours: m.ours}
	r.RSS = of(func(s sample) float64 { return s.rss })
	r.PSS = of(func(s sample) float64 { return s.pss })
	r.Descriptors = of(func(s sample) float64 { return s.descriptors })
	r.Goroutines = of(func(s sample) float64 { return s.goroutines })
	r.Rate, r.CPU = of(sample.rate), of(sample.micros)/100
	r.P50 = of(func(s sample) float64 { return s.quantile(0.5) })
	r.P99 = of(func(s sample) float64 { return s.quantile(0.99) })
	if reference == nil || m.ours {
		return r
	}
	var rates, costs []float64
	for i, s := range samples {
		ours := reference.samples[load][i]
		rates, costs = append(rates, ours.rate()/s.rate()), append(costs, s.micros()/ours.micros())
	}
	r.RateRatio, r.RateSpread, r.LeastRate = median(rates), manual.SpreadOf(rates), m.leastRate
	if r.CPU > 0 { // nothing is attached otherwise
		r.CPURatio, r.CPUSpread, r.LeastCPU = median(costs), manual.SpreadOf(costs), m.leastCPU
	}
	return r
}

// quantile returns milliseconds, or 0 if no times were measured.
func (s sample) quantile(q float64) float64 {
	if len(s.took) == 0 {
		return 0
	}
	return ms(s.took.quantile(q))
}

// alone returns the load of a candidate that has one kind of it.
func (of subject) alone(send func(ctx context.Context, t turn) (int, latencies, time.Duration, error)) func(context.Context, turn) ([]loaded, error) {
	return func(ctx context.Context, t turn) ([]loaded, error) {
		s, err := of.take(ctx, func() (int, latencies, time.Duration, error) { return send(ctx, t) })
		return []loaded{{sample: s}}, err
	}
}

// ender returns a function that stops several things in reverse order.
func ender(stops ...func() error) func() error {
	return func() (err error) {
		for _, stop := range slices.Backward(stops) {
			err = errors.Join(err, stop())
		}
		return err
	}
}

// quiet returns a stop without an error. It is nil if nothing was started.
func quiet(stop func()) func() error {
	if stop == nil {
		return nil
	}
	return func() error { stop(); return nil }
}
