package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/postern-mail/postern/internal/postfixtest"
)

const (
	ownedSenders   = 100_000
	ownershipConns = 16
	ownershipLoad  = 200_000 // requests a round
	idleConns      = 500

	// ownershipDistinct requests a connection: together they touch a third of
	// the table.
	ownershipDistinct = 2000
)

func benchOwnership(ctx context.Context, e *env) ([]result, error) {
	table := filepath.Join(e.dir, "owners")
	if err := writeOwners(table); err != nil {
		return nil, err
	}
	daemon, socket, err := startPolicyd(ctx, e, "ownership", "--checks", "ownership", "--owners", "hash:"+table)
	if err != nil {
		return nil, err
	}
	defer daemon.Kill()
	echoSocket := filepath.Join(e.dir, "echo.sock")
	echoPID, stopEcho, err := startEcho(ctx, echoSocket)
	if err != nil {
		return nil, err
	}
	defer stopEcho()

	var ratios, ours, floor []float64
	for range rounds {
		reference, _, err := ownershipRound(ctx, echoPID, echoSocket, true)
		if err != nil {
			return nil, err
		}
		measured, err := loadOwnership(ctx, daemon.PID(), socket, map[string]int{"DUNNO": ownershipLoad * 9 / 10, "553": ownershipLoad / 10})
		if err != nil {
			return nil, err
		}
		ratios = append(ratios, measured/reference)
		ours, floor = append(ours, measured), append(floor, reference)
	}
	memory, err := residentWith(idleConns, daemon.PID(), socket)
	if err != nil {
		return nil, err
	}
	return []result{
		{what: "CPU of a decision with its record, against a Go echo", value: median(ratios), unit: "times", most: 2.5,
			detail: fmt.Sprintf("%.1f against %.1f µs, %s", median(ours), median(floor), spread(ratios))},
		{what: fmt.Sprintf("resident with %d senders and %d connections", ownedSenders, idleConns), value: memory, unit: "MiB", most: 64},
	}, daemon.Stop()
}

// startPolicyd runs postern-policyd on a unix socket, its records in a file.
func startPolicyd(ctx context.Context, e *env, name string, args ...string) (*postfixtest.Daemon, string, error) {
	binary, err := e.binaries.Path(ctx, "postern-policyd")
	if err != nil {
		return nil, "", err
	}
	socket := filepath.Join(e.dir, name+".sock")
	daemon, err := postfixtest.StartDaemon(ctx, postfixtest.DaemonConfig{Path: binary, Args: append([]string{
		"--config=", "--listen=unix:" + socket, "--admin=", "--metrics-listen=",
		"--log-file=" + filepath.Join(e.dir, name+".log"),
	}, args...)})
	return daemon, socket, err
}

func owner(n int) (sender, login string) {
	return fmt.Sprintf("sender%d@d%d.example", n, n%997), fmt.Sprintf("login%d@d%d.example", n/3, n%997)
}

func writeOwners(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	for n := range ownedSenders {
		sender, login := owner(n)
		fmt.Fprintf(w, "%s\t%s\n", sender, login)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}

// loadOwnership sends a round and returns the microseconds of CPU a request
// cost pid. want are the replies that must have come, nil for any.
func loadOwnership(ctx context.Context, pid int, socket string, want map[string]int) (float64, error) {
	cpu, actions, err := ownershipRound(ctx, pid, socket, false)
	for action, n := range want {
		if err == nil && actions[action] != n {
			err = fmt.Errorf("replies %v, want %v", actions, want)
		}
	}
	return cpu, err
}

// ownershipRound sends requests of which a tenth uses a sender that belongs to
// somebody else. echoed tells that they come back as they are.
func ownershipRound(ctx context.Context, pid int, socket string, echoed bool) (cpu float64, actions map[string]int, err error) {
	l := load{conns: ownershipConns, requests: ownershipLoad, request: ownershipRequest, distinct: ownershipDistinct, echoed: echoed}
	took, err := used(pid, func() (err error) {
		_, actions, err = l.send(ctx, "unix", socket)
		return err
	})
	return float64(took.Nanoseconds()) / 1000 / ownershipLoad, actions, err
}

func ownershipRequest(c, i int) []byte {
	n := (c*7919 + i*104_729) % ownedSenders
	sender, login := owner(n)
	if i%10 == 0 {
		login = "mallory@elsewhere.example"
	}
	return fmt.Appendf(nil, policyRequest, "192.0.2.7", "client.example", sender, "rcpt@example.org", "7b."+sender, login)
}

// residentWith opens connections that have each asked once, and reads the
// memory of the process.
func residentWith(conns, pid int, socket string) (float64, error) {
	for c := range conns {
		conn, err := net.DialTimeout("unix", socket, 10*time.Second)
		if err != nil {
			return 0, err
		}
		defer conn.Close()
		if _, err := conn.Write(ownershipRequest(c, 1)); err != nil {
			return 0, err
		}
		if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
			return 0, err
		}
	}
	return resident(pid)
}
