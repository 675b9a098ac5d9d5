package e2e

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// packaged is what every package has outside of the folder of its documents.
var packaged = []string{
	"/etc/postern/milterd.toml",
	"/etc/postern/policyd.toml",
	"/usr/bin/postern",
	"/usr/lib/systemd/system/postern-milterd-sign.socket",
	"/usr/lib/systemd/system/postern-milterd.service",
	"/usr/lib/systemd/system/postern-milterd.socket",
	"/usr/lib/systemd/system/postern-policyd.service",
	"/usr/lib/systemd/system/postern-policyd.socket",
	"/usr/lib/systemd/system/postern-report.service",
	"/usr/lib/systemd/system/postern-report.timer",
	"/usr/lib/sysusers.d/postern.conf",
	"/usr/lib/tmpfiles.d/postern.conf",
	"/usr/sbin/postern-milterd",
	"/usr/sbin/postern-policyd",
	"/usr/share/bash-completion/completions/postern",
	"/usr/share/fish/vendor_completions.d/postern.fish",
	"/usr/share/man/man1/postern.1.gz",
	"/usr/share/man/man8/postern-milterd.8.gz",
	"/usr/share/man/man8/postern-policyd.8.gz",
}

// What only one of the two kinds has.
var (
	packagedDeb = []string{"/etc/needrestart/restart.d/postern-milterd.service", "/etc/needrestart/restart.d/postern-policyd.service", "/usr/share/lintian/overrides/postern", "/usr/share/zsh/vendor-completions/_postern"}
	packagedRPM = []string{"/usr/share/licenses/postern/LICENSE", "/usr/share/zsh/site-functions/_postern"}
)

const packageDocuments = "/usr/share/doc/postern/"

// documented returns the documents of a package: the manuals, and what deploy/ has to
// read.
func documented(t *testing.T) []string {
	t.Helper()
	names := []string{"README.md", "third-party-notices.gz"}
	for _, folder := range []string{"policy", "greylist", "dnsbl", "milter", "deploy"} {
		pages, err := filepath.Glob("../../" + folder + "/*.md")
		if err != nil || len(pages) == 0 {
			t.Fatalf("manuals in %s: %q, %v", folder, pages, err)
		}
		for _, page := range pages {
			names = append(names, strings.TrimPrefix(page, "../../"))
		}
	}
	notRead := []string{"systemd", "package", "docker"} // but used to build and to install
	err := filepath.WalkDir(deploy, func(path string, e os.DirEntry, err error) error {
		name, _ := filepath.Rel(deploy, path)
		switch {
		case err != nil:
			return err
		case e.IsDir() && slices.Contains(notRead, name):
			return filepath.SkipDir
		case !e.IsDir() && filepath.Dir(name) != ".":
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// makePackages runs make deb or make rpm where the release has been made, and returns the
// packages that it made.
func makePackages(t *testing.T, format string, variables ...string) []string {
	t.Helper()
	released(t)
	dist := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "make", append([]string{"-C", releasedTree(), format, "DIST=" + dist}, variables...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make %s: %v\n%s", format, err, out)
	}
	made, err := filepath.Glob(filepath.Join(dist, "postern*."+format))
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// TestPackage reads what is in the packages for Debian, and follows the page on one of
// them from its installation to its removal, on a fresh Debian.
func TestPackage(t *testing.T) {
	t.Parallel()
	postfixtest.Require(t)
	made := releasedFiles(t, "postern*.deb")
	if len(made) != 2 || !strings.HasSuffix(made[0], "_amd64.deb") || !strings.HasSuffix(made[1], "_arm64.deb") {
		t.Fatalf("make release made %q", made)
	}
	t.Run("amd64", func(t *testing.T) { checkPackage(t, made[0], elf.EM_X86_64) })
	t.Run("arm64", func(t *testing.T) { checkPackage(t, made[1], elf.EM_AARCH64) })
	t.Run("lintian", func(t *testing.T) {
		args := append([]string{"--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0"}, made...)
		if out, err := exec.CommandContext(t.Context(), "lintian", args...).CombinedOutput(); err != nil {
			t.Errorf("lintian: %v\n%s", err, out)
		}
	})
	t.Run("life", func(t *testing.T) { livePackage(t, made[0], made[1]) })
}

// checkPackage compares what is in a package for Debian with what should be.
func checkPackage(t *testing.T, file string, machine elf.Machine) {
	dir := t.TempDir()
	command(t, "dpkg-deb", "--extract", file, dir)
	var found []string
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			found = append(found, strings.TrimPrefix(path, dir))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	comparePackage(t, found, packagedDeb, "changelog.gz", "changelog.Debian.gz", "copyright")
	for _, program := range []string{"/usr/bin/postern", "/usr/sbin/postern-policyd", "/usr/sbin/postern-milterd"} {
		checkMachine(t, dir+program, machine)
	}
	checkLibraries(t, file, dir, machine == elf.EM_X86_64)
	settings := command(t, "dpkg-deb", "--info", file, "conffiles")
	if want := slices.Concat(packagedDeb[:2], packaged[:2]); !slices.Equal(slices.Sorted(slices.Values(strings.Fields(settings))), want) {
		t.Errorf("conffiles: %q", settings)
	}
}

// checkLibraries compares the libraries that the programs of a package need, with the
// version of the C library, with what the package depends on.
func checkLibraries(t *testing.T, file, dir string, withOpenSSL bool) {
	t.Helper()
	needs, version := make(map[string][]string), "0"
	for _, program := range []string{"/usr/bin/postern", "/usr/sbin/postern-policyd", "/usr/sbin/postern-milterd"} {
		f, err := elf.Open(dir + program)
		if err != nil {
			t.Fatal(err)
		}
		libraries, _ := f.ImportedLibraries() // none in a static program
		if len(libraries) > 0 {
			needs[program] = slices.Sorted(slices.Values(libraries))
		}
		symbols, _ := f.ImportedSymbols()
		for _, symbol := range symbols {
			if v, ok := strings.CutPrefix(symbol.Version, "GLIBC_"); ok && newer(v, version) {
				version = v
			}
		}
		_ = f.Close()
	}
	depends := strings.TrimSpace(command(t, "dpkg-deb", "--field", file, "Depends"))
	if !withOpenSSL {
		if len(needs) > 0 || depends != "systemd" {
			t.Errorf("libraries %q, and it depends on %q", needs, depends)
		}
		return
	}
	if want := "systemd, libc6 (>= " + version + "), libssl3 (>= 3.0.0)"; depends != want {
		t.Errorf("it depends on %q, want %q", depends, want)
	}
	if milterd := needs["/usr/sbin/postern-milterd"]; len(needs) != 1 || !slices.Equal(milterd, []string{"libc.so.6", "libcrypto.so.3"}) {
		t.Errorf("libraries %q", needs)
	}
}

// newer compares versions of the C library.
func newer(a, b string) bool {
	var an, bn []int
	for _, v := range []struct {
		text string
		n    *[]int
	}{{a, &an}, {b, &bn}} {
		for part := range strings.SplitSeq(v.text, ".") {
			n, _ := strconv.Atoi(part)
			*v.n = append(*v.n, n)
		}
	}
	return slices.Compare(an, bn) > 0
}

// comparePackage compares the files of a package with what every package has, and
// what only its kind has.
func comparePackage(t *testing.T, found, kind []string, documents ...string) {
	t.Helper()
	want := slices.Concat(packaged, kind)
	for _, name := range slices.Concat(documented(t), documents) {
		want = append(want, packageDocuments+name)
	}
	for _, name := range want {
		if !slices.Contains(found, name) {
			t.Errorf("%s is missing", name)
		}
	}
	for _, name := range found {
		if !slices.Contains(want, name) && !strings.HasPrefix(name, packageDocuments) {
			t.Errorf("%s should not be there", name)
		}
	}
}

// TestRPM has rpm read the packages for Fedora and its kin, which are made from the same
// description.
func TestRPM(t *testing.T) {
	t.Parallel()
	postfixtest.Require(t)
	made := releasedFiles(t, "postern*.rpm")
	if len(made) != 2 || !strings.HasSuffix(made[0], ".aarch64.rpm") || !strings.HasSuffix(made[1], ".x86_64.rpm") {
		t.Fatalf("make release made %q", made)
	}
	for _, file := range made {
		query := func(format string) []string {
			return strings.Fields(command(t, "rpm", "--query", "--package", "--queryformat", format, file))
		}
		var found []string
		for _, entry := range query("[%{FILEMODES:perms}|%{FILEUSERNAME}|%{FILENAMES}\\n]") {
			fields := strings.Split(entry, "|")
			switch isFolder := strings.HasPrefix(fields[0], "d"); {
			case fields[1] != "root":
				t.Errorf("%s belongs to %s", fields[2], fields[1])
			case isFolder && !strings.HasPrefix(fields[2]+"/", packageDocuments):
				t.Errorf("the folder %s belongs to other packages", fields[2])
			case !isFolder:
				found = append(found, fields[2])
			}
		}
		comparePackage(t, found, packagedRPM, "CHANGELOG.md")
		if settings := strings.Fields(command(t, "rpm", "--query", "--package", "--configfiles", file)); !slices.Equal(settings, packaged[:2]) {
			t.Errorf("configuration files: %q", settings)
		}
		if flags := query("[%{FILEFLAGS:fflags}\\n]"); !slices.Contains(flags, "cn") {
			t.Errorf("an upgrade would replace edited settings: %q", flags)
		}
		for _, scriptlet := range []string{"%{POSTIN}", "%{PREUN}", "%{POSTUN}"} {
			if len(query(scriptlet)) < 10 {
				t.Errorf("there is no %s", scriptlet)
			}
		}
	}
}
