package main

import (
	"bytes"
	"strings"
	"testing"
)

// What setup says while it works has no key of Spamhaus's DQS in it, wherever it comes from.
func TestSetupHidesKeys(t *testing.T) {
	const key = "abcdefghijklmnopqrstuvwxyz"
	var out bytes.Buffer
	sayTo(&out)("%s was changed since: %s", "main.cf", "reject_rbl_client "+key+".zen.dq.spamhaus.net")
	if said := out.String(); strings.Contains(said, key) || !strings.Contains(said, "main.cf was changed") {
		t.Errorf("setup says %q", said)
	}
}
