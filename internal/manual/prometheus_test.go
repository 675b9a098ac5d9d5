package manual

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const rulesFile = "deploy/prometheus/postern.rules.yml"

// promtool runs Prometheus's own tool in the folder of the rules.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "promtool", args...)
	cmd.Dir = filepath.Join(root, filepath.Dir(rulesFile))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s (Debian's package prometheus): %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestRules(t *testing.T) {
	promtool(t, "check", "config", "prometheus.yml")
	promtool(t, "check", "rules", "postern.rules.yml")
	promtool(t, "test", "rules", "postern.test.yml")
}

// alert is one rule of the file.
type alert struct{ name, text, query string }

// member returns the value of a key of the rule.
func (a alert) member(key string) string {
	m := regexp.MustCompile(`(?m)^ +` + key + `: '?(.*?)'?$`).FindStringSubmatch(a.text)
	if m == nil {
		return ""
	}
	return m[1]
}

func alerts(t *testing.T) (all []alert) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, rulesFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range strings.Split(string(text), "- alert: ")[1:] {
		a := alert{text: block}
		a.name, _, _ = strings.Cut(block, "\n")
		a.query = a.member("expr")
		all = append(all, a)
	}
	if len(all) < 20 {
		t.Fatalf("%d alerts were found", len(all))
	}
	return all
}

// Every alert asks for metrics that there are, says what to do, has its section, and
// is tested.
func TestAlerts(t *testing.T) {
	known := knownMetrics(t)
	page := read(t, "deploy/prometheus/README.md")
	tests, err := os.ReadFile(filepath.Join(root, "deploy/prometheus/postern.test.yml"))
	if err != nil {
		t.Fatal(err)
	}
	sections := page.Anchors()
	for _, a := range alerts(t) {
		for _, wrong := range misfits(a.query, known) {
			t.Errorf("%s: %s: %s", rulesFile, a.name, wrong)
		}
		for key, want := range map[string]string{
			"severity": `^(critical|warning|info)$`, "summary": `.{20}`, "runbook": `.{20}`,
			"runbook_url": `^https://github.com/postern-mail/postern/blob/main/deploy/prometheus/README.md#` + strings.ToLower(a.name) + `$`,
		} {
			if got := a.member(key); !regexp.MustCompile(want).MatchString(got) {
				t.Errorf("%s: %s has %s %q", rulesFile, a.name, key, got)
			}
		}
		if !sections[strings.ToLower(a.name)] {
			t.Errorf("%s has no section %s", page.Path, a.name)
		}
		delete(sections, strings.ToLower(a.name))
		if !regexp.MustCompile(`alertname: ` + a.name + `\n +exp_alerts:\n +- exp_labels:`).Match(tests) {
			t.Errorf("no test has %s fire", a.name)
		}
		if !regexp.MustCompile(`alertname: ` + a.name + `\n +exp_alerts: \[\]`).Match(tests) {
			t.Errorf("no test has %s silent", a.name)
		}
	}
	for anchor := range sections {
		if strings.HasPrefix(anchor, "postern") {
			t.Errorf("%s has the section %s, and there is no such alert", page.Path, anchor)
		}
	}
	// The tests of the rules name metrics too.
	for _, m := range regexp.MustCompile(`series: '([^{]*)`).FindAllStringSubmatch(string(tests), -1) {
		if _, ok := known[m[1]]; !ok {
			t.Errorf("postern.test.yml has a metric %s, and there is none", m[1])
		}
	}
}
