package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	limitPeerConns = 16
	ourLimitLoad   = 48_000 // requests a round, of Postern
	postfwdLoad    = 960    // likewise, of postfwd2
	rateLimitLoad  = 480    // likewise, of policyd-rate-limit
	// rateLimitLoadMemory is the load of a policyd-rate-limit that does not wait for a
	// disk.
	rateLimitLoadMemory = 4_800
	limitHour           = 100 // recipients of a login in an hour
	limitDay            = 200
	limitProof          = 150 // requests of one login, of which limitHour must pass
	// peerStart is how long a peer may take until it listens.
	peerStart = 30 * time.Second
)

// limiter is a policy server with two limits for each login, and its measurements.
type limiter struct {
	name     string
	least    float64 // of our rate against this one's; 0 for no bound
	socket   string
	pid      int
	requests int // of a round
	stop     func() error

	rates, cpu []float64 // a round: requests a second; µs of CPU a request
}

// benchLimitPeers compares a request that touches two limits of its login with the same
// request in policyd-rate-limit and in postfwd2. Each server uses its default store:
// Postern and policyd-rate-limit use a file of SQLite, postfwd2 its memory. The files
// are on a disk, as in an installation. policyd-rate-limit waits for the disk at each
// request, and this takes most of its time. A second policyd-rate-limit with its file
// in memory shows its speed without that wait. It has no bound.
func benchLimitPeers(ctx context.Context, e *env) (results []result, err error) {
	memory, err := os.MkdirTemp("/dev/shm", "postern-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(memory)
	var limiters []*limiter
	defer func() {
		for _, l := range limiters {
			err = errors.Join(err, l.stop())
		}
	}()
	for _, start := range []func(context.Context, *env) (*limiter, error){
		startLimits,
		rateLimitIn(e.dir, limiter{name: "policyd-rate-limit", least: 10, requests: rateLimitLoad}),
		rateLimitIn(memory, limiter{name: "policyd-rate-limit in memory", requests: rateLimitLoadMemory}),
		startPostfwd,
	} {
		l, err := start(ctx, e)
		if err != nil {
			return nil, err
		}
		limiters = append(limiters, l)
	}
	for round := range rounds {
		for _, l := range limiters {
			if err := l.measure(ctx, round); err != nil {
				return nil, fmt.Errorf("%s: %w", l.name, err)
			}
		}
	}
	for _, l := range limiters {
		if err := l.prove(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", l.name, err)
		}
	}
	for _, peer := range limiters[1:] {
		results = append(results, limiters[0].against(peer)...)
	}
	return results, nil
}

func (l *limiter) against(peer *limiter) []result {
	rates, cpu := ratios(l.rates, peer.rates), ratios(l.cpu, peer.cpu)
	return []result{
		{what: fmt.Sprintf("requests against %s", peer.name), value: median(rates), unit: "times", least: peer.least,
			detail: fmt.Sprintf("%.0f against %.0f /s, %s", median(l.rates), median(peer.rates), spread(rates))},
		{what: fmt.Sprintf("CPU against %s", peer.name), value: median(cpu), unit: "times",
			detail: fmt.Sprintf("%.1f against %.1f µs, %.3f–%.3f", median(l.cpu), median(peer.cpu), slices.Min(cpu), slices.Max(cpu))},
	}
}

// measure runs a round in which no login reaches a limit.
func (l *limiter) measure(ctx context.Context, round int) error {
	s, err := subject{pids: []int{l.pid}}.take(ctx, func() (int, latencies, time.Duration, error) {
		took, wall, err := l.send(ctx, round)
		return l.requests, took, wall, err
	})
	l.rates, l.cpu = append(l.rates, s.rate()), append(l.cpu, s.micros())
	return err
}

// send sends the load of a round.
func (l *limiter) send(ctx context.Context, round int) (latencies, time.Duration, error) {
	load := load{conns: limitPeerConns, requests: l.requests, request: limitRequest(round)}
	took, actions, wall, err := load.sendLean(ctx, l.socket)
	return took, wall, errors.Join(err, expect(actions, map[string]int{"DUNNO": l.requests}))
}

// prove sends more requests of one login than its limit, to show that the server
// counts.
func (l *limiter) prove(ctx context.Context) error {
	load := load{conns: 1, requests: limitProof, request: func(_, i int) []byte {
		return fmt.Appendf(nil, policyRequest, "192.0.2.7", "client.example", "thief@elsewhere.example",
			fmt.Sprintf("rcpt%d@example.org", i), fmt.Sprintf("proof.%x", i), "stolen@elsewhere.example")
	}}
	_, actions, _, err := load.sendLean(ctx, l.socket)
	return errors.Join(err, expect(actions, map[string]int{"DUNNO": limitHour, "450": limitProof - limitHour}))
}

func startLimits(ctx context.Context, e *env) (*limiter, error) {
	daemon, socket, err := startPolicyd(ctx, e, "limitpeers", "--checks=limit", "--limit-store=sqlite:"+filepath.Join(e.dir, "limitpeers.db"),
		fmt.Sprintf("--limit=login=%d/1h", limitHour), fmt.Sprintf("--limit=login=%d/1d", limitDay))
	if err != nil {
		return nil, err
	}
	return &limiter{name: "postern-policyd", socket: socket, pid: daemon.PID(), requests: ourLimitLoad, stop: daemon.Stop}, nil
}

// rateLimitConfig is the configuration of policyd-rate-limit as installed, except for
// the limits, the paths, and the debug output, which is off.
const rateLimitConfig = `debug: False
user: root
group: root
pidfile: %[1]s/pid
backend: 0
sqlite_config:
    database: %[1]s/db/limits.sqlite3
SOCKET: %[1]s/socket
socket_permission: 0600
limits:
    - [%[2]d, 3600]
    - [%[3]d, 86400]
limit_by_sasl: True
success_action: DUNNO
fail_action: 450 4.7.1 too many mails
`

// rateLimitIn returns a function that starts policyd-rate-limit with its files in dir.
func rateLimitIn(dir string, l limiter) func(context.Context, *env) (*limiter, error) {
	return func(ctx context.Context, _ *env) (*limiter, error) {
		dir := filepath.Join(dir, "policyd-rate-limit")
		config := dir + ".yaml"
		err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(config, fmt.Appendf(nil, rateLimitConfig, dir, limitHour, limitDay), 0o600))
		if err != nil {
			return nil, err
		}
		l.socket = filepath.Join(dir, "socket")
		cmd := exec.Command("policyd-rate-limit", "--file", config)
		ctx, cancel := context.WithTimeout(ctx, peerStart)
		defer cancel()
		stop, err := startPeer(ctx, cmd, func() error { return waitSocket(ctx, l.socket) })
		if err != nil {
			return nil, fmt.Errorf("policyd-rate-limit: %w", err)
		}
		l.pid = cmd.Process.Pid
		l.stop = func() error { stop(); return nil }
		return &l, nil
	}
}

// startPostfwd runs postfwd2, a group of processes, without its log.
func startPostfwd(ctx context.Context, e *env) (*limiter, error) {
	dir := filepath.Join(e.dir, "postfwd2")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	socket, pidFile := filepath.Join(dir, "socket"), filepath.Join(dir, "pid")
	rule := "id=%s; sasl_username=~/./; action=rate(sasl_username/%d/%d/450 4.7.1 too many mails)"
	cmd := exec.Command("postfwd2", "--daemon", "--user=root", "--group=root", "--pidfile="+pidFile, "--nodns", "--perfmon",
		"--proto=unix", "--port="+socket, "--cache_proto=unix", "--cache_port="+filepath.Join(dir, "cache"),
		fmt.Sprint("--min_servers=", limitPeerConns+4),
		"--rule="+fmt.Sprintf(rule, "HOUR", limitHour, 3600), "--rule="+fmt.Sprintf(rule, "DAY", limitDay, 86400))
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("postfwd2: %w: %s", err, out)
	}
	// It runs already, so its id must be read even after an interrupt.
	starting, cancel := context.WithTimeout(context.WithoutCancel(ctx), peerStart)
	defer cancel()
	written, err := waitFile(starting, pidFile)
	if err != nil {
		return nil, fmt.Errorf("postfwd2: %w", err)
	}
	group, err := strconv.Atoi(strings.TrimSpace(written))
	if err != nil || group <= 1 {
		return nil, fmt.Errorf("postfwd2: its pid file has %q", written)
	}
	l := &limiter{name: "postfwd2", least: 10, socket: socket, pid: group, requests: postfwdLoad,
		stop: func() error { return unix.Kill(-group, unix.SIGKILL) }}
	if err := waitSocket(starting, socket); err != nil {
		return nil, errors.Join(fmt.Errorf("postfwd2: %w", err), l.stop())
	}
	return l, nil
}

// waitFile returns the content of a file as soon as it is not empty.
func waitFile(ctx context.Context, path string) (string, error) {
	for {
		content, err := os.ReadFile(path)
		if len(content) > 0 {
			return string(content), nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("nothing is in %s: %w", path, errors.Join(err, ctx.Err()))
		case <-time.After(10 * time.Millisecond):
		}
	}
}
