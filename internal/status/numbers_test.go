package status

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// noLamps are the metrics of alerts that are no conditions of the page: what each event of
// them means depends on how many there are, and the page shows them in another way.
var noLamps = map[string]string{
	"postern_decisions_total":                  "shown by reason",
	"postern_check_errors_total":               "a part of the decisions",
	"postern_decision_duration_seconds_bucket": "shown as times",
	"postern_limit_alarms_total":               "about a user, shown among the events",
}

// alertSeries matches a metric in an expression, with its labels.
var alertSeries = regexp.MustCompile(`(postern_\w+)(?:\{(\w+)=~?"([^"]*)"\})?`)

// What an alert is about is among the conditions of the page and is shown as a problem
// there, and the reverse.
func TestAlertsAreLamps(t *testing.T) {
	rules, err := os.ReadFile("../../deploy/prometheus/postern.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	alerted := make(map[string]bool)
	for _, expr := range regexp.MustCompile(`(?m)^ +expr: '(.*)'$`).FindAllStringSubmatch(string(rules), -1) {
		for _, found := range alertSeries.FindAllStringSubmatch(expr[1], -1) {
			name, label := found[1], found[2]
			if noLamps[name] != "" {
				continue
			}
			alerted[name] = true
			for _, value := range strings.Split(found[3], "|") {
				number := 1.0
				if strings.Contains(expr[1], name+" == 0") {
					number = 0
				}
				if good, is := lamp(name, map[string]string{label: value}, number); good || !is {
					t.Errorf("%s: %s=%q %v: good %v, on the page %v", name, label, value, number, good, is)
				}
			}
		}
	}
	if len(alerted) < 20 {
		t.Errorf("%d metrics were found", len(alerted))
	}
	for _, z := range shouldBeZero() {
		if !alerted[z.name] {
			t.Errorf("%s is a condition of the page, and there is no alert about it", z.name)
		}
	}
}

// Of a metric with a label only the values that are a problem are conditions.
func TestLampsByLabel(t *testing.T) {
	for value, want := range map[string]bool{"missing": true, "verifies": false, "": false} {
		if _, is := lamp("postern_dkim_keys_published", map[string]string{"dns": value}, 1); is != want {
			t.Errorf("dns=%q: %v, want %v", value, is, want)
		}
	}
}
