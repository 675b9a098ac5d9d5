package manual

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/record"
)

// knownMetrics returns the metrics that deploy/README.md lists, and their labels. The
// tests of the daemons compare that list with what is registered.
func knownMetrics(t *testing.T) map[string][]string {
	t.Helper()
	all, histograms, err := MetricLabels(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range histograms {
		for _, part := range []string{"_bucket", "_sum", "_count"} {
			all[name+part] = append(slices.Clone(all[name]), "le")
		}
		delete(all, name)
	}
	if len(all) < 50 {
		t.Fatalf("%d metrics were found", len(all))
	}
	all["up"] = nil // Prometheus's own
	return all
}

var (
	selector = regexp.MustCompile(`\b([a-z_][a-z0-9_]*)(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`^\s*([a-z_]+)(?:=~?|!~|!=)"([^"]*)"\s*$`)
	grouping = regexp.MustCompile(`\b(?:by|without|on|ignoring|group_left|group_right) ?\(([^)]*)\)`)
	// words are those of the language that our queries use, and what Prometheus adds.
	words  = strings.Fields("sum rate increase changes max min avg count by and or unless absent histogram_quantile clamp_min topk time offset bool")
	target = []string{"instance", "job"}
)

// misfits returns what a query names that is not there: metrics, labels, reasons.
func misfits(query string, known map[string][]string) (all []string) {
	labels := slices.Clone(target)
	for _, m := range selector.FindAllStringSubmatch(grouping.ReplaceAllString(query, ""), -1) {
		name, of := m[1], slices.Clone(target)
		switch has, ok := known[name]; {
		case ok:
			of = append(of, has...)
			labels = append(labels, has...)
		case slices.Contains(words, name):
			continue
		default:
			all = append(all, fmt.Sprintf("there is no metric %s", name))
			continue
		}
		if m[2] == "" {
			continue
		}
		for _, part := range splitMatchers(m[2]) {
			label := matcher.FindStringSubmatch(part)
			switch {
			case label == nil:
				all = append(all, fmt.Sprintf("%q is not understood", part))
			case !slices.Contains(of, label[1]):
				all = append(all, fmt.Sprintf("%s has no label %s", name, label[1]))
			case name == "postern_decisions_total":
				all = append(all, unknownWords(label[1], label[2])...)
			}
		}
	}
	for _, m := range grouping.FindAllStringSubmatch(query, -1) {
		for label := range strings.SplitSeq(m[1], ",") {
			if label = strings.TrimSpace(label); !slices.Contains(labels, label) {
				all = append(all, fmt.Sprintf("no metric of the query has the label %s", label))
			}
		}
	}
	return all
}

// splitMatchers cuts at the commas outside of quotes.
func splitMatchers(s string) (parts []string) {
	for s != "" {
		end := regexp.MustCompile(`^[^",]*"[^"]*"`).FindString(s)
		if end == "" {
			return append(parts, s)
		}
		parts = append(parts, end)
		s = strings.TrimPrefix(s[len(end):], ",")
	}
	return parts
}

// unknownWords returns the alternatives of a matcher that no decision has.
func unknownWords(label, pattern string) (all []string) {
	for word := range strings.SplitSeq(pattern, "|") {
		if strings.ContainsAny(word, "$.*+") {
			continue
		}
		if !slices.ContainsFunc(decisions(), func(l record.Labels) bool {
			return word == map[string]string{"check": l.Check, "verdict": l.Verdict, "reason": string(l.Reason), "mode": l.Mode}[label]
		}) {
			all = append(all, fmt.Sprintf("no decision has %s=%q", label, word))
		}
	}
	return all
}

// decisions are those that any settings can lead to.
func decisions() (all []record.Labels) {
	for _, check := range []string{"", "policy_context", "ownership", "limit", "dnsbl", "greylist", "sign", "verify"} {
		all = append(all, record.Known(check, false)...)
		all = append(all, record.Known(check, true)...)
	}
	return all
}

// A query that names what is not there is found.
func TestMisfits(t *testing.T) {
	known := knownMetrics(t)
	for query, want := range map[string]string{
		`sum by (instance) (rate(postern_decisions_total{check="greylist",reason=~"greylist_new|owned"}[5m])) > 0`: "",
		`histogram_quantile(0.99, sum by (le, check) (rate(postern_decision_duration_seconds_bucket[5m])))`:        "",
		`up{job="postern"} == 0`:                            "",
		`rate(postern_decision_total[5m])`:                  "there is no metric postern_decision_total",
		`rate(postern_decision_duration_seconds[5m])`:       "there is no metric postern_decision_duration_seconds",
		`postern_dns_up{server="x"}`:                        "postern_dns_up has no label server",
		`sum by (zone) (postern_dns_up)`:                    "no metric of the query has the label zone",
		`postern_decisions_total{reason="greylist_newer"}`:  `no decision has reason="greylist_newer"`,
		`postern_decisions_total{verdict=~"pass|deferred"}`: `no decision has verdict="deferred"`,
		`node_load1 > 1`:                                    "there is no metric node_load1",
	} {
		if got := strings.Join(misfits(query, known), "; "); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
}
