//go:build openssl && cgo

package rsaengine

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/cpu"
)

// asDaemon is set for a process of this test that begins as postern-milterd does.
const asDaemon = "POSTERN_TEST_TUNE"

func TestMain(m *testing.M) {
	if os.Getenv(asDaemon) != "" {
		Tune()
		fmt.Printf("pid %d, %s=%q, arguments %q\n", os.Getpid(), capabilities, os.Getenv(capabilities), os.Args[1:])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// daemon runs Tune in a process of its own. It returns what the process knows of itself
// after that.
func daemon(t *testing.T, more ...string) (pid int, got string) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(program, "--some", "argument")
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, capabilities+"=") {
			c.Env = append(c.Env, v)
		}
	}
	c.Env = append(append(c.Env, asDaemon+"=1"), more...)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return c.Process.Pid, string(out)
}

// The program keeps its process and its arguments, whatever was measured.
func TestTune(t *testing.T) {
	pid, got := daemon(t)
	state := func(value string) string {
		return fmt.Sprintf("pid %d, %s=%q, arguments [\"--some\" \"argument\"]\n", pid, capabilities, value)
	}
	if got != state("") && (got != state(withoutADX) || !cpu.X86.HasADX || !cpu.X86.HasAVX2) {
		t.Errorf("after Tune: %s", got)
	}
}

// The operator's value stays, also an empty one.
func TestTuneKeepsTheOperatorsValue(t *testing.T) {
	for _, value := range []string{"", ":~0x20"} {
		pid, got := daemon(t, capabilities+"="+value)
		if want := fmt.Sprintf("pid %d, %s=%q, arguments [\"--some\" \"argument\"]\n", pid, capabilities, value); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestMeasureIn(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	environ := append(os.Environ(), asDaemon+"=1", capabilities+"="+withoutADX)
	if took, err := measureIn(program, environ); err != nil || took <= 0 {
		t.Errorf("%v, %v", took, err)
	}
	if measure() <= 0 {
		t.Error("libcrypto computed nothing")
	}
	for _, bad := range []string{"/bin/false", "/bin/true", "/bin/ls", "/does/not/exist"} {
		if took, err := measureIn(bad, nil); err == nil {
			t.Errorf("%s: %v", bad, took)
		}
	}
}

func TestVersionSaysWhatIsTuned(t *testing.T) {
	t.Setenv(capabilities, withoutADX)
	if e, _ := newOpenSSL(t); !strings.HasSuffix(e.Version(), ", "+capabilities+"="+withoutADX) {
		t.Errorf("version %q", e.Version())
	}
}
