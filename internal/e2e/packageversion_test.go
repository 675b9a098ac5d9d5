package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPackageVersion asks for the version of small checkouts.
func TestPackageVersion(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, checkout, want, says string }{
		{name: "no git", want: "0.3.0~nogit", says: "not a checkout"},
		{name: "no tag", checkout: "init", want: "0.3.0~git20260102030405.COMMIT"},
		{name: "a tag", checkout: "init; git tag v1.2.0", want: "1.2.0"},
		{name: "an annotated tag", checkout: "init; git tag -m x v1.2.0", want: "1.2.0"},
		{name: "a candidate", checkout: "init; git tag v1.2.0-rc-1", want: "1.2.0~rc.1"},
		{name: "after a tag", checkout: "init; git tag v1.2.0; more; more", want: "1.2.0+2.gCOMMIT"},
		{name: "another tag", checkout: "init; git tag nightly", want: "0.3.0~git20260102030405.COMMIT"},
		{name: "a changed file", checkout: "init; git tag v1.2.0; echo >>internal/service/version.go", want: "1.2.0+dirty", says: "version.go"},
		{name: "a new file", checkout: "init; git tag v1.2.0; more; echo >new.go", want: "1.2.0+1.gCOMMIT+dirty", says: "new.go"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := versionTree(t)
			want := c.want
			if c.checkout != "" {
				inCheckout(t, dir, c.checkout)
				commit, _ := inCheckout(t, dir, "git rev-parse --short=10 HEAD")
				want = strings.ReplaceAll(want, "COMMIT", commit)
			}
			got, said := inCheckout(t, dir, ".ci/package/version")
			if got != want {
				t.Errorf("version %q, want %q", got, want)
			}
			if !strings.Contains(said, c.says) || c.says == "" && said != "" {
				t.Errorf("it says %q, want %q", said, c.says)
			}
		})
	}
}

// versionTree is a folder with what the version is made from, without git.
func versionTree(t *testing.T) string {
	t.Helper()
	script, err := os.ReadFile("../../.ci/package/version")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, data := range map[string]string{".ci/package/version": string(script), "internal/service/version.go": "const version = \"0.3.0\"\n"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// inCheckout runs a script in a folder and returns what it prints and what it says.
func inCheckout(t *testing.T, dir, script string) (out, said string) {
	t.Helper()
	const verbs = `
init() { git init -q . && git add . && git commit -qm one; }
more() { git commit -q --allow-empty -m more; }
`
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "bash", "-ec", verbs+script)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir),
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a",
		"GIT_AUTHOR_DATE=2026-01-02T03:04:05Z", "GIT_COMMITTER_DATE=2026-01-02T03:04:05Z")
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, &stderr)
	}
	return strings.TrimSpace(stdout.String()), strings.TrimSpace(stderr.String())
}
