package doctor

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-mail/postern/dnsbl"
	"github.com/postern-mail/postern/internal/golden"
	"github.com/postern-mail/postern/internal/milterd"
	"github.com/postern-mail/postern/internal/policyd"
	"github.com/postern-mail/postern/internal/postconf"
	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/setup"
)

// afterSetup are the checks of what postern setup writes into Postfix.
var afterSetup = []string{"postfix", "attached", "context", "ownership", "order", "delay", "twice", "signing", "actions", "macros", "postscreen", "proxy-filter", "limit", "bounds"}

// Of what postern setup would write there is nothing to say, whatever Postfix was set to. A
// case may name what setup cannot change.
func TestAfterSetup(t *testing.T) {
	postfixtest.Require(t)
	for _, c := range golden.Files(t, "../setup/testdata/plans/*.txt") {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			o := Options{Only: afterSetup, bounds: patient}
			o.ConfigDirectory, o.Policyd.Config, o.Milterd.Config, o.paths = planned(t, c)
			r, known := Run(t.Context(), o), c.Get("doctor")
			left := slices.DeleteFunc(problems(r), func(f Finding) bool { return known != "" && strings.Contains(f.Text, known) })
			if len(left) > 0 || (known != "") != (r.Status() != 0) {
				t.Errorf("status %d:\n%s", r.Status(), show(problems(r)))
			}
		})
	}
}

// planned writes the files of a case as the plan for it has them.
func planned(t *testing.T, c golden.Case) (postfix, policydFile, milterdFile string, other paths) {
	t.Helper()
	root := makeDir(t)
	delete(c.Sections, "message")
	for name, text := range c.Sections {
		if !strings.HasPrefix(name, "/") {
			name = filepath.Join("etc/postfix", name)
		}
		writeFile(t, filepath.Join(root, name), []byte(strings.ReplaceAll(text, "ROOT", root)))
	}
	s := &site{t: t, postfix: root}
	postfix, policydFile, milterdFile = s.path("etc/postfix"), s.path("etc/postern/policyd.toml"), s.path("etc/postern/milterd.toml")
	s.must(postconf.Settle(postfix))
	o := setup.Options{
		ConfigDirectory: postfix, Root: root, User: "postern", Hide: dnsbl.HideKeys,
		Policyd: setup.Daemon{Program: policyd.Program(), Config: policydFile},
		Milterd: setup.Daemon{Program: milterd.Program(), Config: milterdFile},
		Policy:  setup.DefaultPolicy, Verify: setup.DefaultVerify, Sign: setup.DefaultSign,
		Only: c.Get("only"), Signer: c.Get("signer"), Greylister: c.Get("greylister"),
	}
	for field, endpoint := range map[string]*string{"policy": &o.Policy, "verify": &o.Verify, "sign": &o.Sign} {
		if value := c.Get(field); strings.HasPrefix(value, "inet:") {
			*endpoint = value
		}
	}
	if shadow, err := strconv.ParseBool(c.Get("shadow")); err == nil {
		o.Shadow = &shadow
	}
	plan, err := setup.MakePlan(t.Context(), o)
	s.must(err)
	for _, change := range plan.Changes {
		where := []string{"-c", postfix, "-e", change.Name + "=" + change.New}
		if change.Service != "" {
			where = []string{"-c", postfix, "-P", change.Service + "/" + change.Name + "=" + change.New}
		}
		s.system("postconf", where...)
		s.must(postconf.Settle(postfix))
	}
	for _, file := range plan.Files {
		writeFile(t, file.Path, file.Text)
	}
	return postfix, policydFile, milterdFile, paths{amavis: s.path(""), rspamd: s.path("etc/rspamd"), iredapd: s.path("opt/iredapd/settings.py"), keys: s.path("var/lib/rspamd/dkim"), mailLogs: []string{}}
}

func writeFile(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}
