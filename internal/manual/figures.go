package manual

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
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

	// RateRatio is Postern's rate divided by this row's, the median of the rounds.
	// CPURatio is this row's CPU time divided by Postern's. Above 1, Postern is ahead.
	RateRatio float64 `json:"rate_ratio,omitempty"`
	CPURatio  float64 `json:"cpu_ratio,omitempty"`
	// The bounds of both ratios; 0 for none.
	LeastRate float64 `json:"least_rate_ratio,omitempty"`
	LeastCPU  float64 `json:"least_cpu_ratio,omitempty"`
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
				all = append(all, fmt.Sprintf("%s: **missed**: Postern's rate is %s times its rate; the bound is %s", name, figure(r.RateRatio), figure(r.LeastRate)))
			}
			if r.LeastCPU > 0 && r.CPURatio < r.LeastCPU {
				all = append(all, fmt.Sprintf("%s: **missed**: it uses %s times Postern's CPU; the bound is %s", name, figure(r.CPURatio), figure(r.LeastCPU)))
			}
			if ahead := g.ahead(r); len(ahead) > 0 && !r.Ours {
				all = append(all, name+" is ahead: "+strings.Join(ahead, ", "))
			}
		}
	}
	return all
}

// ahead returns in what a row is ahead of Postern.
func (g FigureGroup) ahead(r FigureRow) (all []string) {
	ours, ok := g.reference(r.Load)
	if !ok || r.Missing != "" {
		return nil
	}
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
			all = append(all, fmt.Sprintf("%s %s%s, Postern %s%s", c.what, figure(c.theirs), c.unit, figure(c.ours), c.unit))
		}
	}
	return all
}

// reference returns Postern's row for a load. ok is false if the group has none.
func (g FigureGroup) reference(load string) (r FigureRow, ok bool) {
	for _, r := range g.Rows {
		if r.Ours && r.Load == load && r.Missing == "" {
			return r, true
		}
	}
	return FigureRow{}, false
}

func (r FigureRow) title() string {
	if r.Load == "" {
		return r.Server
	}
	return r.Server + ", " + r.Load
}

// columns returns the head and the cells of each figure that the group has.
func (g FigureGroup) columns() (heads []string, cells []func(FigureRow) float64) {
	for _, c := range []struct {
		head string
		cell func(FigureRow) float64
	}{
		{g.Unit + "s/s", func(r FigureRow) float64 { return r.Rate }},
		{"p50, ms", func(r FigureRow) float64 { return r.P50 }},
		{"p99, ms", func(r FigureRow) float64 { return r.P99 }},
		{"CPU of 10,000, s", func(r FigureRow) float64 { return r.CPU }},
		{"RSS, MiB", func(r FigureRow) float64 { return r.RSS }},
		{"PSS, MiB", func(r FigureRow) float64 { return r.PSS }},
		{"descriptors", func(r FigureRow) float64 { return r.Descriptors }},
		{"Postern's rate, times", func(r FigureRow) float64 { return r.RateRatio }},
		{"its CPU, times Postern's", func(r FigureRow) float64 { return r.CPURatio }},
	} {
		for _, r := range g.Rows {
			if c.cell(r) > 0 {
				heads, cells = append(heads, c.head), append(cells, c.cell)
				break
			}
		}
	}
	return heads, cells
}

func (g FigureGroup) markdown() string {
	if len(g.Rows) == 0 {
		return fmt.Sprintf("### %s\n\n%s\n", g.Name, g.Text)
	}
	heads, cells := g.columns()
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\n%s\n\n| server | %s | |\n|---|%s---|\n", g.Name, g.Text, strings.Join(heads, " | "), strings.Repeat("--:|", len(heads)))
	for _, r := range g.Rows {
		b.WriteString("| " + r.title())
		for _, cell := range cells {
			b.WriteString(" | " + figure(cell(r)))
		}
		note := r.Note
		if r.Missing != "" {
			note = "not measured: " + r.Missing
		}
		b.WriteString(" | " + note + " |\n")
	}
	return b.String()
}

// figure returns three digits of a value, or all digits before its point. 0 was not
// measured.
func figure(v float64) string {
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
