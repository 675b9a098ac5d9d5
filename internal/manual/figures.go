package manual

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Figures are what a bench has measured. They are kept as JSON, and a page shows them as
// tables.
type Figures struct {
	Measured string        `json:"measured"` // the day
	Machine  string        `json:"machine"`
	Command  string        `json:"command"`
	Rounds   int           `json:"rounds"`
	Short    bool          `json:"short"` // a tenth of the load, for a quick look
	Groups   []FigureGroup `json:"groups"`
}

// FigureGroup is one comparison. All its rows had the same load.
type FigureGroup struct {
	Name string      `json:"name"`
	Text string      `json:"text"`
	Unit string      `json:"unit"` // what is counted: "request", "mail"
	Rows []FigureRow `json:"rows"`
	// Command measures this group alone.
	Command string `json:"command,omitempty"`
}

// FigureRow is one server under one load. A figure that was not measured is 0.
type FigureRow struct {
	Server  string `json:"server"`
	Load    string `json:"load,omitempty"`
	Note    string `json:"note,omitempty"`
	Missing string `json:"missing,omitempty"` // why there are no figures
	// Ours is set for Postern. The first such row of a load is what others are compared
	// with.
	Ours bool `json:"ours,omitempty"`

	Rate        float64 `json:"rate,omitempty"`   // a second
	P50         float64 `json:"p50_ms,omitempty"` // of the time from request to reply
	P99         float64 `json:"p99_ms,omitempty"`
	CPU         float64 `json:"cpu_s,omitempty"` // seconds of all its processes, for 10,000
	RSS         float64 `json:"rss_mib,omitempty"`
	PSS         float64 `json:"pss_mib,omitempty"`
	Descriptors float64 `json:"descriptors,omitempty"`
	Goroutines  float64 `json:"goroutines,omitempty"`

	// RateRatio is Postern's rate divided by this row's, the median of the rounds.
	// CPURatio is this row's CPU time divided by Postern's. Above 1, Postern is ahead.
	RateRatio float64 `json:"rate_ratio,omitempty"`
	CPURatio  float64 `json:"cpu_ratio,omitempty"`
	// How far the rounds were apart.
	RateSpread Spread `json:"rate_ratio_spread,omitzero"`
	CPUSpread  Spread `json:"cpu_ratio_spread,omitzero"`
	// The bounds of both ratios; 0 for none.
	LeastRate float64 `json:"least_rate_ratio,omitempty"`
	LeastCPU  float64 `json:"least_cpu_ratio,omitempty"`
}

// Spread is the smallest and the greatest of some values.
type Spread [2]float64

// SpreadOf returns the spread of values.
func SpreadOf(values []float64) Spread { return Spread{slices.Min(values), slices.Max(values)} }

func (s Spread) String() string {
	if s[0] == s[1] {
		return "" // one round, or none
	}
	return " (" + Figure(s[0]) + " to " + Figure(s[1]) + ")"
}

// ReadFigures reads a file of the tree at root.
func ReadFigures(root, path string) (f Figures, err error) {
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(text, &f); err != nil {
		return f, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// The lines around the text that Publish replaces.
const (
	figuresBegin = "<!-- figures: written by the bench, do not edit -->\n"
	figuresEnd   = "<!-- end of the figures -->\n"
)

// Publish writes the figures to base.json and shows them in the page BASE.md, both in
// deploy/ of the tree at root.
func (f Figures) Publish(root, base string) error {
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	page, err := Read(root, "deploy/"+strings.ToUpper(base)+".md")
	if err != nil {
		return err
	}
	shown, err := page.withFigures(f)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "deploy", base+".json"), append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, page.Path), []byte(shown), 0o644)
}

// withFigures returns the text of a page with f in place of the figures it shows.
func (p Page) withFigures(f Figures) (string, error) {
	before, rest, ok := strings.Cut(p.Text, figuresBegin)
	_, after, closed := strings.Cut(rest, figuresEnd)
	if !ok || !closed {
		return "", fmt.Errorf("%s: the figures have no place; write these two lines there: %s%s", p.Path, figuresBegin, figuresEnd)
	}
	return before + figuresBegin + f.Markdown() + figuresEnd + after, nil
}

// Markdown returns the figures as text. What speaks against Postern comes first.
func (f Figures) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nMeasured on %s with `%s` on %s. Each figure is the median of %d round%s.\n", f.Measured, f.Command, f.Machine, f.Rounds, map[bool]string{true: "", false: "s"}[f.Rounds == 1])
	if f.Short {
		b.WriteString("This was a short run with a tenth of the load: its figures are rough.\n")
	}
	if against := f.Against(); len(against) > 0 {
		b.WriteString("\n### What speaks against Postern\n\n")
		for _, line := range against {
			b.WriteString("- " + line + "\n")
		}
	}
	for _, g := range f.Groups {
		b.WriteString("\n" + g.markdown())
	}
	b.WriteString("\n")
	return b.String()
}

// Against returns what a reader should see first: missed bounds, what could not be
// measured, and in what a peer is ahead.
func (f Figures) Against() (all []string) {
	for _, g := range f.Groups {
		for _, r := range g.Rows {
			name := g.Name + ", " + r.title()
			switch {
			case r.Missing != "":
				all = append(all, name+": not measured: "+r.Missing)
			case r.LeastRate > 0 && r.RateRatio < r.LeastRate:
				all = append(all, fmt.Sprintf("%s: **missed**: Postern's rate is %s times its rate; the bound is %s", name, Figure(r.RateRatio), Figure(r.LeastRate)))
			}
			if r.LeastCPU > 0 && r.CPURatio < r.LeastCPU {
				all = append(all, fmt.Sprintf("%s: **missed**: it uses %s times Postern's CPU; the bound is %s", name, Figure(r.CPURatio), Figure(r.LeastCPU)))
			}
			if r.Ours || r.Missing != "" {
				continue
			}
			for _, ours := range g.ours(r.Load) {
				if ahead := r.ahead(ours); len(ahead) > 0 {
					all = append(all, name+" is ahead: "+strings.Join(ahead, ", "))
				}
			}
		}
	}
	return all
}

// ahead returns in what a row is ahead of a row of Postern.
func (r FigureRow) ahead(ours FigureRow) (all []string) {
	for _, c := range []struct {
		what, unit   string
		theirs, ours float64
		more         bool // is better
	}{
		{"rate", " /s", r.Rate, ours.Rate, true},
		{"p50", " ms", r.P50, ours.P50, false},
		{"p99", " ms", r.P99, ours.P99, false},
		{"CPU of 10,000", " s", r.CPU, ours.CPU, false},
		{"PSS", " MiB", r.PSS, ours.PSS, false},
	} {
		if c.theirs > 0 && c.ours > 0 && c.theirs != c.ours && (c.theirs > c.ours) == c.more {
			all = append(all, fmt.Sprintf("%s %s%s, %s %s%s", c.what, Figure(c.theirs), c.unit, ours.Server, Figure(c.ours), c.unit))
		}
	}
	return all
}

// ours returns Postern's rows for a load.
func (g FigureGroup) ours(load string) (rows []FigureRow) {
	for _, r := range g.Rows {
		if r.Ours && r.Load == load && r.Missing == "" {
			rows = append(rows, r)
		}
	}
	return rows
}

func (r FigureRow) title() string {
	if r.Load == "" {
		return r.Server
	}
	return r.Server + ", " + r.Load
}

// column is a column of a table. A group in which no row has the value has no such column.
type column struct {
	head   string
	value  func(FigureRow) float64
	spread func(FigureRow) Spread // of the value; nil for none
}

func (c column) cell(r FigureRow) string {
	cell := Figure(c.value(r))
	if c.spread != nil {
		cell += c.spread(r).String()
	}
	return cell
}

// columns returns those that the group has.
func (g FigureGroup) columns() []column {
	return slices.DeleteFunc([]column{
		{g.Unit + "s/s", func(r FigureRow) float64 { return r.Rate }, nil},
		{"p50, ms", func(r FigureRow) float64 { return r.P50 }, nil},
		{"p99, ms", func(r FigureRow) float64 { return r.P99 }, nil},
		{"CPU of 10,000, s", func(r FigureRow) float64 { return r.CPU }, nil},
		{"RSS, MiB", func(r FigureRow) float64 { return r.RSS }, nil},
		{"PSS, MiB", func(r FigureRow) float64 { return r.PSS }, nil},
		{"descriptors", func(r FigureRow) float64 { return r.Descriptors }, nil},
		{"goroutines", func(r FigureRow) float64 { return r.Goroutines }, nil},
		{"Postern's rate, times", func(r FigureRow) float64 { return r.RateRatio }, func(r FigureRow) Spread { return r.RateSpread }},
		{"its CPU, times Postern's", func(r FigureRow) float64 { return r.CPURatio }, func(r FigureRow) Spread { return r.CPUSpread }},
	}, func(c column) bool {
		return !slices.ContainsFunc(g.Rows, func(r FigureRow) bool { return c.value(r) > 0 })
	})
}

func (g FigureGroup) markdown() string {
	if len(g.Rows) == 0 {
		return fmt.Sprintf("### %s\n\n%s\n", g.Name, g.Text)
	}
	columns := g.columns()
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\n%s\n\n", g.Name, g.Text)
	if g.Command != "" {
		fmt.Fprintf(&b, "This table alone: `%s`\n\n", g.Command)
	}
	b.WriteString("| server |")
	for _, c := range columns {
		b.WriteString(" " + c.head + " |")
	}
	b.WriteString(" |\n|---|" + strings.Repeat("--:|", len(columns)) + "---|\n")
	for _, r := range g.Rows {
		b.WriteString("| " + r.title())
		for _, c := range columns {
			b.WriteString(" | " + c.cell(r))
		}
		note := r.Note
		if r.Missing != "" {
			note = "not measured: " + r.Missing
		}
		b.WriteString(" | " + note + " |\n")
	}
	return b.String()
}

// Figure returns three digits of a value, or all digits before its point. 0 was not
// measured.
func Figure(v float64) string {
	switch {
	case v == 0:
		return "–"
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case v >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 3, 64)
}
