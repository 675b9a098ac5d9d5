package manual

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The pages show the figures of their JSON, and nothing else.
func TestFigures(t *testing.T) {
	for page, file := range map[string]string{"deploy/PEERS.md": "deploy/peers.json", "deploy/SCALE.md": "deploy/scale.json"} {
		f, err := ReadFigures(root, file)
		if err != nil {
			t.Fatal(err)
		}
		p := read(t, page)
		want, err := p.withFigures(f)
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(filepath.Join(root, page), []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if p.Text != want {
			t.Errorf("%s does not show the figures of %s; run go test ./internal/manual -run TestFigures -update", page, file)
		}
	}
}

// What speaks against Postern is found in the figures.
func TestAgainst(t *testing.T) {
	f := Figures{Groups: []FigureGroup{{Name: "Racing", Unit: "request", Rows: []FigureRow{
		{Server: "Postern", Load: "new", Ours: true, Rate: 100, P99: 2, CPU: 1, PSS: 30},
		{Server: "Postern with Redis", Load: "new", Ours: true, Rate: 200, P99: 1},
		{Server: "slow", Load: "new", Rate: 10, P99: 20, CPU: 9, PSS: 50, RateRatio: 10, CPURatio: 9, LeastRate: 10, LeastCPU: 8},
		{Server: "near", Load: "new", Rate: 50, P99: 3, CPU: 2, RateRatio: 2, CPURatio: 2, LeastRate: 3, LeastCPU: 4},
		{Server: "fast", Load: "new", Rate: 150, P99: 1.5, CPU: 0.5, PSS: 20, RateRatio: 0.667, CPURatio: 0.5},
		{Server: "gone", Load: "new", Missing: "it does not start"},
		{Server: "floor", Load: "other", Rate: 1000},
	}}}}
	want := []string{
		"Racing, near, new: **missed**: Postern's rate is 2.00 times its rate; the bound is 3.00",
		"Racing, near, new: **missed**: it uses 2.00 times Postern's CPU; the bound is 4.00",
		"Racing, fast, new is ahead: rate 150 /s, Postern 100 /s, p99 1.50 ms, Postern 2.00 ms, CPU of 10,000 0.500 s, Postern 1.00 s, PSS 20.0 MiB, Postern 30.0 MiB",
		"Racing, gone, new: not measured: it does not start",
	}
	if got := f.Against(); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	text := f.Markdown()
	if against, table := strings.Index(text, want[0]), strings.Index(text, "| Postern, new | 100 | 2.00 | 1.00 | 30.0 |"); against < 0 || table < against {
		t.Errorf("what speaks against Postern does not come before the tables:\n%s", text)
	}
}

// A page keeps the text around its figures, and must have a place for them.
func TestPlaceOfFigures(t *testing.T) {
	f := Figures{Measured: "today", Rounds: 3}
	page := Page{"PAGE.md", "before\n" + figuresBegin + "old\n" + figuresEnd + "after\n"}
	got, err := page.withFigures(f)
	if want := "before\n" + figuresBegin + f.Markdown() + figuresEnd + "after\n"; err != nil || got != want {
		t.Errorf("got %q, %v", got, err)
	}
	for _, text := range []string{"", figuresBegin, figuresEnd} {
		if _, err := (Page{"PAGE.md", text}).withFigures(f); err == nil || !strings.Contains(err.Error(), "PAGE.md") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
