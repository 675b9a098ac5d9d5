package manualtest

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/postern-mail/postern/internal/manual"
	"github.com/postern-mail/postern/internal/metrics"
)

// Exported returns the number of series. It fails the test in these cases: a registered
// metric of Postern has no value; its name, unit or help text does not follow the
// conventions of Prometheus; a label is not in deploy/README.md; or the value of a
// label comes from a stranger.
func Exported(t *testing.T, m *metrics.Metrics) (series int) {
	t.Helper()
	problems, err := testutil.GatherAndLint(m.Gatherer())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	families, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	documented, _, err := manual.MetricLabels("../..")
	if err != nil {
		t.Fatal(err)
	}
	var exported []string
	for _, family := range families {
		if !strings.HasPrefix(family.GetName(), "postern_") {
			continue
		}
		exported = append(exported, family.GetName())
		series += len(family.Metric)
		if !helpText.MatchString(family.GetHelp()) {
			t.Errorf("%s: help text %q is not one sentence", family.GetName(), family.GetHelp())
		}
		for _, metric := range family.Metric {
			if got, want := labelNames(metric.Label), documented[family.GetName()]; !slices.Equal(got, slices.Sorted(slices.Values(want))) {
				t.Errorf("%s has the labels %q, and deploy/README.md lists %q", family.GetName(), got, want)
			}
			for _, label := range metric.Label {
				if !labelName.MatchString(label.GetName()) || !labelValue.MatchString(label.GetValue()) {
					t.Errorf("%s: label %s=%.100q", family.GetName(), label.GetName(), label.GetValue())
				}
			}
		}
	}
	for _, name := range names(m) {
		if !slices.Contains(exported, name) {
			t.Errorf("%s has no value", name)
		}
	}
	return series
}

// labelNames returns the names of labels, sorted.
func labelNames[L interface{ GetName() string }](labels []L) (all []string) {
	for _, label := range labels {
		all = append(all, label.GetName())
	}
	return all
}

// The forms of texts, labels and values. A value is a word of the program, or one that
// the administrator chose: a zone, a server, a version.
var (
	helpText   = regexp.MustCompile(`^[A-Z0-9][^.]*(\.[^ ][^.]*)*\.$`)
	labelName  = regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	labelValue = regexp.MustCompile(`^[A-Za-z0-9_.:+*-]{1,64}$`)
)

// Hostile returns texts such as strangers send.
func Hostile() []string {
	return []string{
		`<script>alert(1)</script>`, "x\x00y", "\u202eevil", strings.Repeat("a", 4096), "\xff\xfe", `a"} 1`, "b\nc", `d\`, "{check=\"x\"}", "é@bücher.example",
	}
}
