package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

// Two answers on one input, the second without a newline, and then its end.
func TestReadAnswer(t *testing.T) {
	in := strings.NewReader("  yes\r\nno")
	for _, want := range []string{"yes", "no", ""} {
		if got, err := readAnswer(t.Context(), in); got != want || err != nil {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
}

// Ctrl-C ends the command while it waits for an answer.
func TestReadAnswerInterrupted(t *testing.T) {
	in, typed := io.Pipe()
	defer typed.Close()
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	if got, err := readAnswer(ctx, in); got != "" || !errors.Is(err, errInterrupted) {
		t.Errorf("%q, %v", got, err)
	}
}
