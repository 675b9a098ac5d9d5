package redisclient

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// Another generation is the loss of everything, and an older stamp that of the time since,
// each time. What a server may lose when it fails is none, nor is a clock that is set back.
func TestLost(t *testing.T) {
	t.Parallel()
	var lost []time.Duration
	c, err := Open(Options{URL: "redis://127.0.0.1:1", Lost: func(span time.Duration) { lost = append(lost, span) }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for i, step := range []struct {
		generation     string
		found, written int64
		lost           string
	}{
		{"a", 0, 1000, "[]"},
		{"a", 1000, 1005, "[]"},
		{"a", 1003, 1010, "[]"}, // by a replica that was seven seconds behind
		{"a", 1010, 1010, "[]"}, // the clock was set back
		{"a", 1010, 2000, "[]"},
		{"b", 0, 2005, "[0s]"},
		{"b", 2005, 2010, "[]"},
		{"b", 1410, 2015, "[10m0s]"},
		{"b", 2015, 2020, "[]"},
		{"b", 2020, 2605, "[]"},
		{"b", 0, 2610, "[10m0s]"}, // all since the first probe of this generation
		{"a", 1010, 2615, "[0s]"},
	} {
		lost = nil
		if err := c.sawProbe([]any{step.generation, step.found, step.written}); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(lost) != step.lost {
			t.Errorf("step %d: lost %v, want %s", i, lost, step.lost)
		}
	}
	for _, answer := range []any{nil, "a", []any{"a"}, []any{"a", "b", "c"}, []any{int64(1), int64(2), int64(3)}} {
		if err := c.sawProbe(answer); !errors.Is(err, ErrAnswer) {
			t.Errorf("%v: %v", answer, err)
		}
	}
}
