package e2e

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// binaries are built once for all tests of this package.
var binaries *postfixtest.Binaries

func TestMain(m *testing.M) {
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	var err error
	if binaries, err = postfixtest.NewBinaries(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := errors.Join(binaries.Close(), removeRelease()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// newSite starts a site that ends with the test.
func newSite(t *testing.T, c SiteConfig) *Site {
	t.Helper()
	postfixtest.Require(t)
	c.Binaries = binaries
	s, err := Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("Postfix's log ends:\n%s", s.Postfix.LogTail())
			t.Logf("postern-policyd's log ends:\n%s", s.Policyd.LogTail())
		}
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// send sends m and returns the reply that decided.
func send(t *testing.T, s *Site, service string, m postfixtest.Mail) postfixtest.Reply {
	t.Helper()
	r, err := s.Postfix.Send(t.Context(), service, m)
	if err != nil {
		t.Fatal(err)
	}
	return r.Final()
}

// expect fails the test unless the reply to m has that code.
func expect(t *testing.T, s *Site, service string, m postfixtest.Mail, code int) {
	t.Helper()
	if got := send(t, s, service, m); got.Code != code {
		t.Errorf("mail from %q to %q by %q: %s, want %d", m.From, m.To, m.Login, got, code)
	}
}

// open starts a session at submission and logs in.
func open(t *testing.T, s *Site, login string) *postfixtest.Client {
	t.Helper()
	c, err := s.Postfix.Dial(t.Context(), postfixtest.Submission)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Open(As(login, "")); err != nil {
		t.Fatal(err)
	}
	return c
}

// transact sends m in an open session and returns the reply that decided.
func transact(t *testing.T, c *postfixtest.Client, m postfixtest.Mail) postfixtest.Reply {
	t.Helper()
	r, err := c.Send(m)
	if err != nil {
		t.Fatal(err)
	}
	return r.Final()
}

// enoughTries is how often eventually tries: far more than a reload takes.
const enoughTries = 2000

// eventually repeats a mail, which takes its time, until the answer is the one
// that must come.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for range enoughTries {
		if ok() {
			return
		}
	}
	t.Errorf("not after %d tries", enoughTries)
}
