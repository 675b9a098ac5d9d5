package postfixtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// pollEvery is how often a condition outside this process is checked.
const pollEvery = 10 * time.Millisecond

// waitLimit bounds every wait for the effect of a mail or a signal, even if the
// caller's context lasts longer. A test that waits in vain then shows the logs, and not
// the stacks of all goroutines.
const waitLimit = time.Minute

var errWaited = fmt.Errorf("waited %s in vain", waitLimit)

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, waitLimit, errWaited)
}

var errEnded = errors.New("the process ended")

// poll returns nil when ok returns true. It returns an error if ctx or the process of
// ended ends first.
func poll(ctx context.Context, ended <-chan struct{}, ok func() bool) error {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for !ok() {
		select {
		case <-ticker.C:
		case <-ended:
			return errEnded
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// tailLines is the number of log lines in an error.
const tailLines = 30

// fileTail returns the last lines of a log, or the reason why it cannot be read.
func fileTail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], "\n")
}
