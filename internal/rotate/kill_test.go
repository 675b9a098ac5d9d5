package rotate

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The processes that kill themselves are this test, told so by the environment: the
// effect before which they end, and the file of the world that they share.
const (
	killAt    = "POSTERN_TEST_KILL_AT"
	killWorld = "POSTERN_TEST_KILL_WORLD"
)

func TestMain(m *testing.M) {
	if os.Getenv(killAt) == "" {
		os.Exit(m.Run())
	}
	// A test of the process of its own, in which the world can fail.
	os.Args = append(os.Args[:1], "-test.run=^TestKilledProcess$")
	os.Exit(m.Run())
}

// shared is what is left of a world when a process has been killed.
type shared struct {
	Dir     string
	Now     time.Time
	Primary map[string]string
}

func (w *world) saveTo(path string) {
	data, err := json.Marshal(shared{w.dir, w.now, w.primary})
	if err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func loadWorld(t *testing.T, path string) *world {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var s shared
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: s.Dir, now: s.Now, primary: s.Primary, servers: []map[string]string{nil, nil}, records: make(map[string]string)}
	w.transfer()
	return w
}

// TestKilledProcess is what a process does that is killed: a rotation to its end.
func TestKilledProcess(t *testing.T) {
	if os.Getenv(killAt) == "" {
		return // it is the parts of TestKilledAtEveryEffect
	}
	var at int
	if _, err := fmt.Sscan(os.Getenv(killAt), &at); err != nil {
		t.Fatal(err)
	}
	path := os.Getenv(killWorld)
	w := loadWorld(t, path)
	a := &always{w, make(map[string]time.Time), make(map[string]string)}
	w.onEffect = func(what string) {
		a.check("before " + what)
		w.saveTo(path)
		if w.steps == at {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
	}
	if s, err := w.rotator().State(example); err != nil || s == nil {
		w.start()
	}
	for w.phase() != Done {
		if _, err := w.rotator().Advance(t.Context(), example); err != nil {
			t.Fatal(err)
		}
		w.transfer()
		w.now = w.now.Add(12 * time.Hour)
	}
	w.saveTo(path)
	fmt.Printf("effects %d\n", w.steps)
}

// A rotation whose process is killed before any one effect is brought to its end by
// the next process.
func TestKilledAtEveryEffect(t *testing.T) {
	run := func(path string, at int) (string, error) {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprint(killAt, "=", at), killWorld+"="+path)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	effects := 0
	for at := 0; at == 0 || at <= effects; at++ {
		w := newWorld(t)
		path := filepath.Join(w.dir, "world.json")
		w.saveTo(path)
		out, err := run(path, at)
		if at == 0 {
			_, text, _ := strings.Cut(out, "effects ")
			if _, scanErr := fmt.Sscan(text, &effects); err != nil || scanErr != nil || effects < 15 {
				t.Fatalf("%v, %v: %s", err, scanErr, out)
			}
			continue
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("was not killed before effect %d: %v\n%s", at, err, out)
		}
		if out, err := run(path, 0); err != nil {
			t.Fatalf("after a kill before effect %d: %v\n%s", at, err, out)
		}
		after := loadWorld(t, path)
		if len(after.signing()) != 1 || after.signing()["old"] != "" || len(after.primary) != 1 {
			t.Fatalf("after a kill before effect %d: %v sign, records %v", at, after.signing(), after.primary)
		}
	}
}
