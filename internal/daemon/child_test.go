package daemon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Some behaviour belongs to a whole process. childVariable makes the test
// binary run one of these instead of its tests; the value names it.
const childVariable = "POSTERN_DAEMON_TEST_CHILD"

var children = map[string]func(io.Writer) error{
	"activation": activationChild,
	"identity":   identityChild,
	"signals":    signalsChild,
}

func TestMain(m *testing.M) {
	name := os.Getenv(childVariable)
	if name == "" {
		os.Exit(m.Run())
	}
	if err := children[name](os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(ExitFailed)
	}
}

// child prepares a process that runs children[name]. It starts through a shell,
// because LISTEN_PID names the process that is only about to exist.
func child(t *testing.T, name string, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `LISTEN_PID=$$ exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+name, "GORACE=atexit_sleep_ms=0") // the race detector lingers otherwise
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

// output runs cmd and decodes what it prints as JSON.
func output(t *testing.T, cmd *exec.Cmd, v any) {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("child: %v\n%s%s", err, out, stderr.String())
	}
	// With -cover the binary may add lines of its own.
	line, _, _ := strings.Cut(string(out), "\n")
	if err := json.Unmarshal([]byte(line), v); err != nil {
		t.Fatalf("child printed %q: %v", out, err)
	}
}
