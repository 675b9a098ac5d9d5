package manual

import (
	"fmt"
	"go/ast"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/milterd"
	"github.com/postern-mail/postern/internal/policyd"
)

// elsewhere are names in the changelog that are of Postfix, systemd, Redis and others, or of
// values, and look like ours.
var elsewhere = strings.Fields(`content_filter db_dump default_action dkim_signing json_build_object master_service_disable
	milter_default_action min-replicas-to-write non_smtpd_milters not_applicable permit_mynetworks policy_context
	postern-milterd reject_known_sender_login_mismatch reject_sender_login_mismatch
	reject_unauthenticated_sender_login_mismatch smtp_generic_maps smtp_header_checks smtpd_delay_reject
	smtpd_etrn_restrictions smtpd_proxy_filter smtpd_sender_login_maps smtpd_sender_restrictions
	smtpd_upstream_proxy_protocol`)

// names are what the changelog may name.
type names struct {
	flags    map[string]bool // of the daemons, which are settings too, and of the command
	metrics  map[string][]string
	reasons  []string
	commands map[string]bool // without "postern"
	groups   map[string]bool // of commands: their first word
	alerts   []string
	targets  string // the Makefile
}

func allNames(t *testing.T) *names {
	t.Helper()
	n := &names{flags: flags(t, policyd.Main), metrics: knownMetrics(t), reasons: reasons(t), commands: make(map[string]bool), groups: make(map[string]bool)}
	maps.Copy(n.flags, flags(t, milterd.Main))
	for _, name := range commandFlags(t) {
		n.flags[name] = true
	}
	for _, file := range parsed(t, "cmd/postern") {
		ast.Inspect(file, func(node ast.Node) bool {
			if pair, ok := node.(*ast.KeyValueExpr); ok {
				if key, ok := pair.Key.(*ast.Ident); ok && key.Name == "path" {
					for _, path := range literals(pair.Value) {
						n.commands[path] = true
						group, _, _ := strings.Cut(path, " ")
						n.groups[group] = true
					}
				}
			}
			return true
		})
	}
	for _, a := range alerts(t) {
		n.alerts = append(n.alerts, a.name)
	}
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	n.targets = string(makefile)
	if len(n.commands) < 20 || len(n.alerts) < 20 {
		t.Fatalf("%d commands, %d alerts were found", len(n.commands), len(n.alerts))
	}
	return n
}

var (
	span        = regexp.MustCompile("`([^`]+)`")
	metricName  = regexp.MustCompile(`^(postern_\w+)(?:\{([^}]*)\})?$`)
	flagName    = regexp.MustCompile(`^--([a-z][a-z0-9-]*)`)
	settingName = regexp.MustCompile(`^([a-z][a-z0-9]*(?:-[a-z0-9]+)+)(?: = .*)?$`)
	reasonName  = regexp.MustCompile(`^([a-z]+(?:_[a-z]+)+)(?:$|[ =])`)
	alertName   = regexp.MustCompile(`\bPostern[A-Z]\w+`)
	// gone are the words with which a bullet says that a name is not there any more.
	gone = regexp.MustCompile(`\b(was renamed|is renamed|was called|was removed|is gone)\b`)
)

// unknown returns what is wrong with the names of a changelog.
func (n *names) unknown(text string) (all []string) {
	for bullet := range strings.SplitSeq(text, "\n- ") {
		if gone.MatchString(bullet) {
			continue
		}
		bullet = strings.Join(strings.Fields(bullet), " ")
		for _, m := range span.FindAllStringSubmatch(bullet, -1) {
			if what := n.misses(m[1]); what != "" {
				all = append(all, fmt.Sprintf("there is no %s `%s`", what, m[1]))
			}
		}
		for _, name := range alertName.FindAllString(bullet, -1) {
			if !slices.Contains(n.alerts, name) {
				all = append(all, "there is no alert "+name)
			}
		}
	}
	return all
}

// misses returns what kind of name is not there, "" if it is, or if it is none of ours.
func (n *names) misses(code string) string {
	if m := metricName.FindStringSubmatch(code); m != nil {
		return n.missesMetric(m[1], m[2])
	}
	if command, ok := strings.CutPrefix(code, "postern "); ok {
		return n.missesCommand(command)
	}
	if target, ok := strings.CutPrefix(code, "make "); ok && !strings.Contains(n.targets, "\n"+target+":") {
		return "target"
	}
	if m := flagName.FindStringSubmatch(code); m != nil && !n.flags[m[1]] {
		return "flag"
	}
	if m := settingName.FindStringSubmatch(code); m != nil && !n.flags[m[1]] && !slices.Contains(elsewhere, m[1]) {
		return "setting"
	}
	if m := reasonName.FindStringSubmatch(code); m != nil && !slices.Contains(n.reasons, m[1]) && !slices.Contains(elsewhere, m[1]) {
		return "reason"
	}
	return ""
}

func (n *names) missesMetric(name, labels string) string {
	has, ok := n.metrics[name]
	if !ok {
		if has, ok = n.metrics[name+"_bucket"]; !ok {
			return "metric"
		}
	}
	for label := range strings.SplitSeq(labels, ",") {
		label, _, _ = strings.Cut(label, "=")
		if label != "" && !slices.Contains(has, label) {
			return "label of the metric"
		}
	}
	return ""
}

// missesCommand takes the words before the first flag or argument.
func (n *names) missesCommand(command string) string {
	var words []string
	for word := range strings.FieldsSeq(command) {
		if m := flagName.FindStringSubmatch(word); m != nil && !n.flags[m[1]] {
			return "flag in"
		}
		if strings.HasPrefix(word, "-") || strings.ToLower(word) != word {
			break
		}
		words = append(words, word)
	}
	switch {
	case len(words) == 0, len(words) == 1 && n.groups[words[0]], n.commands[words[0]]:
		return ""
	case len(words) > 1 && n.commands[words[0]+" "+words[1]]:
		return ""
	}
	return "command"
}

// Every metric, setting, flag, reason, command, alert and target that the changelog names is
// there, or its bullet says that it was renamed or removed.
func TestChangelogNames(t *testing.T) {
	n := allNames(t)
	for _, wrong := range n.unknown(read(t, "CHANGELOG.md").Text) {
		t.Error(wrong)
	}
}

// A name that is not there is found.
func TestUnknownNames(t *testing.T) {
	n := allNames(t)
	for text, want := range map[string]string{
		"- `postern_no_such_total`":                   "there is no metric `postern_no_such_total`",
		"- `postern_decisions_total{colour}`":         "there is no label of the metric `postern_decisions_total{colour}`",
		"- `greylist-colour = \"red\"` and\n- `--no`": "there is no setting `greylist-colour = \"red\"`\nthere is no flag `--no`",
		"- `greylist_colour`":                         "there is no reason `greylist_colour`",
		"- `postern paint --json`":                    "there is no command `postern paint --json`",
		"- `postern dkim paint`":                      "there is no command `postern dkim paint`",
		"- `postern log\n  --colour`":                 "there is no flag in `postern log --colour`",
		"- Alert PosternPainted":                      "there is no alert PosternPainted",
		"- `make paint`":                              "there is no target `make paint`",
		"- `greylist-colour` was renamed":             "",
		"- `postern dkim check`, `--since 2h`, `greylist_new`, `postern_dns_question_duration_seconds`, PosternDown": "",
	} {
		if got := strings.Join(n.unknown(text), "\n"); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
