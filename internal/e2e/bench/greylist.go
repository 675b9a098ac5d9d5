package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

const (
	greylistConns  = 16
	greylistRounds = 5
	ourLoad        = 48_000 // requests a phase and round, of Postern
	postgreyLoad   = 3_200  // likewise, of postgrey
	// greylistDelay is over when the next phase begins.
	greylistDelay = time.Second
)

// greylistZone authorises the clients of greylistRequest.
const greylistZone = "greylist.example. 3600 IN TXT \"v=spf1 ip4:198.18.0.0/16 ip4:198.19.0.0/16 -all\"\n"

// greylister is a policy server to measure.
type greylister struct {
	socket string
	subject
	requests int // of a phase
	conns    int // 0 for greylistConns
	// The first words of its replies, if they are not those of Postern.
	defers, passes string
}

// phases holds the figures of the two kinds of decision: a new sender, and a sender
// that has passed before.
type phases struct{ newRate, knownRate, newCPU, knownCPU []float64 } // requests a second; µs of CPU a request

// benchGreylist compares the stores with postgrey. Each server has the allow lists of
// its package. No client is allowed permanently after its first mails, because all load
// comes from few networks.
func benchGreylist(ctx context.Context, e *env) ([]result, error) {
	postgrey, stop, err := startPostgrey(ctx, e)
	if err != nil {
		return nil, err
	}
	defer stop()
	redis, _, stopRedis, err := startRedis(ctx, e)
	if err != nil {
		return nil, err
	}
	defer stopRedis()
	dns, err := resolvertest.Start(greylistZone)
	if err != nil {
		return nil, err
	}
	defer dns.Close()

	subjects := []struct {
		name        string
		least, most float64 // of the rate and of the CPU, against postgrey
		flags       []string
	}{
		{"embedded", 15, 1. / 8, []string{"--resolver=" + dns.Addr(), "--greylist-store=sqlite:" + filepath.Join(e.dir, "bench.db")}},
		{"Redis", 10, 0, []string{"--resolver=" + dns.Addr(), "--greylist-store=redis://" + redis}},
		{"embedded, key of the network", 15, 1. / 8, []string{"--resolver=" + dns.Addr(), "--greylist-key=network", "--greylist-store=sqlite:" + filepath.Join(e.dir, "network.db")}},
	}
	var results []result
	for i, s := range subjects {
		daemon, ours, err := startGreylist(ctx, e, fmt.Sprint("greylist", i), s.flags...)
		if err != nil {
			return nil, err
		}
		got, reference, err := inTurn(ctx, i, ours, postgrey)
		if err = errors.Join(err, daemon.Stop()); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		results = append(results, compare(s.name, s.least, s.most, got, reference)...)
	}
	return results, nil
}

func compare(name string, least, most float64, got, reference phases) []result {
	var results []result
	for _, p := range []struct {
		name                          string
		rate, refRate, cpuOf, refCPUs []float64
	}{
		{"new", got.newRate, reference.newRate, got.newCPU, reference.newCPU},
		{"known", got.knownRate, reference.knownRate, got.knownCPU, reference.knownCPU},
	} {
		results = append(results,
			result{what: fmt.Sprintf("%s, %s: requests against postgrey's", name, p.name), value: median(ratios(p.rate, p.refRate)), unit: "times", least: least,
				detail: fmt.Sprintf("%.0f against %.0f /s", median(p.rate), median(p.refRate))},
			result{what: fmt.Sprintf("%s, %s: CPU against postgrey's", name, p.name), value: median(ratios(p.cpuOf, p.refCPUs)), unit: "times", most: most,
				detail: fmt.Sprintf("%.1f against %.1f µs", median(p.cpuOf), median(p.refCPUs))})
	}
	return results
}

// ratios compares values that were measured within seconds of each other, because the
// speed of the machine may change in a minute.
func ratios(values, references []float64) []float64 {
	all := make([]float64, len(values))
	for i := range values {
		all[i] = values[i] / references[i]
	}
	return all
}

// inTurn measures both servers in the same minute.
func inTurn(ctx context.Context, series int, ours, postgrey greylister) (got, reference phases, err error) {
	for round := range greylistRounds {
		if err := postgrey.measure(ctx, series*greylistRounds+round, &reference); err != nil {
			return got, reference, fmt.Errorf("postgrey: %w", err)
		}
		if err := ours.measure(ctx, series*greylistRounds+round, &got); err != nil {
			return got, reference, err
		}
	}
	return got, reference, nil
}

// measure runs a round.
func (g greylister) measure(ctx context.Context, round int, into *phases) error {
	fresh, known, err := g.round(ctx, round)
	if err != nil {
		return err
	}
	into.newRate, into.newCPU = append(into.newRate, fresh.rate()), append(into.newCPU, fresh.micros())
	into.knownRate, into.knownCPU = append(into.knownRate, known.rate()), append(into.knownCPU, known.micros())
	return nil
}

// round sends new senders, their retry (not measured), and the same senders again.
func (g greylister) round(ctx context.Context, round int) (fresh, known sample, err error) {
	if fresh, err = g.send(ctx, round, g.deferring()); err != nil {
		return fresh, known, err
	}
	select {
	case <-ctx.Done():
		return fresh, known, ctx.Err()
	case <-time.After(greylistDelay + time.Second): // postgrey counts whole seconds
	}
	if _, err = g.send(ctx, round, ""); err != nil {
		return fresh, known, err
	}
	known, err = g.send(ctx, round, g.passing())
	return fresh, known, err
}

// deferring and passing return the first words of the two replies.
func (g greylister) deferring() string { return cmp.Or(g.defers, "DEFER_IF_PERMIT") }
func (g greylister) passing() string   { return cmp.Or(g.passes, "DUNNO") }

// send sends the requests of a phase. All replies must begin with want, if it is not "".
func (g greylister) send(ctx context.Context, round int, want string) (sample, error) {
	l := load{conns: cmp.Or(g.conns, greylistConns), requests: g.requests,
		request: func(c, i int) []byte { return greylistRequest(round, c, i) }}
	return g.take(ctx, func() (int, latencies, time.Duration, error) {
		took, actions, wall, err := l.sendLean(ctx, g.socket)
		if err == nil && want != "" {
			err = expect(actions, map[string]int{want: g.requests})
		}
		return g.requests, took, wall, err
	})
}

// greylistRequest returns a request with a sender of its own. The sender has letters,
// because the greylist would mask digits. The clients are in 512 networks.
func greylistRequest(round, c, i int) []byte {
	sender := letters(round) + "." + letters(c) + "." + letters(i) + "@greylist.example"
	client := fmt.Sprintf("198.%d.%d.%d", 18+i%2, (i/2)%256, 1+c%250)
	return fmt.Appendf(nil, policyRequest, client, "mx.greylist.example", sender, "rcpt@example.org", "7b."+sender, "")
}

func letters(n int) string {
	b := []byte{'g' + byte(n%20)}
	for n /= 20; n > 0; n /= 20 {
		b = append(b, 'g'+byte(n%20))
	}
	return string(b)
}

func startGreylist(ctx context.Context, e *env, name string, flags ...string) (*postfixtest.Daemon, greylister, error) {
	daemon, socket, err := startPolicyd(ctx, e, name, append([]string{"--checks=greylist",
		"--greylist-delay=" + greylistDelay.String(), "--greylist-awl-after=0", "--greylist-flood=0", "--greylist-flood-network=0"}, flags...)...)
	if err != nil {
		return nil, greylister{}, err
	}
	return daemon, greylister{socket: socket, subject: subject{pids: []int{daemon.PID()}}, requests: ourLoad}, nil
}

// startPostgrey runs postgrey with an empty database and the allow lists of its
// package.
func startPostgrey(ctx context.Context, e *env) (greylister, func(), error) {
	dir := filepath.Join(e.dir, "postgrey")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return greylister{}, nil, err
	}
	socket := filepath.Join(e.dir, "postgrey.sock")
	cmd := exec.Command("postgrey", "--unix="+socket, "--dbdir="+dir, "--user=root", "--group=root", "--quiet",
		fmt.Sprintf("--delay=%.0f", greylistDelay.Seconds()), "--auto-whitelist-clients=0",
		"--whitelist-clients=/etc/postgrey/whitelist_clients", "--whitelist-recipients=/etc/postgrey/whitelist_recipients")
	stop, err := startPeer(ctx, cmd, func() error { return waitSocket(ctx, socket) })
	if err != nil {
		return greylister{}, nil, fmt.Errorf("postgrey: %w", err)
	}
	return greylister{socket: socket, subject: subject{pids: []int{cmd.Process.Pid}}, requests: postgreyLoad}, stop, nil
}

func startRedis(ctx context.Context, e *env) (addr string, pid int, stop func(), err error) {
	return startRedisAs(ctx, e, "redis")
}

// startRedisAs runs a Redis with a name for its files, and further settings.
func startRedisAs(ctx context.Context, e *env, name string, settings ...string) (addr string, pid int, stop func(), err error) {
	port := ""
	for len(port) < 5 || port > "55000" { // the Cluster bus listens 10000 above
		if addr, err = postfixtest.FreeAddr(); err != nil {
			return "", 0, nil, err
		}
		_, port, _ = strings.Cut(addr, ":")
	}
	socket := filepath.Join(e.dir, name+".sock")
	cmd := exec.Command("redis-server", append([]string{"--port", port, "--bind", "127.0.0.1", "--unixsocket", socket, "--save", "", "--dir", e.dir,
		"--cluster-config-file", name + ".nodes"}, settings...)...)
	stop, err = startPeer(ctx, cmd, func() error { return waitSocket(ctx, socket) })
	if err != nil {
		return "", 0, nil, err
	}
	return addr, cmd.Process.Pid, stop, nil
}

// startPeer starts another project's program.
func startPeer(ctx context.Context, cmd *exec.Cmd, wait func() error) (stop func(), err error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}
	if err := wait(); err != nil {
		stop()
		return nil, err
	}
	return stop, ctx.Err()
}
