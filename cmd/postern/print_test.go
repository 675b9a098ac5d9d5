package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/maillog"
)

// A time that is printed has its zone, and can be given to --since and --at.
func TestTimesHaveTheirZone(t *testing.T) {
	before := time.Local
	t.Cleanup(func() { time.Local = before })
	at := time.Date(2026, 11, 21, 2, 0, 0, 0, time.UTC)
	for want, zone := range map[string]*time.Location{
		"2026-11-21 02:00:00Z":      time.UTC,
		"2026-11-21 03:00:00+01:00": time.FixedZone("CET", 3600),
		"2026-11-20 22:30:00-03:30": time.FixedZone("NST", -12600),
	} {
		time.Local = zone
		got := local(at)
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if back, err := maillog.ParseTime(got, time.Now()); err != nil || !back.Equal(at) {
			t.Errorf("--since %s: %v, %v", got, back, err)
		}
		if back, err := parseTime(got, time.Now()); err != nil || !back.Equal(at) {
			t.Errorf("--at %s: %v, %v", got, back, err)
		}
	}
}

// No command formats a local time on its own. Without its zone may be only what is below a
// time with its zone.
func TestTimesAreFormattedInOnePlace(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(err, files)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") || name == "print.go" {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, ".Local().Format(") && !strings.Contains(line, "timeOnly") && !strings.Contains(line, "Z07:00") {
				t.Errorf("%s: %s: use local", name, strings.TrimSpace(line))
			}
		}
	}
}
