package manual

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/metrics"
)

const dashboardFile = "deploy/grafana/postern.json"

// query is one question of the dashboard.
type query struct{ title, expr, legend string }

// dashboard is what we look at of Grafana's format.
type dashboard struct {
	Panels []struct {
		ID      int
		Type    string
		Title   string
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ Expr, LegendFormat string }
	}
	Annotations struct {
		List []struct{ Name, Expr, TextFormat string }
	}
}

func readDashboard(t *testing.T) (d dashboard, queries []query) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, dashboardFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			queries = append(queries, query{p.Title, target.Expr, target.LegendFormat})
		}
	}
	for _, a := range d.Annotations.List {
		queries = append(queries, query{a.Name, a.Expr, a.TextFormat})
	}
	if len(queries) < 40 {
		t.Fatalf("%d queries were found", len(queries))
	}
	return d, queries
}

// withProcess adds the metrics of the Go runtime and the process, which have no
// labels.
func withProcess(t *testing.T, known map[string][]string) {
	t.Helper()
	families, err := metrics.New(metrics.Options{}).Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if name := f.GetName(); strings.HasPrefix(name, "process_") {
			known[name] = nil
		}
	}
}

var legendLabel = regexp.MustCompile(`\{\{(\w+)\}\}`)

// Every query of the dashboard is one for Prometheus, asks for metrics, labels and
// reasons that there are, and has a legend of labels that its answer has.
func TestDashboard(t *testing.T) {
	known := knownMetrics(t)
	withProcess(t, known)
	d, queries := readDashboard(t)
	variables := strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*")
	var rules strings.Builder
	rules.WriteString("groups:\n  - name: dashboard\n    rules:\n")
	for i, q := range queries {
		expr := variables.Replace(q.expr)
		if strings.Contains(strings.ReplaceAll(expr, `"$`, ""), "$") {
			t.Errorf("%s: %s: there is no such variable", q.title, expr)
		}
		fmt.Fprintf(&rules, "      - record: query%d\n        expr: '%s'\n", i, expr)
		for _, wrong := range misfits(expr, known) {
			t.Errorf("%s: %s: %s: %s", dashboardFile, q.title, q.expr, wrong)
		}
		for _, m := range legendLabel.FindAllStringSubmatch(q.legend, -1) {
			if by := grouping.FindStringSubmatch(q.expr); by != nil && !strings.Contains(by[1], m[1]) || by == nil && m[1] != "instance" {
				t.Errorf("%s: the legend %s names a label that the answer does not have", q.title, q.legend)
			}
		}
	}
	file := filepath.Join(t.TempDir(), "dashboard.rules.yml")
	if err := os.WriteFile(file, []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", file)
	d.check(t)
}

// check looks at what a person sees: panels have titles and queries, and none lies on
// another.
func (d *dashboard) check(t *testing.T) {
	t.Helper()
	ids := make(map[int]string)
	taken := make(map[[2]int]string)
	for _, p := range d.Panels {
		if other := ids[p.ID]; other != "" || p.Title == "" || p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %d %q: number of %q, or without a title or a query", p.ID, p.Title, other)
		}
		ids[p.ID] = p.Title
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%q lies on %q", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}
