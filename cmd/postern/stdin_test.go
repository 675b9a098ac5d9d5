package main

import (
	"context"
	"os"
	"strings"
	"testing"
)

// silentStdin makes the standard input a pipe to which no one writes.
func silentStdin(t *testing.T) {
	t.Helper()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	before := os.Stdin
	os.Stdin = in
	t.Cleanup(func() { os.Stdin = before; in.Close(); out.Close() })
}

// Ctrl-C ends each command that reads the standard input.
func TestStdinInterrupted(t *testing.T) {
	for _, args := range [][]string{
		{"log", "-"},
		{"log", "--summary", "-"},
		{"replay", "-"},
		{"explain", "policy"},
		{"explain", "policy", "-"},
		{"explain", "policy", "--record", "-"},
		{"explain", "message", "--ip=192.0.2.7", "--from=ann@x.example", "--config=", "-"},
		{"owners", "check", "--header", "-", "ann@x.example"},
		{"dmarc", "read", "--dns=false", "-"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			silentStdin(t)
			ctx, interrupt := context.WithCancelCause(t.Context())
			interrupt(errSignal)
			var out, stderr strings.Builder
			code := run(ctx, args, streams{&out, &stderr})
			if code != exitFailed || out.String() != "" || !strings.Contains(stderr.String(), errSignal.Error()) {
				t.Errorf("exit %d, %q, %q", code, &out, &stderr)
			}
		})
	}
}

type signalError string

func (e signalError) Error() string        { return string(e) }
func (e signalError) Is(target error) bool { return target == context.Canceled }

// errSignal is the cause of a context that a signal has ended.
const errSignal = signalError("interrupt signal received")
