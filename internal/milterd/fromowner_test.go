package milterd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/postmap"
	"github.com/postern-mail/postern/internal/service"
)

func exemptTables(t *testing.T, specs ...string) *exemptions {
	t.Helper()
	e := &exemptions{loginDomain: "home.example"}
	for _, spec := range specs {
		table, err := postmap.Open(spec, postmap.Options{})
		if err != nil {
			t.Fatal(err)
		}
		e.tables = append(e.tables, table)
	}
	return e
}

func TestExemptions(t *testing.T) {
	e := exemptTables(t,
		"inline:{ {alice@home.example = any}, {bob = redirect, display}, {carol@home.example = ok}, {dora = x@partner.example @shop.example @B\u00fccher.example}, {@shop.example = redirect}, {eve = nonsense display} }",
		"inline:{ {alice@home.example = redirect}, {frank = any} }", "inline:{ {*@other.example = any} }", "static:display")
	const none = "any=false redirect=false display=true [] []" // of the last table
	for login, want := range map[string]string{
		"alice@home.example": "any=true redirect=false display=false [] []",
		"Alice@HOME.example": "any=true redirect=false display=false [] []",
		"alice":              "any=true redirect=false display=false [] []",
		"bob":                "any=false redirect=true display=true [] []",
		"bob@home.example":   "any=false redirect=true display=true [] []",
		"bob@shop.example":   "any=false redirect=true display=false [] []",
		"carol":              "any=true redirect=false display=false [] []",
		"dora":               "any=false redirect=false display=false [x@partner.example] [shop.example xn--bcher-kva.example]",
		"eve":                "any=false redirect=false display=true [] []",
		"frank":              "any=true redirect=false display=false [] []",
		"x@other.example":    none, // inline: has no patterns
		"nobody":             none,
	} {
		x, err := e.lookup(t.Context(), login)
		if got := fmt.Sprintf("any=%v redirect=%v display=%v %v %v", x.Any, x.Redirect, x.Display, x.Addresses, x.Domains); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", login, got, err, want)
		}
		if (x.Problem != nil) != (login == "eve") {
			t.Errorf("%s: problem %v", login, x.Problem)
		}
	}
}

// A word that is not understood is an error with its line before anything runs.
func TestExemptionsAreChecked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "exempt")
	if err := os.WriteFile(path, []byte("# who may do more\nalice@home.example any\nbob@home.example redirekt\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := configure([]string{"--config=", "--dkim-keys=", "--mark-key-file=", "--from-ownership=enforce", "--owners=static:x", "--from-exempt=hash:" + path}, nil)
	if err != nil {
		t.Fatal(err)
	}
	life := service.NewLife()
	defer life.Discard()
	_, err = s.Build(life, service.NewRuntime(zap.NewNop(), metrics.New(metrics.Options{Daemon: daemonName})))
	if err == nil || !strings.Contains(err.Error(), path+":3") || !strings.Contains(err.Error(), `"redirekt" is not any, redirect, display, an address or @domain`) {
		t.Errorf("error %v", err)
	}
}

// --check-config --online asks the servers of these tables too.
func TestExemptionsAreProbed(t *testing.T) {
	away := "socketmap:unix:" + filepath.Join(t.TempDir(), "away") + ":exempt"
	s, err := configure([]string{"--config=", "--dkim-keys=", "--mark-key-file=", "--from-ownership=enforce", "--owners=static:x", "--from-exempt=" + away, "--check-config", "--online"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	life := service.NewLife()
	defer life.Discard()
	_, err = s.Build(life, service.NewRuntime(zap.NewNop(), metrics.New(metrics.Options{Daemon: daemonName})))
	if err == nil || !strings.Contains(err.Error(), "from-exempt") || !strings.Contains(err.Error(), "cannot answer") {
		t.Errorf("error %v", err)
	}
}

// Without a table the check cannot be switched on, and tables without the check do
// nothing.
func TestFromOwnershipSettings(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--from-ownership=enforce"}, "set owners or owner-aliases as in policyd.toml"},
		{[]string{"--owners=static:x", "--check-config"}, "owners: has no effect"},
		{[]string{"--from-exempt=static:any", "--check-config"}, "from-exempt: has no effect"},
		{[]string{"--from-ownership=shadow", "--owners=static:x", "--null-sender=reject", "--check-config"}, "null-sender: has no effect"},
		{[]string{"--from-ownership=shadow", "--owners=static:x", "--owner-self=false", "--check-config"}, ""},
		{[]string{"--from-ownership=enforce", "--owners=static:x", "--shadow=all", "--listen-sign=inet:127.0.0.1:7", "--check-config"}, ""},
	} {
		_, err := configure(append([]string{"--config="}, tt.args...), nil)
		if text := errorText(err); (tt.want == "") != (err == nil) || !strings.Contains(strings.ReplaceAll(text, "--", ""), tt.want) {
			t.Errorf("%q: %v, want %q", tt.args, err, tt.want)
		}
	}
}
