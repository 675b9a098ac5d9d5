package e2e

import (
	"os"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/resolver/bindtest"
)

// While keys are rotated every mail is signed, and each signature verifies.
func TestRotationStory(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(bindtest.Program); err != nil && os.Getenv("CI") == "" {
		t.Skip("bind9 is not installed; see .ci/setup")
	}
	shown, wrong, err := RotationStory(t.Context(), newSigningSite(t, SiteConfig{}))
	if err != nil {
		t.Fatal(err)
	}
	if wrong != nil {
		t.Error(wrong)
	}
	if len(shown) != len(rotationDays) {
		t.Fatalf("%+v", shown)
	}
	first, last := shown[0].Mail, shown[len(shown)-1].Mail
	if !strings.Contains(first, homeDomain+"/postern-ed25519") || !strings.Contains(first, "verifies 2 of 2") {
		t.Errorf("first %q", first)
	}
	if !strings.Contains(last, homeDomain+"/postern-2") || strings.Contains(last, homeDomain+"/postern-ed25519") || !strings.Contains(last, "verifies 2 of 2") {
		t.Errorf("last %q", last)
	}
}
