package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

const (
	limitLoad   = 100_000 // requests a round
	limitLogins = 20_000
)

// benchLimits compares two requests: one that also touches two limits of its login in
// the embedded store, and an ownership decision alone. Each request is a recipient of
// another mail.
func benchLimits(ctx context.Context, e *env) ([]result, error) {
	table, err := writeOwners(e, "owners-limits")
	if err != nil {
		return nil, err
	}
	owners, ownersSocket, err := startPolicyd(ctx, e, "limits-reference", "--checks=ownership", "--owners=hash:"+table)
	if err != nil {
		return nil, err
	}
	defer owners.Kill()
	limits, limitsSocket, err := startPolicyd(ctx, e, "limits", "--checks=ownership,limit", "--owners=hash:"+table,
		"--limit=login=1G/1h", "--limit=login=2G/1d", "--limit-store=sqlite:"+filepath.Join(e.dir, "limits.db"))
	if err != nil {
		return nil, err
	}
	defer limits.Kill()
	mail := 0
	var ratios, ours, reference []float64
	for range rounds {
		mail++
		l := load{conns: ownershipConns, requests: limitLoad, request: limitRequest(mail)}
		one, err := limitRound(ctx, l, owners.PID(), ownersSocket)
		if err != nil {
			return nil, err
		}
		both, err := limitRound(ctx, l, limits.PID(), limitsSocket)
		if err != nil {
			return nil, err
		}
		ratios, ours, reference = append(ratios, both/one), append(ours, both), append(reference, one)
	}
	return []result{{
		what: "CPU of a decision with two limits of its login, against ownership alone", value: median(ratios), unit: "times", most: 1.6,
		detail: fmt.Sprintf("%.1f against %.1f µs, %s", median(ours), median(reference), spread(ratios)),
	}}, errors.Join(owners.Stop(), limits.Stop())
}

// limitRound returns the microseconds of CPU that a request cost pid, until everything is
// in the file.
func limitRound(ctx context.Context, l load, pid int, socket string) (float64, error) {
	s, err := subject{pids: []int{pid}}.take(ctx, func() (int, latencies, time.Duration, error) {
		took, actions, err := l.send(ctx, "unix", socket)
		return l.requests, took, 0, errors.Join(err, expect(actions, map[string]int{"DUNNO": l.requests}))
	})
	return s.micros(), err
}

// limitRequest returns requests of many logins, each for its own mail.
func limitRequest(round int) func(c, i int) []byte {
	return func(c, i int) []byte {
		sender, login := owner((c*7919 + i*104_729) % limitLogins)
		return fmt.Appendf(nil, policyRequest, "192.0.2.7", "client.example", sender, "rcpt@example.org", fmt.Sprintf("%x.%x.%x", c, i, round), login)
	}
}
