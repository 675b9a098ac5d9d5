package main

import (
	"debug/buildinfo"
	"encoding/json"
	"os"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

// The test's own program is described: what Go says of it is compared with what is
// written.
func TestBOM(t *testing.T) {
	file, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := readProgram(file)
	if err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.sum) != 64 || !strings.Contains(p.system, "/") || len(p.modules) != len(info.Deps)+1 {
		t.Errorf("read %+v", p)
	}
	if got := "go" + p.modules[0].version; got != info.GoVersion {
		t.Errorf("Go is %q, want %q", got, info.GoVersion)
	}
}

func TestReleaseOfTwoSystems(t *testing.T) {
	zap := module{"go.uber.org/zap", "v1.27.0", strings.Repeat("ab", 32)}
	ntlm := module{"github.com/Azure/go-ntlmssp", "v0.1.0+incompatible", strings.Repeat("cd", 32)}
	std := module{path: "stdlib", version: "1.26.8"}
	programs := []program{
		{"postern-policyd", "linux/amd64", "01", "example.org/postern", []module{std, zap, ntlm}},
		{"postern-policyd", "linux/arm64", "02", "example.org/postern", []module{std, zap}},
	}
	b, err := newBOM("1.2.0", time.Unix(1700000000, 0), programs)
	if err != nil {
		t.Fatal(err)
	}
	var refs []string
	for _, c := range b.Components {
		refs = append(refs, c.Ref)
	}
	want := []string{
		"linux/amd64/postern-policyd", "linux/arm64/postern-policyd",
		"pkg:golang/github.com/Azure/go-ntlmssp@v0.1.0%2Bincompatible", "pkg:golang/go.uber.org/zap@v1.27.0", "pkg:golang/stdlib@1.26.8",
	}
	if !slices.Equal(refs, want) {
		t.Errorf("components %q, want %q", refs, want)
	}
	if got := b.Dependencies[0]; got.Ref != "pkg:golang/example.org/postern@v1.2.0" || !slices.Equal(got.DependsOn, want[:2]) {
		t.Errorf("the release depends on %+v", got)
	}
	if got := b.Dependencies[2].DependsOn; !slices.Equal(got, []string{want[4], want[3]}) {
		t.Errorf("the program for arm64 depends on %q", got)
	}
	if b.Metadata.Timestamp != "2023-11-14T22:13:20Z" {
		t.Errorf("timestamp %q", b.Metadata.Timestamp)
	}
	if !regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(b.SerialNumber) {
		t.Errorf("serial number %q", b.SerialNumber)
	}
	again, err := newBOM("1.2.0", time.Unix(1700000000, 0), programs)
	if err != nil {
		t.Fatal(err)
	}
	one, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	two, err := json.Marshal(again)
	if err != nil || string(one) != string(two) {
		t.Errorf("two descriptions of one release differ: %v", err)
	}
}

func TestModules(t *testing.T) {
	zap := debug.Module{Path: "go.uber.org/zap", Version: "v1.27.0", Sum: "h1:q83vEjRWeJA="}
	want := module{"go.uber.org/zap", "v1.27.0", "abcdef1234567890"}
	for what, d := range map[string]debug.Module{"as it is": zap, "in place of another": {Path: "example.org/zap", Version: "v1.0.0", Replace: &zap}} {
		if got, err := readModule(&d); err != nil || got != want {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
	for _, sum := range []string{"", "h1:%", "h2:q83vEjRWeJA="} {
		if got, err := readModule(&debug.Module{Path: "example.org/x", Version: "v1.0.0", Sum: sum}); err == nil {
			t.Errorf("checksum %q: %+v", sum, got)
		}
	}
}

func TestNoProgram(t *testing.T) {
	for _, args := range [][]string{nil, {"1.2.0", "today", "/bin/true"}, {"1.2.0", "0", "/nonexistent"}, {"1.2.0", "0", "sbom_test.go"}} {
		if err := run(args); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
	if _, err := newBOM("1.2.0", time.Time{}, nil); err == nil {
		t.Error("a release without programs")
	}
}
