package status

import (
	"os"
	"regexp"
	"testing"
)

// What the value of a metric alerts about is among the conditions of the page, and is
// shown as a problem.
func TestAlertsAreLamps(t *testing.T) {
	rules, err := os.ReadFile("../../deploy/prometheus/postern.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	all := regexp.MustCompile(`(?m)(?:expr: '|or )(postern_\w+) (== 0|== 1|> 0)(?: or|'$)`).FindAllStringSubmatch(string(rules), -1)
	if len(all) < 15 {
		t.Errorf("%d alerts were found", len(all))
	}
	for _, alert := range all {
		value := 1.0
		if alert[2] == "== 0" {
			value = 0
		}
		if good, is := lamp(alert[1], value); good || !is {
			t.Errorf("%s %s: good %v, on the page %v", alert[1], alert[2], good, is)
		}
	}
}
