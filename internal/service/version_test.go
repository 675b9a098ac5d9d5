package service

import (
	"runtime/debug"
	"testing"
)

func TestVersionOfACheckout(t *testing.T) {
	const commit = "0123456789abcdef0123456789abcdef01234567"
	for _, c := range []struct{ goVersion, revision, want string }{
		{"v1.2.0", commit, "1.2.0+0123456789ab"},
		{"v1.2.0-rc1", commit, "1.2.0-rc1+0123456789ab"},
		{"v1.2.0+dirty", commit, "1.2.0+0123456789ab"},
		{"v0.0.0-20261126150405-0123456789ab", commit, version + "+0123456789ab"},
		{"v1.2.1-0.20261126150405-0123456789ab+dirty", commit, version + "+0123456789ab"},
		{"v1.2.0-rc1.0.20261126150405-0123456789ab", commit, version + "+0123456789ab"},
		{"(devel)", "", version},
		{"", "", version},
	} {
		info := &debug.BuildInfo{Main: debug.Module{Version: c.goVersion}}
		if c.revision != "" {
			info.Settings = []debug.BuildSetting{{Key: "vcs.revision", Value: c.revision}}
		}
		if got := checkout(info).String(); got != c.want {
			t.Errorf("%q at %q: %q, want %q", c.goVersion, c.revision, got, c.want)
		}
	}
}

// What a package says is its own version, whatever Go has noted. The commit is added to
// a version that does not have it.
func TestVersionOfAPackage(t *testing.T) {
	t.Cleanup(func() { packaged, commit = "", "" })
	for _, c := range []struct{ version, commit, want string }{
		{"1.2.0", "0123456789ab", "1.2.0+0123456789ab"},
		{"1.2.0~git20260102030405.0123456789", "0123456789ab", "1.2.0~git20260102030405.0123456789"},
		{"1.2.0~nogit", "", "1.2.0~nogit"},
	} {
		packaged, commit = c.version, c.commit
		if got := Version(); got != c.want || revision() != c.commit {
			t.Errorf("%q at %q: %q at %q, want %q", c.version, c.commit, got, revision(), c.want)
		}
	}
}
