package e2e

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// releases makes the release of this tree once for all tests of this package. It is made
// in a copy of the tree, because other tests read the tree meanwhile.
var releases struct {
	once sync.Once
	dir  string
	err  error
}

// released returns the folder in which the release of this tree is.
func released(t *testing.T) string {
	t.Helper()
	releases.once.Do(func() { releases.err = makeRelease() })
	if releases.err != nil {
		t.Fatal(releases.err)
	}
	return filepath.Join(releases.dir, "dist")
}

func makeRelease() (err error) {
	if releases.dir, err = os.MkdirTemp("", "postern-release"); err != nil {
		return err
	}
	if err := copyTree("../..", releasedTree()); err != nil {
		return err
	}
	out, err := exec.Command("make", "-C", releasedTree(), "release", "DIST="+filepath.Join(releases.dir, "dist")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make release: %w\n%s", err, out)
	}
	return nil
}

// releasedTree is the copy of the tree in which the release is made.
func releasedTree() string { return filepath.Join(releases.dir, "tree") }

// removeRelease is called when all tests have ended.
func removeRelease() error { return os.RemoveAll(releases.dir) }

// releasedFiles returns the files of the release of one kind.
func releasedFiles(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(released(t), pattern))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestRelease makes half of the release again from another folder, as someone with other
// habits, on a machine of another name, and compares every byte.
func TestRelease(t *testing.T) {
	t.Parallel()
	postfixtest.Require(t)
	dir := released(t)
	t.Run("reproducible", func(t *testing.T) {
		again := t.TempDir()
		there := filepath.Join(t.TempDir(), "somewhere else", "with a longer name")
		if err := copyTree(releasedTree(), there); err != nil {
			t.Fatal(err)
		}
		const otherHabits = `hostname elsewhere && umask 077 && exec make -C "$1" release "DIST=$2" ARCHS=amd64`
		cmd := exec.CommandContext(t.Context(), "unshare", "--uts", "bash", "-ec", otherHabits, "make", there, again)
		cmd.Env = append(os.Environ(), "TZ=Asia/Tokyo", "LC_ALL=C.UTF-8", "GOFLAGS=-buildvcs=false", "USER=someone", "TAR_OPTIONS=--mode=a+w")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("make release: %v\n%s", err, out)
		}
		sameFiles(t, dir, again)
	})
	t.Run("checksums", func(t *testing.T) {
		cmd := exec.CommandContext(t.Context(), "sha256sum", "--check", "--strict", "SHA256SUMS")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("sha256sum: %v\n%s", err, out)
		}
		sums, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
		if err != nil {
			t.Fatal(err)
		}
		for name := range folder(t, dir) {
			if name != "SHA256SUMS" && !bytes.Contains(sums, []byte("  "+name+"\n")) {
				t.Errorf("%s has no checksum", name)
			}
		}
	})
	t.Run("amd64", func(t *testing.T) { checkArchive(t, "amd64", elf.EM_X86_64) })
	t.Run("arm64", func(t *testing.T) { checkArchive(t, "arm64", elf.EM_AARCH64) })
	t.Run("changelog", func(t *testing.T) {
		empty := t.TempDir()
		out, err := exec.CommandContext(t.Context(), "make", "-C", "../..", "release", "DIST="+empty, "VERSION=9.8.7").CombinedOutput()
		if err == nil || !strings.Contains(string(out), "CHANGELOG.md has no entry for 9.8.7") {
			t.Errorf("a release that CHANGELOG.md does not know: %v\n%s", err, out)
		}
		if made := folder(t, empty); len(made) > 0 {
			t.Errorf("it made %d files", len(made))
		}
	})
}

// copyTree copies the project as it is, with the files that git does not know yet, and
// with its own checkout.
func copyTree(from, to string) error {
	const script = `
cd "$1"
if ! git rev-parse -q HEAD >/dev/null 2>&1; then
	mkdir -p "$2"
	exec cp -R --preserve=timestamps . "$2"
fi
git clone --quiet --shared --no-checkout . "$2"
git -C "$2" reset --quiet
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' name; do
	[ ! -e "$name" ] || printf '%s\0' "$name"
done | tar -c --null --files-from=- | tar -x -C "$2"
`
	if out, err := exec.Command("bash", "-ec", script, "copy", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("copying the project: %w\n%s", err, out)
	}
	return nil
}

// folder reads all files of a folder.
func folder(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = data
	}
	return files
}

// sameFiles compares what the second of two releases has: the SBOM and the checksums
// depend on the programs for all machines, and it is made for one.
func sameFiles(t *testing.T, all, again string) {
	t.Helper()
	first, second := folder(t, all), folder(t, again)
	n := 0
	for name, data := range second {
		if name == "SHA256SUMS" || strings.HasSuffix(name, ".cdx.json") {
			continue
		}
		n++
		if !bytes.Equal(data, first[name]) {
			t.Errorf("%s: %d and %d bytes that differ", name, len(data), len(first[name]))
		}
	}
	if n < 3 {
		t.Errorf("there are %d files to compare; there should be two packages and an archive", n)
	}
}

// checkArchive compares what is in the archive for one architecture with the packages,
// and what the SBOM says with what the programs say.
func checkArchive(t *testing.T, arch string, machine elf.Machine) {
	files := releasedFiles(t, "postern_*_linux_"+arch+".tar.gz")
	if len(files) != 1 {
		t.Fatalf("archives for %s: %q", arch, files)
	}
	dir := t.TempDir()
	command(t, "tar", "-xzf", files[0], "-C", dir, "--strip-components=1")
	for _, name := range packaged {
		name, ok := strings.CutPrefix(name, "/usr/")
		if _, err := os.Stat(filepath.Join(dir, name)); ok && err != nil {
			t.Error(err)
		}
	}
	if arch == "arm64" {
		runsElsewhere(t, dir)
	}
	described := readSBOM(t)
	for _, program := range []string{"bin/postern", "sbin/postern-policyd", "sbin/postern-milterd"} {
		checkMachine(t, filepath.Join(dir, program), machine)
		info, err := buildinfo.ReadFile(filepath.Join(dir, program))
		if err != nil {
			t.Error(err)
			continue
		}
		var want []string
		for _, d := range info.Deps {
			want = append(want, d.Path+" "+d.Version)
		}
		want = append(want, "stdlib "+strings.TrimPrefix(info.GoVersion, "go"))
		slices.Sort(want)
		if got := described["linux/"+arch+"/"+filepath.Base(program)]; !slices.Equal(got, want) {
			t.Errorf("the SBOM says of %s for %s: %q, want %q", program, arch, got, want)
		}
	}
}

// runsElsewhere has an emulator run the programs for arm64: the daemons read all their
// settings and make what they would serve with.
func runsElsewhere(t *testing.T, dir string) {
	t.Helper()
	emulated := func(program string, args ...string) string {
		return command(t, "qemu-aarch64", append([]string{filepath.Join(dir, program)}, args...)...)
	}
	if said := emulated("bin/postern", "version"); !strings.HasPrefix(said, "postern ") {
		t.Errorf("postern version says %q", said)
	}
	store := "sqlite:" + filepath.Join(t.TempDir(), "greylist.db")
	for program, args := range map[string][]string{
		"postern-policyd": {"--checks", "greylist", "--greylist-store", store},
		"postern-milterd": {"--listen-verify", "inet:127.0.0.1:10046"},
	} {
		if said := emulated("sbin/"+program, append(args, "--config=", "--check-config")...); !strings.Contains(said, "drain-timeout") {
			t.Errorf("%s --check-config says %q", program, said)
		}
	}
}

// readSBOM returns what the SBOM says that each program has in it.
func readSBOM(t *testing.T) map[string][]string {
	t.Helper()
	files := releasedFiles(t, "postern_*.cdx.json")
	if len(files) != 1 {
		t.Fatalf("SBOMs: %q", files)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var bom struct {
		BOMFormat, SpecVersion string
		Components             []struct {
			Ref           string `json:"bom-ref"`
			Name, Version string
		}
		Dependencies []struct {
			Ref       string
			DependsOn []string
		}
	}
	if err := json.Unmarshal(data, &bom); err != nil || bom.BOMFormat != "CycloneDX" || bom.SpecVersion != "1.6" {
		t.Fatalf("the SBOM is %q %q: %v", bom.BOMFormat, bom.SpecVersion, err)
	}
	names := map[string]string{}
	for _, c := range bom.Components {
		names[c.Ref] = c.Name + " " + c.Version
	}
	described := map[string][]string{}
	for _, d := range bom.Dependencies {
		for _, ref := range d.DependsOn {
			described[d.Ref] = append(described[d.Ref], names[ref])
		}
		slices.Sort(described[d.Ref])
	}
	return described
}

// checkMachine reports a program that is for another machine.
func checkMachine(t *testing.T, program string, machine elf.Machine) {
	t.Helper()
	f, err := elf.Open(program)
	if err != nil {
		t.Error(err)
		return
	}
	if f.Machine != machine {
		t.Errorf("%s is for %v", program, f.Machine)
	}
	_ = f.Close()
}
