package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/postfixtest"
)

const (
	ownedSenders   = 100_000
	ownershipConns = 16
	ownershipLoad  = 200_000 // requests a round
	ownershipParts = 5       // of a round, in turn: other work on the machine comes and goes
	idleConns      = 500

	// ownershipDistinct is the number of different requests on a connection. Together
	// they use a sixth of the table, which fits into the daemons' caches.
	ownershipDistinct = 1000
)

func benchOwnership(ctx context.Context, e *env) ([]result, error) {
	table, err := writeOwners(e, "owners")
	if err != nil {
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

	drawn := load{conns: ownershipConns, requests: ownershipLoad / ownershipParts, request: drawOwnership()}
	var ratios, ours, floor, toBytes []float64
	for range rounds * ownershipParts {
		bytes, _, err := ownershipRound(ctx, drawn.against(true), echoPID, echoSocket)
		if err != nil {
			return nil, err
		}
		reference, _, err := ownershipRound(ctx, drawn, echoPID, echoSocket+policyEchoSuffix)
		if err != nil {
			return nil, err
		}
		measured, actions, err := ownershipRound(ctx, drawn, daemon.PID(), socket)
		if err = errors.Join(err, expect(actions, ownershipReplies(drawn.requests))); err != nil {
			return nil, err
		}
		ratios, toBytes = append(ratios, measured/reference), append(toBytes, measured/bytes)
		ours, floor = append(ours, measured), append(floor, reference)
	}
	memory, err := residentWith(idleConns, daemon.PID(), socket)
	if err != nil {
		return nil, err
	}
	return []result{
		{what: "CPU of a decision with its record, against a Go policy echo", value: median(ratios), unit: "times", most: 2.5,
			detail: fmt.Sprintf("%.1f against %.1f µs, %s", median(ours), median(floor), spread(ratios))},
		{what: "the same, against an echo that looks at nothing", value: median(toBytes), unit: "times", most: 2.5, detail: spread(toBytes)},
		{what: fmt.Sprintf("resident with %d senders and %d connections", ownedSenders, idleConns), value: memory, unit: "MiB", most: 64},
	}, daemon.Stop()
}

// startPolicyd runs postern-policyd on a unix socket and writes its records to a file.
func startPolicyd(ctx context.Context, e *env, name string, args ...string) (*postfixtest.Daemon, string, error) {
	binary, err := e.binaries.Path(ctx, "postern-policyd")
	if err != nil {
		return nil, "", err
	}
	socket := filepath.Join(e.dir, name+".sock")
	daemon, err := postfixtest.StartDaemon(ctx, postfixtest.DaemonConfig{Path: binary, Args: append([]string{
		"--listen=unix:" + socket,
	}, append(e.daemonArgs(name), args...)...)})
	return daemon, socket, err
}

func owner(n int) (sender, login string) {
	return fmt.Sprintf("sender%d@d%d.example", n, n%997), fmt.Sprintf("login%d@d%d.example", n/3, n%997)
}

// writeOwners writes a table of owners and returns its path. Tables have a directory of
// their own, as in an installation (/etc/postfix). A daemon watches the directories of
// its tables, so it would also be woken by each write to a log or database in them.
func writeOwners(e *env, name string) (path string, err error) {
	path = e.table(name)
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	w := bufio.NewWriter(f)
	for n := range ownedSenders {
		sender, login := owner(n)
		fmt.Fprintf(w, "%s\t%s\n", sender, login)
	}
	return path, errors.Join(w.Flush(), f.Close())
}

// ownershipReplies returns the expected replies to a number of requests.
func ownershipReplies(requests int) map[string]int {
	return map[string]int{"DUNNO": requests * 9 / 10, "553": requests / 10}
}

// loadOwnership sends a round of requests, few enough to be cached. It returns the
// microseconds of CPU that a request cost pid. want are the expected replies; nil for
// any.
func loadOwnership(ctx context.Context, pid int, socket string, want map[string]int) (float64, error) {
	l := load{conns: ownershipConns, requests: ownershipLoad, request: ownershipRequest, distinct: ownershipDistinct}
	cpu, actions, err := ownershipRound(ctx, l, pid, socket)
	return cpu, errors.Join(err, expect(actions, want))
}

func expect(actions, want map[string]int) error {
	for action, n := range want {
		if actions[action] != n {
			return fmt.Errorf("replies %v, want %v", actions, want)
		}
	}
	return nil
}

// against returns the load for a server that writes requests back (echo), or for one
// that answers.
func (l load) against(echo bool) load {
	l.echoed = echo
	return l
}

// ownershipRound sends requests. A tenth of them use a sender that belongs to another
// user.
func ownershipRound(ctx context.Context, l load, pid int, socket string) (cpu float64, actions map[string]int, err error) {
	took, err := used(pid, func() (err error) {
		_, actions, err = l.send(ctx, "unix", socket)
		return err
	})
	return float64(took.Nanoseconds()) / 1000 / float64(l.requests), actions, err
}

// drawOwnership returns requests with random senders from the whole table, so that few
// are the same. A request is valid until the next one of its connection.
func drawOwnership() func(c, i int) []byte {
	fixed := strings.Split(policyRequest, "%s") // the text between the values
	draws := make([]*rand.Rand, ownershipConns)
	requests := make([][]byte, ownershipConns)
	for c := range draws {
		draws[c] = rand.New(rand.NewPCG(uint64(c), ownedSenders))
	}
	return func(c, i int) []byte {
		b := append(requests[c][:0], fixed[0]...)
		for v, value := range ownershipValues(draws[c].IntN(ownedSenders), i) {
			b = append(append(b, value...), fixed[v+1]...)
		}
		requests[c] = b
		return b
	}
}

func ownershipRequest(c, i int) []byte {
	v := ownershipValues((c*7919+i*104_729)%ownedSenders, i)
	return fmt.Appendf(nil, policyRequest, v[0], v[1], v[2], v[3], v[4], v[5])
}

// ownershipValues returns the values in policyRequest for the i-th request of a
// connection and the n-th sender.
func ownershipValues(n, i int) [6]string {
	sender, login := owner(n)
	if i%10 == 0 {
		login = "mallory@elsewhere.example"
	}
	return [...]string{"192.0.2.7", "client.example", sender, "rcpt@example.org", "7b." + sender, login}
}

// residentWith opens connections and sends a request on each. It returns the memory of
// the process.
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
