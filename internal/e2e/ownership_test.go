package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

func TestCases(t *testing.T) {
	t.Parallel()
	s := newSite(t, WithLists(SiteConfig{}, resolvertest.New(t, Zones).Addr()))
	for _, c := range Cases() {
		o, err := c.Run(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		if o.Wrong != nil {
			t.Error(o.Wrong)
		}
	}
}

// TestOwnership asserts what users send, beyond what "make try" shows. The text
// of a refusal is the one that Postfix's own login checks give.
func TestOwnership(t *testing.T) {
	t.Parallel()
	s := newSite(t, SiteConfig{})
	eai := As(Alice, "jürgen@bücher.example", Dora)
	eai.Parameters = []string{"SMTPUTF8"}
	tests := []struct {
		name   string
		mail   postfixtest.Mail
		code   int
		reason record.Reason
	}{
		{"other case", As(Alice, "ALICE@Home.Example", Dora), 250, record.OwnerSelf},
		{"extension of an owned sender", As(Alice, "press+june@home.example", Dora), 250, record.OwnerOwned},
		{"extension of a foreign sender", As(Alice, "bob+june@home.example", Dora), 553, record.OwnerNotOwned},
		{"catch-all", As(Bob, "anything@catchall.example", Dora), 250, record.OwnerOwned},
		{"catch-all of another", As(Alice, "anything@catchall.example", Dora), 553, record.OwnerNotOwned},
		{"alias with two targets, first", As(Alice, "team@home.example", Dora), 250, record.OwnerOwnedByAlias},
		{"alias with two targets, second", As(Bob, "team@home.example", Dora), 250, record.OwnerOwnedByAlias},
		{"alias of another", As(Alice, Info, Dora), 553, record.OwnerNotOwned},
		{"unlisted", As(Alice, "who@elsewhere.example", Dora), 553, record.OwnerUnlisted},
		{"null sender", As(Alice, "", Dora), 250, record.OwnerNullSender},
		{"quoted", As(Alice, `"a b"@home.example`, Dora), 553, record.OwnerUnlisted},
		{"internationalised", eai, 250, record.OwnerOwned},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			reply := send(t, s, postfixtest.Submission, test.mail)
			if reply.Code != test.code {
				t.Errorf("got %s, want %d", reply, test.code)
			}
			// Postfix shows the address without its quotes.
			shown := strings.ReplaceAll(test.mail.From, `"`, "")
			if want := "5.7.1 <" + shown + ">: Sender address rejected: not owned by user " + test.mail.Login; test.code == 553 && reply.Lines[0] != want {
				t.Errorf("got %q, want %q", reply.Lines[0], want)
			}
			r, err := s.Policyd.WaitRecord(t.Context(), func(r postfixtest.Record) bool { return r.Recipient == Dora })
			if err != nil {
				t.Fatal(err)
			}
			if reason, _ := r.Why(); reason != string(test.reason) || r.SASLUsername != test.mail.Login {
				t.Errorf("the record says %s for %s, want %s for %s", reason, r.SASLUsername, test.reason, test.mail.Login)
			}
		})
	}
}

// TestInbound asserts that the ownership check leaves the internet's mail alone
// unless it is told otherwise.
func TestInbound(t *testing.T) {
	t.Parallel()
	t.Run("pass", func(t *testing.T) {
		s := newSite(t, SiteConfig{})
		expect(t, s, postfixtest.MX, fromOutside(Stranger, Alice), 250)
		expect(t, s, postfixtest.MX, fromOutside(Bob, Alice), 250)
		expect(t, s, postfixtest.MX, fromOutside("", Alice), 250)
	})
	t.Run("reject", func(t *testing.T) {
		s := newSite(t, SiteConfig{Policyd: []string{"--owners-unauthenticated", "reject"}})
		expect(t, s, postfixtest.MX, fromOutside(Stranger, Alice), 250)
		expect(t, s, postfixtest.MX, fromOutside(Bob, Alice), 553)
		expect(t, s, postfixtest.MX, fromOutside("", Alice), 250)
	})
}

func TestShadow(t *testing.T) {
	t.Parallel()
	s := newSite(t, SiteConfig{Policyd: []string{"--shadow", "ownership"}})
	m := As(Alice, Bob, Dora)
	expect(t, s, postfixtest.Submission, m, 250)
	r, err := s.Record(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	if r.Mode != "shadow" || r.Action != "DUNNO" || len(r.Steps) != 1 || r.Steps[0].Reason != string(record.OwnerNotOwned) || r.Steps[0].Mode != "shadow" {
		t.Errorf("the record of a shadowed refusal: %s", r.Raw)
	}
	if r.Check != "ownership" || r.Verdict != "reject" || r.Reason != string(record.OwnerNotOwned) {
		t.Errorf("the record does not name what would have decided: %s", r.Raw)
	}
}

// TestReload asserts that a changed map is used without a restart, by itself and
// on SIGHUP, and that a broken one leaves the old in force.
func TestReload(t *testing.T) {
	t.Parallel()
	s := newSite(t, SiteConfig{})
	m := As(Bob, Press, Dora)
	expect(t, s, postfixtest.Submission, m, 553)

	given := strings.ReplaceAll(ownersMap, "press@home.example      alice", "press@home.example      bob")
	replaceFile(t, s.OwnersPath(), given)
	eventually(t, func() bool { return send(t, s, postfixtest.Submission, m).Code == 250 })
	expect(t, s, postfixtest.Submission, As(Alice, Press, Dora), 553)

	replaceFile(t, s.OwnersPath(), given+"no-value-here\n")
	if err := s.Policyd.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Policyd.WaitLine(t.Context(), func(r postfixtest.Record) bool {
		return r.Level == "error" && strings.Contains(r.Raw, s.OwnersPath())
	}); err != nil {
		t.Fatal(err)
	}
	expect(t, s, postfixtest.Submission, m, 250)
}

// replaceFile replaces a map as editors and postmap users do: at once.
func replaceFile(t *testing.T, path, text string) {
	t.Helper()
	next := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	mode := os.FileMode(0o644)
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm() // a secret stays one
	}
	if err := os.WriteFile(next, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
}
