package service

import (
	"regexp"
	"runtime/debug"
	"strings"
)

// version is the next release of this tree. Packages have their version from git:
// see .ci/package/version.
const version = "0.1.0"

// The version of the package with the program, and the first part of its commit.
// The linker sets them, because what Go records by itself depends on the kind of
// checkout.
var packaged, commit string

// Version returns the release, with the revision if that is known.
func Version() string { return built().String() }

// revision returns the first part of the commit from which the binary was built,
// "" when it is not known.
func revision() string { return built().revision }

// build is what a program knows about its build.
type build struct{ version, revision string }

// String adds the revision to a version that does not have it.
func (b build) String() string {
	if b.revision == "" || strings.Contains(b.version, b.revision[:min(10, len(b.revision))]) {
		return b.version
	}
	return b.version + "+" + b.revision
}

func built() build {
	if packaged != "" {
		return build{packaged, commit}
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return build{version: version}
	}
	return checkout(info)
}

// checkout returns the build of a program that was built from a checkout. Its
// version is the tag of the commit, or the next release.
func checkout(info *debug.BuildInfo) build {
	b := build{version: version}
	if tag := tagged(info.Main.Version); tag != "" {
		b.version = tag
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			b.revision = s.Value[:12]
		}
	}
	return b
}

// madeUp matches the end of a version that Go makes up for a commit without a
// tag.
var madeUp = regexp.MustCompile(`[-.]\d{14}-[0-9a-f]{12}$`)

// tagged returns the tag in Go's version of the main module without its v, "" if its
// commit has none.
func tagged(goVersion string) string {
	v, _, _ := strings.Cut(goVersion, "+")
	tag, ok := strings.CutPrefix(v, "v")
	if !ok || madeUp.MatchString(tag) { // or "(devel)"
		return ""
	}
	return tag
}
