package main

import (
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// TestSoak is the short form of "make soak".
func TestSoak(t *testing.T) {
	postfixtest.Require(t)
	if err := soak(t.Context(), 2*time.Minute, 1, t.Output()); err != nil {
		t.Error(err)
	}
}
