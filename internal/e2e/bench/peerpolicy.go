package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

const (
	redisLoad   = 24_000 // requests a phase and round, of Postern with Redis
	sqlgreyLoad = 800    // likewise, of SQLgrey
)

// greylists compares greylisting.
func (f field) greylists() contest {
	resolver := "--resolver=" + f.at.String()
	return contest{
		key: "greylisting", name: "Greylisting", unit: "request",
		text: "A new sender, and a sender that has passed before, of 512 networks; 16 connections. Each server has the allow lists of its package and keeps its data on the disk, " +
			"Redis in its memory. Different from the defaults: the delay is a second (0 minutes in SQLgrey), and no client is allowed for good after its first mails " +
			"(`--greylist-awl-after=0`, `--auto-whitelist-clients=0`, `group_domain_level = 0`), since all load comes from few clients. Postern's limits of new senders are off for the same reason. " +
			"Postern writes its records, the peers write no log.",
		contenders: []contender{
			{server: "Postern", note: "SQLite", ours: true, start: f.ourGreylist("sqlite", ourLoad, func(e *env) string { return "sqlite:" + filepath.Join(e.dir, "peers-greylist.db") }, resolver)},
			{server: "Postern with Redis", note: "its CPU is that of Postern and Redis", ours: true, start: f.redisGreylist(resolver)},
			{server: "postgrey", note: "Berkeley DB", leastRate: 15, leastCPU: 8, start: func(ctx context.Context, e *env) (candidate, error) {
				g, stop, err := startPostgrey(ctx, e)
				return f.greylist(g, postgreyLoad, quiet(stop)), err
			}},
			{server: "SQLgrey", note: "SQLite; it waits for the disk", start: f.sqlgrey},
		},
	}
}

// greylist returns a greylister as a candidate. Further processes count as its own.
func (f field) greylist(g greylister, load int, stop func() error, more ...int) candidate {
	g.pids = append(g.pids, more...)
	return candidate{subject: g.subject, stop: stop, load: func(ctx context.Context, t turn) ([]loaded, error) {
		g := g
		g.requests = t.sized(load)
		fresh, known, err := g.round(ctx, t.round)
		return []loaded{{"new senders", fresh}, {"known senders", known}}, err
	}}
}

func (f field) ourGreylist(name string, load int, store func(e *env) string, flags ...string) func(context.Context, *env) (candidate, error) {
	return func(ctx context.Context, e *env) (candidate, error) {
		daemon, g, err := startGreylist(ctx, e, "peers-"+name, append(flags, "--greylist-store="+store(e))...)
		if err != nil {
			return candidate{}, err
		}
		return f.greylist(g, load, daemon.Stop), nil
	}
}

func (f field) redisGreylist(flags ...string) func(context.Context, *env) (candidate, error) {
	return func(ctx context.Context, e *env) (candidate, error) {
		addr, pid, stop, err := startRedis(ctx, e)
		if err != nil {
			return candidate{}, err
		}
		daemon, g, err := startGreylist(ctx, e, "peers-redis", append(flags, "--greylist-store=redis://"+addr)...)
		if err != nil {
			stop()
			return candidate{}, err
		}
		return f.greylist(g, redisLoad, ender(quiet(stop), daemon.Stop), pid), nil
	}
}

// sqlgreyConfig is for a server that runs as root. See the text of the contest for what
// differs from the defaults.
const sqlgreyConfig = `user = root
group = root
unix = %[1]s/socket
pidfile = %[1]s/pid
db_type = SQLite
db_name = %[1]s/db
reconnect_delay = 0
group_domain_level = 0
`

func (f field) sqlgrey(ctx context.Context, e *env) (candidate, error) {
	dir := filepath.Join(e.dir, "sqlgrey")
	config := filepath.Join(dir, "conf")
	err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(config, fmt.Appendf(nil, sqlgreyConfig, dir), 0o600))
	if err != nil {
		return candidate{}, err
	}
	cmd := exec.Command("sqlgrey", "-f", config)
	g := greylister{socket: filepath.Join(dir, "socket"), passes: "PREPEND", defers: "defer_if_permit"}
	ctx, cancel := context.WithTimeout(ctx, peerStart)
	defer cancel()
	stop, err := startPeer(ctx, cmd, func() error { return waitSocket(ctx, g.socket) })
	if err != nil {
		return candidate{}, fmt.Errorf("sqlgrey: %w", err)
	}
	g.pids = []int{cmd.Process.Pid}
	return f.greylist(g, sqlgreyLoad, quiet(stop)), nil
}

// limitsRest is longer than the minute after which Postern copies its journal of counters
// to their rows, so that each round has such a copy.
const limitsRest = 61 * time.Second

// limits compares limits of logins.
func (f field) limits() contest {
	of := func(start func(context.Context, *env) (*limiter, error), rest time.Duration) func(context.Context, *env) (candidate, error) {
		return func(ctx context.Context, e *env) (candidate, error) {
			l, err := start(ctx, e)
			if err != nil {
				return candidate{}, err
			}
			s := subject{pids: []int{l.pid}, rest: rest}
			load := l.requests
			return candidate{subject: s, stop: l.stop, load: s.alone(func(ctx context.Context, t turn) (int, latencies, time.Duration, error) {
				l.requests = t.sized(load)
				took, wall, err := l.send(ctx, t.round)
				return l.requests, took, wall, err
			})}, nil
		}
	}
	return contest{
		key: "limits", name: "Limits", unit: "request",
		text: "Each request counts for two limits of its login, in an hour and in a day; 20,000 logins, none of which reaches its limit; 16 connections. " +
			"postfwd2 writes no log. policyd-rate-limit has Debian's settings, without its debug output. Postern's CPU is counted for another minute, in which it tidies its file.",
		contenders: []contender{
			{server: "Postern", note: "SQLite", ours: true, start: of(startLimits, limitsRest)},
			{server: "postfwd2", note: "in memory", leastRate: 10, start: of(startPostfwd, usualRest)},
			{server: "policyd-rate-limit", note: "SQLite; it waits for the disk", leastRate: 10, start: func(ctx context.Context, e *env) (candidate, error) {
				return of(rateLimitIn(e.dir, limiter{requests: rateLimitLoad}), usualRest)(ctx, e)
			}},
		},
	}
}
