package postfixtest

import (
	"errors"
	"os"
	"testing"
)

// Require skips the test in short mode (go test -short), and if only root is missing.
// It fails the test if a server is not installed. With CI set, it also fails without
// root.
func Require(tb testing.TB) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("needs a private Postfix, and the tests run without servers (-short)")
	}
	switch err := Check(); {
	case err == nil:
	case errors.Is(err, errNotRoot) && os.Getenv("CI") == "":
		tb.Skip(err)
	default:
		tb.Fatal(err)
	}
}

// New is Start for tests. Postfix ends with the test, and the log is shown if the test
// fails.
func New(tb testing.TB, c Config) *Postfix {
	tb.Helper()
	Require(tb)
	p, err := Start(tb.Context(), c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("Postfix's log ends:\n%s", p.LogTail())
		}
		if err := p.Stop(); err != nil {
			tb.Error(err)
		}
	})
	return p
}

// NewDaemon is StartDaemon for tests. The daemon is stopped at the end of the test,
// which fails unless the exit code is 0.
func NewDaemon(tb testing.TB, c DaemonConfig) *Daemon {
	tb.Helper()
	d, err := StartDaemon(tb.Context(), c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := d.StopUnlessEnded(); err != nil {
			tb.Error(err)
		}
		if tb.Failed() {
			tb.Logf("the daemon's log ends:\n%s", d.LogTail())
		}
	})
	return d
}
