package redisclient_test

import (
	"testing"

	"github.com/postern-mail/postern/internal/store/redisclient"
)

// Another generation is a loss, each time.
func TestLost(t *testing.T) {
	t.Parallel()
	losses := 0
	c, err := redisclient.Open(redisclient.Options{URL: "redis://127.0.0.1:1", Lost: func() { losses++ }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for i, want := range []int{0, 0, 1, 1, 2} {
		c.SawGeneration([]string{"a", "a", "b", "b", "a"}[i])
		if losses != want {
			t.Errorf("step %d: %d losses, want %d", i, losses, want)
		}
	}
}
