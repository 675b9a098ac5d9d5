package policyd

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestGreylistSettings(t *testing.T) {
	for want, args := range map[string][]string{
		"--greylist-store: \"mysql:x\" is no store": {"--greylist-store=mysql:x"},
		"--greylist-store: no path":                 {"--greylist-store=sqlite:"},
		"password file":                             {"--greylist-store=redis://u:secret@host"},
		"is for Redis":                              {"--greylist-store=memory:", "--greylist-password-file=/x"},
		"nobody could pass":                         {"--greylist-retry-window=5m", "--greylist-delay=10m"},
		"--greylist-url":                            {"--greylist-url=javascript:x"},
		"out of bounds":                             {"--greylist-delay=0"},
	} {
		_, err := configure(append([]string{"--config=", "--checks=greylist"}, args...), nil)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
}

// TestGreylistStoreIsShared builds a second state beside the first, as a
// reload does: the file can be opened only once.
func TestGreylistStoreIsShared(t *testing.T) {
	store := "--greylist-store=sqlite:" + filepath.Join(t.TempDir(), "greylist.db")
	c := newCurrent()
	load := func(args ...string) *loaded {
		t.Helper()
		s, err := loadInto(c, quiet(), append([]string{"--config=", "--checks=greylist", store}, args...), nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := load()
	first.apply(c)
	second := load("--greylist-delay=5m")
	if partOf[*greylistPart](t, second.state).store != partOf[*greylistPart](t, first.state).store {
		t.Error("the store was opened again")
	}
	second.apply(c)
	c.Close()
	load().life.Discard() // after the last user
}

func TestGlob(t *testing.T) {
	for _, test := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "x", true}, {"x", "x", true}, {"X", "x", true}, {"x", "xy", false}, {"x*", "xy", true}, {"*y", "xy", true},
		{"*@*.example", "a@b.example", true}, {"a*a", "a", false}, {"a*b*c", "a-b-c", true}, {"a*b*c", "a-c-b", false}, {"*", "", true},
	} {
		if got := glob(test.pattern, test.s); got != test.want {
			t.Errorf("%q, %q: %t", test.pattern, test.s, got)
		}
	}
}
