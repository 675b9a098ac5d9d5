package setup_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
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

// write writes the files of a case. ROOT in them is the folder.
func write(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(root, name)
		if !strings.HasPrefix(name, "/") {
			path = filepath.Join(root, "etc/postfix", name)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "ROOT", root)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := postconf.Settle(filepath.Join(root, "etc/postfix")); err != nil {
		t.Fatal(err)
	}
}

// options are those of a case in a folder.
func options(root string, c golden.Case) setup.Options {
	o := setup.Options{
		ConfigDirectory: filepath.Join(root, "etc/postfix"), Root: root,
		Policyd: setup.Daemon{Program: policyd.Program(), Config: filepath.Join(root, "etc/postern/policyd.toml")},
		Milterd: setup.Daemon{Program: milterd.Program(), Config: filepath.Join(root, "etc/postern/milterd.toml")},
		Policy:  setup.DefaultPolicy, Verify: setup.DefaultVerify, Sign: setup.DefaultSign,
		User: "postern", Only: c.Get("only"), Signer: c.Get("signer"), Greylister: c.Get("greylister"),
		Hide: dnsbl.HideKeys,
	}
	for field, endpoint := range map[string]*string{"policy": &o.Policy, "verify": &o.Verify, "sign": &o.Sign} {
		if value := c.Get(field); value != "" {
			*endpoint = value
		}
	}
	if shadow, err := strconv.ParseBool(c.Get("shadow")); err == nil {
		o.Shadow = &shadow
	}
	return o
}

// Each case is a Postfix with what is attached to it, and what setup prints. With
// POSTERN_UPDATE the files are written anew.
func TestPlans(t *testing.T) {
	postfixtest.Require(t)
	for _, c := range golden.Files(t, "testdata/plans/*.txt") {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			want := c.Sections["message"]
			delete(c.Sections, "message")
			write(t, root, c.Sections)
			plan, err := setup.MakePlan(t.Context(), options(root, c))
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			plan.Print(&out, dnsbl.HideKeys)
			got := strings.ReplaceAll(out.String(), root, "ROOT")
			got = strings.Replace(got, "Postfix "+plan.Postfix.Version(), "Postfix VERSION", 1)
			if got == want {
				return
			}
			if os.Getenv("POSTERN_UPDATE") != "" {
				update(t, "testdata/plans/"+c.Name+".txt", got)
				return
			}
			t.Errorf("got:\n%s\nwant:\n%s", got, want)
		})
	}
}

// After each plan of testdata/plans is carried out, a second run with the same flags has
// nothing to do.
func TestPlansAgain(t *testing.T) {
	postfixtest.Require(t)
	for _, c := range golden.Files(t, "testdata/plans/*.txt") {
		if c.Name == "watched" { // the run after --shadow=false writes from-ownership: SETUP.md
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			root := carriedOut(t, c)
			again, err := setup.MakePlan(t.Context(), options(root, c))
			if err != nil {
				t.Fatal(err)
			}
			if again.Nothing() {
				return
			}
			var out bytes.Buffer
			again.Print(&out, dnsbl.HideKeys)
			t.Errorf("a second run would change more:\n%s", &out)
		})
	}
}

// The plan says what the import of another greylist lacks, and does not promise it.
func TestPlanWithoutDump(t *testing.T) {
	postfixtest.Require(t)
	root := t.TempDir()
	var c golden.Case
	for _, one := range golden.Files(t, "testdata/plans/classic.txt") {
		c = one
	}
	delete(c.Sections, "message")
	write(t, root, c.Sections)
	o := options(root, c)
	o.CanImport = func() error { return errors.New("db_dump is not installed; apt-get install db-util") }
	plan, err := setup.MakePlan(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	plan.Print(&out, dnsbl.HideKeys)
	if !strings.Contains(out.String(), "/postgrey is not imported: db_dump is not installed; apt-get install db-util, before you run postern setup --apply.\n") || strings.Contains(out.String(), "is imported once") {
		t.Error(&out)
	}
}

func update(t *testing.T, path, message string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := strings.Cut(string(text), "\n== message\n")
	if err := os.WriteFile(path, []byte(head+"\n== message\n"+message), 0o644); err != nil {
		t.Fatal(err)
	}
}

// What the hooks do while the daemon is away changes with the shadow, also where a class has
// them, at port 25, and at the end of a mail. So do the checks that they ask for.
func TestHooksAfterTheShadow(t *testing.T) {
	postfixtest.Require(t)
	const limits = "limit = [\"login.recipients=300/1h\"]\n"
	root, files := t.TempDir(), fromFiles()
	files["main.cf"] += `smtpd_sasl_auth_enable = yes
smtpd_restriction_classes = postern_ownership
postern_ownership = check_policy_service { inet:127.0.0.1:10045, policy_context=ownership, default_action=DUNNO }
postern_limit = check_policy_service { inet:127.0.0.1:10045, policy_context=limit, default_action=DUNNO }
smtpd_sender_restrictions = check_sasl_access static:postern_ownership, reject_sender_login_mismatch, permit_mynetworks
`
	files["master.cf"] = strings.Replace(files["master.cf"], "submission inet n - y - - smtpd", "submission inet n - y - - smtpd -o smtpd_end_of_data_restrictions=$postern_limit", 1)
	files["/etc/postern/policyd.toml"] = limits
	write(t, root, files)
	plan, err := setup.MakePlan(t.Context(), options(root, golden.Case{}))
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, c := range plan.Changes {
		got[c.Service+"/"+c.Name] = c.New
	}
	for name, want := range map[string]string{
		"/postern_ownership":         "check_policy_service { inet:127.0.0.1:10045, { policy_context = ownership, limit } }",
		"/postern_limit":             "check_policy_service { inet:127.0.0.1:10045, policy_context=limit }",
		"/smtpd_sender_restrictions": "check_sasl_access static:postern_ownership, reject_unauthenticated_sender_login_mismatch, permit_mynetworks",
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
}

// carriedOut makes the plan of a case and carries it out, below a folder.
func carriedOut(t *testing.T, c golden.Case) (root string) {
	t.Helper()
	root = t.TempDir()
	delete(c.Sections, "message")
	write(t, root, c.Sections)
	plan, err := setup.MakePlan(t.Context(), options(root, c))
	if err != nil {
		t.Fatal(err)
	}
	setup.CarryOut(t, plan)
	return root
}

// Whose work Postern does by a flag, it goes on to do without the flag: what cannot be seen of
// another program, whose files are elsewhere, does not change that.
func TestFlagsAreRemembered(t *testing.T) {
	postfixtest.Require(t)
	for _, c := range golden.Files(t, "testdata/plans/rspamd-elsewhere.txt") {
		root := carriedOut(t, c)
		again, err := setup.MakePlan(t.Context(), options(root, golden.Case{}))
		if err != nil {
			t.Fatal(err)
		}
		if !again.Nothing() {
			var out bytes.Buffer
			again.Print(&out, dnsbl.HideKeys)
			t.Errorf("a run without the flags would change:\n%s", &out)
		}
	}
}
