package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/manual"
	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// scaleArg is the verb that measures large sites.
const scaleArg = "scale"

const (
	manyPolicyConns = 2_000
	manyMilterConns = 500
	manyMails       = 4_000 // a round
	// fillAtOnce is the number of requests that are in memory while a greylist is filled.
	fillAtOnce    = 500_000
	smallGreylist = 1_000_000
)

// benchScale measures many connections, many triplets and a Redis Cluster, and
// publishes the figures in deploy/SCALE.md.
func benchScale(ctx context.Context, args []string) (err error) {
	flags := pflag.NewFlagSet(scaleArg, pflag.ContinueOnError)
	rounds := flags.Int("rounds", 3, "how often each server is measured")
	triplets := flags.Int("triplets", smallGreylist, "how many triplets the largest greylist holds; ten times as many are simulated")
	publish := flags.Bool("publish", true, "write the figures to deploy/")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *rounds < 1 || *triplets < smallGreylist {
		return fmt.Errorf("--rounds must be at least 1, and --triplets at least %d", smallGreylist)
	}
	e, stop, err := newDiskEnv()
	if err != nil {
		return err
	}
	defer stop()
	f := field{at: postfixtest.NameserverAddr(), share: 1}
	if f.key, f.record, err = newRSAKey(); err != nil {
		return err
	}
	dns, err := resolvertest.StartAt(f.at.String(), f.zone())
	if err != nil {
		return err
	}
	defer dns.Close()
	figures := manual.Figures{Measured: time.Now().UTC().Format(time.DateOnly), Machine: machine(),
		Command: fmt.Sprintf("go run ./internal/e2e/bench scale --triplets %d", *triplets), Rounds: *rounds}
	contests := []contest{f.policyConnections(), f.milterSessions(), f.clusters(), f.triplets(smallGreylist)}
	if *triplets > smallGreylist {
		contests = append(contests, f.triplets(*triplets))
	}
	for _, c := range append(contests, f.simulated(*triplets)) {
		fmt.Fprintln(os.Stderr, "bench:", c.name)
		g, err := c.run(ctx, e, *rounds)
		if err != nil {
			return err
		}
		figures.Groups = append(figures.Groups, g)
	}
	figures.Groups = append(figures.Groups, paper(figures.Groups))
	return show(ctx, figures, scaleArg, *publish)
}

// policyConnections measures a policy server with few and many connections.
func (f field) policyConnections() contest {
	return contest{name: "Policy connections", unit: "request", files: true,
		text: "Greylisting of new senders with SQLite, over few and many connections. Each connection has one request under way, so the time of a request grows with their number: it waits for those before it.",
		contenders: []contender{
			{server: "16 connections", start: f.policyOver(16)},
			{server: "2,000 connections", start: f.policyOver(manyPolicyConns)},
		}}
}

func (f field) policyOver(conns int) func(context.Context, *env) (candidate, error) {
	return func(ctx context.Context, e *env) (candidate, error) {
		name := fmt.Sprint("conns", conns)
		daemon, g, err := startGreylist(ctx, e, name, "--resolver="+f.at.String(), "--greylist-store=sqlite:"+filepath.Join(e.dir, name+".db"))
		if err != nil {
			return candidate{}, err
		}
		g.conns = conns
		return candidate{pids: g.pids(), stop: daemon.Stop, load: func(ctx context.Context, round int) ([]loaded, error) {
			s, err := g.send(ctx, round, g.deferring())
			return []loaded{{sample: s}}, err
		}}, nil
	}
}

// milterSessions measures both roles of the milter with few and many sessions.
func (f field) milterSessions() contest {
	c := contest{name: "Milter sessions", unit: "mail", files: true,
		text: "Mails of 10 KB, signed by OpenSSL with RSA-2048 or verified, over few and many sessions."}
	for _, conns := range []int{milterConns, manyMilterConns} {
		c.contenders = append(c.contenders,
			contender{server: fmt.Sprintf("signing, %d sessions", conns), start: func(ctx context.Context, e *env) (candidate, error) {
				program, err := buildOpenSSL(ctx, e)
				if err != nil {
					return candidate{}, err
				}
				daemon, socket, err := startMilterd(ctx, e, program, "rsa", "--rsa-engine=openssl")
				if err != nil {
					return candidate{}, err
				}
				l := signedLoad(socket, manyMails)
				l.conns = conns
				return f.mails([]int{daemon.PID()}, daemon.Stop, l), nil
			}},
			contender{server: fmt.Sprintf("verifying, %d sessions", conns), start: func(ctx context.Context, e *env) (candidate, error) {
				l, err := f.verifiedLoad(manyMails, passed)
				if err != nil {
					return candidate{}, err
				}
				if e, err = e.below("verify"); err != nil {
					return candidate{}, err
				}
				daemon, socket, err := startVerifier(ctx, e, f.at.String())
				if err != nil {
					return candidate{}, err
				}
				l.sockets, l.conns = []string{socket}, conns
				return f.mails([]int{daemon.PID()}, daemon.Stop, l), nil
			}})
	}
	return c
}

// clusters measures the greylist on one Redis and on Clusters.
func (f field) clusters() contest {
	c := contest{name: "Redis Cluster", unit: "request",
		text: "Greylisting with 16 connections. All servers of the Cluster are masters and run on the same machine, so a Cluster gets no more processors here: the table shows what it costs, not what it gains. " +
			"The CPU and memory are those of Postern and all Redis servers.",
		contenders: []contender{{server: "one Redis", start: f.redisGreylist("--resolver=" + f.at.String())}}}
	for _, masters := range []int{3, 6} {
		c.contenders = append(c.contenders, contender{server: fmt.Sprintf("%d masters", masters), start: func(ctx context.Context, e *env) (candidate, error) {
			addrs, pids, stop, err := startCluster(ctx, e, masters)
			if err != nil {
				return candidate{}, err
			}
			daemon, g, err := startGreylist(ctx, e, fmt.Sprint("cluster", masters), "--resolver="+f.at.String(), "--greylist-store=redis+cluster://"+strings.Join(addrs, ","))
			if err != nil {
				stop()
				return candidate{}, err
			}
			return f.greylist(g, redisLoad, ender(quiet(stop), daemon.Stop), pids...), nil
		}})
	}
	return c
}

// startCluster runs a Redis Cluster of masters alone.
func startCluster(ctx context.Context, e *env, masters int) (addrs []string, pids []int, stop func(), err error) {
	var stops []func() error
	stop = func() { _ = ender(stops...)() } // they are killed
	defer func() {
		if err != nil {
			stop()
		}
	}()
	for i := range masters {
		addr, pid, stopOne, err := startRedisAs(ctx, e, fmt.Sprintf("cluster%d-%d", masters, i), "--cluster-enabled", "yes")
		if err != nil {
			return nil, nil, nil, err
		}
		addrs, pids, stops = append(addrs, addr), append(pids, pid), append(stops, quiet(stopOne))
	}
	create := append(append([]string{"--cluster", "create"}, addrs...), "--cluster-yes")
	if out, err := exec.CommandContext(ctx, "redis-cli", create...).CombinedOutput(); err != nil {
		return nil, nil, nil, fmt.Errorf("redis-cli --cluster create: %w\n%s", err, out)
	}
	ready, cancel := context.WithTimeout(ctx, peerStart)
	defer cancel()
	for _, addr := range addrs {
		if err := waitCluster(ready, addr); err != nil {
			return nil, nil, nil, err
		}
	}
	return addrs, pids, stop, nil
}

// waitCluster returns when a node knows that all slots are served.
func waitCluster(ctx context.Context, addr string) error {
	host, port, _ := strings.Cut(addr, ":")
	for {
		out, err := exec.CommandContext(ctx, "redis-cli", "-h", host, "-p", port, "cluster", "info").CombinedOutput()
		if err == nil && strings.Contains(string(out), "cluster_state:ok") {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the Cluster is not ready: %w: %s", errors.Join(err, ctx.Err()), out)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// tripletsText describes both contests of triplets.
const tripletsText = "The database is filled through the daemon. Then one half of the requests are of triplets that it holds, drawn from all of them, and one half are new."

func (f field) triplets(count int) contest {
	name := fmt.Sprintf("A greylist of %d million triplets", count/1_000_000)
	return contest{name: name, unit: "request", text: tripletsText,
		contenders: []contender{{server: "Postern", note: "default memory", start: f.filled(count, true)}}}
}

func (f field) simulated(count int) contest {
	return contest{name: fmt.Sprintf("A greylist of %d million triplets, simulated", count/100_000), unit: "request",
		text: fmt.Sprintf("A simulation: the greylist of %d million triplets, with a tenth of the default memory. The share of triplets that are in memory is that of ten times as many "+
			"with the default memory. The database is ten times smaller than a real one, and the system may keep more of it in its cache.", count/1_000_000),
		contenders: []contender{{server: "Postern", note: "--greylist-memory=32M", start: f.filled(count, false, "--greylist-memory=32M")}}}
}

// filled returns a greylist that holds count triplets. fill is whether they are still to
// be written.
func (f field) filled(count int, fill bool, flags ...string) func(context.Context, *env) (candidate, error) {
	return func(ctx context.Context, e *env) (candidate, error) {
		flags = append(flags, "--resolver="+f.at.String(), fmt.Sprintf("--greylist-store=sqlite:%s/triplets%d.db", e.dir, count))
		daemon, g, err := startGreylist(ctx, e, fmt.Sprintf("triplets%d-%t", count, fill), flags...)
		if err != nil {
			return candidate{}, err
		}
		c := candidate{pids: g.pids(), stop: daemon.Stop}
		const first = 1_000 // rounds before it are of new senders
		g.requests = fillAtOnce
		for chunk := range count / fillAtOnce {
			if !fill {
				break
			}
			if _, err := g.send(ctx, first+chunk, ""); err != nil {
				return c, err
			}
		}
		g.requests = ourLoad
		c.load = alone(g.pids(), func(ctx context.Context, round int) (int, latencies, time.Duration, error) {
			l := load{conns: greylistConns, requests: g.requests, request: func(c, i int) []byte {
				if i%2 == 0 {
					return greylistRequest(round+map[bool]int{true: 0, false: 500}[fill], c, i)
				}
				at := (i*104_729 + round*7_919) % (count / greylistConns) // of the connection
				const each = fillAtOnce / greylistConns
				return greylistRequest(first+at/each, c, at%each)
			}}
			took, _, wall, err := l.sendLean(ctx, g.socket)
			return l.requests, took, wall, err
		})
		return c, nil
	}
}

// The site of paper.
const (
	siteMails = 100_000_000 // a day
	sitePeak  = 3           // times the mean of a day
)

// paper calculates what a site needs from the figures.
func paper(groups []manual.FigureGroup) manual.FigureGroup {
	cost := func(group, server, load string) float64 {
		for _, g := range groups {
			for _, r := range g.Rows {
				if g.Name == group && r.Server == server && r.Load == load {
					return r.CPU / 10_000
				}
			}
		}
		return 0 // the group's row says why
	}
	const day = 24 * 60 * 60
	peak := float64(siteMails) * sitePeak / day
	policy, verify := cost("Redis Cluster", "3 masters", "known senders"), cost("Milter sessions", fmt.Sprintf("verifying, %d sessions", manyMilterConns), "")
	rows := []string{
		fmt.Sprintf("- %d mails a day are %.0f a second, and at a peak of %d times the mean %.0f.", siteMails, float64(siteMails)/day, sitePeak, peak),
		fmt.Sprintf("- Greylisting with a Cluster of 3 masters (known senders): %.0f µs of CPU a mail, Redis included: %.1f processors at the peak.", policy*1e6, policy*peak),
		fmt.Sprintf("- Verifying (%d sessions): %.0f µs of CPU a mail of 10 KB: %.1f processors at the peak.", manyMilterConns, verify*1e6, verify*peak),
		fmt.Sprintf("- Together %.1f processors at the peak; with twice that for failures and larger mails, %.0f.", (policy+verify)*peak, 2*(policy+verify)*peak+0.5),
	}
	return manual.FigureGroup{Name: "On paper: 100 million mails a day", Text: "Calculated from the figures above, not measured. One recipient a mail; Postfix itself needs more than Postern and is not counted.\n\n" + strings.Join(rows, "\n")}
}
