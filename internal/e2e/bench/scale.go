package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
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
func benchScale(ctx context.Context, args []string) error {
	p, flags := newPublication(scaleArg)
	triplets := flags.Int("triplets", smallGreylist, "how many triplets the largest greylist holds; ten times as many are simulated")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *triplets < smallGreylist {
		return fmt.Errorf("--triplets is %d; at least %d are needed", *triplets, smallGreylist)
	}
	p.command = fmt.Sprintf("go run ./internal/e2e/bench scale --triplets %d", *triplets)
	if p.rounds != usualRounds {
		p.command += fmt.Sprint(" --rounds ", p.rounds)
	}
	return p.run(ctx, func(f field) []contest {
		contests := []contest{f.policyConnections(), f.milterSessions(), f.clusters(), f.triplets(smallGreylist)}
		if *triplets > smallGreylist {
			contests = append(contests, f.triplets(*triplets))
		}
		return append(contests, f.simulated(*triplets))
	}, derived)
}

// policyConnections measures a policy server with few and many connections.
func (f field) policyConnections() contest {
	return contest{key: "connections", name: policyGroup, unit: "request", open: true,
		text: "Greylisting of new senders with SQLite, over few and many connections. Each connection has one request under way, so the time of a request grows with their number: it waits for those before it.",
		contenders: []contender{
			{server: connections(greylistConns), start: f.policyOver(greylistConns)},
			{server: connections(manyPolicyConns), start: f.policyOver(manyPolicyConns)},
		}}
}

func (f field) policyOver(conns int) func(context.Context, *env) (candidate, error) {
	return func(ctx context.Context, e *env) (candidate, error) {
		name := fmt.Sprint("conns", conns)
		daemon, g, err := startGreylist(ctx, e, name, "--resolver="+f.at.String(), "--greylist-store=sqlite:"+filepath.Join(e.dir, name+".db"))
		if err != nil {
			return candidate{}, err
		}
		g.conns, g.metrics = conns, e.metrics(name)
		return candidate{subject: g.subject, stop: daemon.Stop, load: func(ctx context.Context, t turn) ([]loaded, error) {
			g := g
			g.requests = max(ourLoad/t.share/conns, 1) * conns
			s, err := g.send(ctx, t.round, g.deferring())
			return []loaded{{sample: s}}, err
		}}, nil
	}
}

// milterSessions measures both roles of the milter with few and many sessions.
func (f field) milterSessions() contest {
	c := contest{key: "sessions", name: milterGroup, unit: "mail", open: true,
		text: "Mails of 10 KB, signed by OpenSSL with RSA-2048 or verified, over few and many sessions."}
	for _, conns := range []int{milterConns, manyMilterConns} {
		c.contenders = append(c.contenders,
			contender{server: sessions("signing", conns), start: func(ctx context.Context, e *env) (candidate, error) {
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
				return f.sessions(subject{pids: []int{daemon.PID()}, metrics: strings.TrimSuffix(socket, ".sock") + ".metrics"}, daemon.Stop, l), nil
			}},
			contender{server: sessions("verifying", conns), start: func(ctx context.Context, e *env) (candidate, error) {
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
				return f.sessions(subject{pids: []int{daemon.PID()}, metrics: strings.TrimSuffix(socket, ".sock") + ".metrics"}, daemon.Stop, l), nil
			}})
	}
	return c
}

// sessions is mails for any number of sessions.
func (f field) sessions(s subject, stop func() error, l mailLoad) candidate {
	return candidate{subject: s, stop: stop, load: s.alone(func(ctx context.Context, t turn) (int, latencies, time.Duration, error) {
		l := l
		l.mails = max(l.mails/t.share/l.conns, 1) * l.conns
		took, wall, err := l.send(ctx)
		return l.mails, took, wall, err
	})}
}

// clusters measures the greylist on one Redis and on Clusters.
func (f field) clusters() contest {
	c := contest{key: "cluster", name: clusterGroup, unit: "request",
		text: "Greylisting with 16 connections. All servers of the Cluster are masters and run on the same machine, so a Cluster gets no more processors here: the table shows what it costs, not what it gains. " +
			"The CPU and memory are those of Postern and all Redis servers.",
		contenders: []contender{{server: "one Redis", start: f.redisGreylist("--resolver=" + f.at.String())}}}
	for _, masters := range []int{3, 6} {
		c.contenders = append(c.contenders, contender{server: masterCount(masters), start: func(ctx context.Context, e *env) (candidate, error) {
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

// redisAlone is the server of the row that shows what triplets cost in Redis.
const redisAlone = "Redis"

func (f field) triplets(count int) contest {
	c := contest{key: "triplets", name: tripletsGroup(count), unit: "request", text: tripletsText,
		contenders: []contender{{server: "Postern", note: "default memory", start: f.filled(count, true)}}}
	if count == smallGreylist {
		c.contenders = append(c.contenders, contender{server: redisAlone, note: "CPU and memory of Redis alone", start: f.filledRedis(count)})
	}
	return c
}

func (f field) simulated(count int) contest {
	const memory = "--greylist-memory=32M" // a tenth of the default
	return contest{key: "simulated", name: tripletsGroup(10*count) + ", simulated", unit: "request",
		text: fmt.Sprintf("A simulation: the greylist of %d million triplets, with a tenth of the default memory. The share of triplets that are in memory is that of ten times as many "+
			"with the default memory. The database is ten times smaller than a real one, and the system may keep more of it in its cache.", count/1_000_000),
		contenders: []contender{{server: "Postern", note: memory, start: f.filled(count, false, memory)}}}
}

// filled returns a greylist in a file that holds count triplets. fill is whether they are
// still to be written.
func (f field) filled(count int, fill bool, flags ...string) func(context.Context, *env) (candidate, error) {
	return func(ctx context.Context, e *env) (candidate, error) {
		store := fmt.Sprintf("--greylist-store=sqlite:%s/triplets%d.db", e.dir, count)
		daemon, g, err := startGreylist(ctx, e, fmt.Sprintf("triplets%d-%t", count, fill), append(flags, "--resolver="+f.at.String(), store)...)
		if err != nil {
			return candidate{}, err
		}
		c := candidate{subject: g.subject, stop: daemon.Stop, load: g.halfKnown(count, fill)}
		if fill {
			err = g.fill(ctx, count)
		}
		return c, err
	}
}

// filledRedis returns a Redis that holds count triplets. Its daemon is not measured.
func (f field) filledRedis(count int) func(context.Context, *env) (candidate, error) {
	return func(ctx context.Context, e *env) (candidate, error) {
		addr, pid, stop, err := startRedisAs(ctx, e, "triplets")
		if err != nil {
			return candidate{}, err
		}
		daemon, g, err := startGreylist(ctx, e, "triplets-redis", "--resolver="+f.at.String(), "--greylist-store=redis://"+addr)
		if err != nil {
			stop()
			return candidate{}, err
		}
		g.subject = subject{pids: []int{pid}}
		return candidate{subject: g.subject, stop: ender(quiet(stop), daemon.Stop), load: g.halfKnown(count, true)}, g.fill(ctx, count)
	}
}

// firstFilled is the first of the rounds whose triplets fill a greylist.
const firstFilled = 1_000

// fill sends count new triplets.
func (g greylister) fill(ctx context.Context, count int) error {
	g.requests = fillAtOnce
	for chunk := range count / fillAtOnce {
		if _, err := g.send(ctx, firstFilled+chunk, ""); err != nil {
			return err
		}
	}
	return nil
}

// halfKnown returns a load of which one half are triplets that fill has sent. first is
// false for the second greylist with the same database.
func (g greylister) halfKnown(count int, first bool) func(context.Context, turn) ([]loaded, error) {
	fresh := 0 // round of the triplets that are new
	if !first {
		fresh = firstFilled / 2
	}
	return g.alone(func(ctx context.Context, t turn) (int, latencies, time.Duration, error) {
		l := load{conns: greylistConns, requests: t.sized(ourLoad), request: func(c, i int) []byte {
			if i%2 == 0 {
				return greylistRequest(fresh+t.round, c, i)
			}
			at := (i*104_729 + t.round*7_919) % (count / greylistConns) // of the connection
			const each = fillAtOnce / greylistConns
			return greylistRequest(firstFilled+at/each, c, at%each)
		}}
		took, _, wall, err := l.sendLean(ctx, g.socket)
		return l.requests, took, wall, err
	})
}
