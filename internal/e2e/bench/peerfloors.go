package main

import (
	"context"
	"crypto/sha256"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// floors measures what no server of these kinds can be below on this machine.
func (f field) floors() contest {
	return contest{
		key: "floors", name: "Floors", unit: "request",
		text: "What no server of these kinds can be below on this machine. A signature and a hash have no rate here, only CPU.",
		contenders: []contender{
			{server: "policy echo", note: "a Go server that reads a request and answers DUNNO", start: f.policyEcho},
			{server: "Redis script call", note: "one key is counted; the CPU is that of Redis", start: f.redisScript},
			{server: "RSA-2048 signature by Go", start: bare(func(context.Context) (float64, error) { return bareRSA(bareSigns) })},
			{server: "RSA-2048 signature by OpenSSL", start: bare(func(ctx context.Context) (float64, error) { return bareOpenSSL(ctx, nil) })},
			{server: "SHA-256 of 10 KB", start: bare(func(context.Context) (float64, error) { return bareHash(10_000, 20_000) })},
			{server: "SHA-256 of 1 MB", start: bare(func(context.Context) (float64, error) { return bareHash(1<<20, 200) })},
		},
	}
}

func (f field) policyEcho(ctx context.Context, e *env) (candidate, error) {
	path := filepath.Join(e.dir, "floor.sock")
	pid, stop, err := startEcho(ctx, path)
	if err != nil {
		return candidate{}, err
	}
	s := subject{pids: []int{pid}}
	return candidate{subject: s, stop: quiet(stop), load: s.alone(func(ctx context.Context, t turn) (int, latencies, time.Duration, error) {
		l := load{conns: milterConns, requests: t.sized(ourLimitLoad), request: limitRequest(t.round)}
		took, _, wall, err := l.sendLean(ctx, path+policyEchoSuffix)
		return l.requests, took, wall, err
	})}, nil
}

// scriptCalls is the number of calls a round.
const scriptCalls = 48_000

func (f field) redisScript(ctx context.Context, e *env) (candidate, error) {
	addr, pid, stop, err := startRedis(ctx, e)
	if err != nil {
		return candidate{}, err
	}
	client := redis.NewClient(&redis.Options{Addr: addr, PoolSize: milterConns})
	s := subject{pids: []int{pid}}
	return candidate{subject: s, stop: ender(quiet(stop), client.Close), load: s.alone(func(ctx context.Context, t turn) (int, latencies, time.Duration, error) {
		calls := t.sized(scriptCalls)
		took, wall, err := callScript(ctx, client, calls)
		return calls, took, wall, err
	})}, nil
}

// callScript calls a script from as many goroutines as a policy client has connections.
func callScript(ctx context.Context, client *redis.Client, calls int) (latencies, time.Duration, error) {
	script := redis.NewScript("return redis.call('INCR', KEYS[1])")
	took := make([]latencies, milterConns)
	start := time.Now()
	err := together(milterConns, func(c int) error {
		for range calls / milterConns {
			called := time.Now()
			if err := script.Run(ctx, client, []string{"k" + letters(c)}).Err(); err != nil {
				return err
			}
			took[c] = append(took[c], time.Since(called))
		}
		return nil
	})
	wall := time.Since(start)
	all := slices.Concat(took...)
	slices.Sort(all)
	return all, wall, err
}

// bare returns a candidate without a server. measure returns microseconds of CPU.
func bare(measure func(context.Context) (float64, error)) func(context.Context, *env) (candidate, error) {
	return func(context.Context, *env) (candidate, error) {
		return candidate{load: func(ctx context.Context, _ turn) ([]loaded, error) {
			micros, err := measure(ctx)
			const sent = 10_000
			return []loaded{{sample: sample{sent: sent, cpu: time.Duration(micros * sent * float64(time.Microsecond))}}}, err
		}}, nil
	}
}

// bareHash returns the microseconds of CPU of one of some hashes.
func bareHash(octets, times int) (float64, error) {
	body := make([]byte, octets)
	spent, err := used(os.Getpid(), func() error {
		for range times {
			sha256.Sum256(body)
		}
		return nil
	})
	return float64(spent.Microseconds()) / float64(times), err
}
