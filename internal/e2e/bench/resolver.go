package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

const (
	cachedLookups   = 2_000_000 // a round
	uncachedLookups = 60_000    // a round
	resolverUsers   = 64        // goroutines that ask at once
	dnsArg          = "-dns"
)

// serveDNS answers for every name below wild.example.
func serveDNS(ready func(string), done io.Reader) error {
	server, err := resolvertest.Start("*.wild.example. 300 IN TXT \"v=spf1 -all\"\n")
	if err != nil {
		return err
	}
	defer server.Close()
	ready(server.Addr())
	_, err = io.Copy(io.Discard, done)
	return err
}

func benchResolver(ctx context.Context, _ *env) ([]result, error) {
	defer debug.SetGCPercent(debug.SetGCPercent(daemonGC))
	_, addr, stop, err := startServer(ctx, dnsArg)
	if err != nil {
		return nil, err
	}
	defer stop()
	r, err := resolver.New(resolver.Config{Servers: []string{addr}})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var cached, rates, costs []float64
	for round := range rounds {
		spent, err := used(os.Getpid(), func() error {
			return askCached(ctx, r)
		})
		if err != nil {
			return nil, err
		}
		cached = append(cached, float64(spent.Nanoseconds())/cachedLookups)
		start := time.Now()
		spent, err = used(os.Getpid(), func() error {
			return askUncached(ctx, r, fmt.Sprintf(".r%d.wild.example", round))
		})
		if err != nil {
			return nil, err
		}
		rates = append(rates, uncachedLookups/time.Since(start).Seconds())
		costs = append(costs, float64(spent.Microseconds())/uncachedLookups)
	}
	return []result{
		{what: "CPU of a lookup from the cache", value: median(cached), unit: "ns", most: 1000, detail: spread(cached)},
		{what: "lookups past the cache, the fake server on the same machine", value: median(rates), unit: "/s", least: 15_000,
			detail: fmt.Sprintf("%.1f µs of CPU each, %s", median(costs), spread(rates))},
	}, nil
}

func askCached(ctx context.Context, r *resolver.Resolver) error {
	for range cachedLookups {
		if _, err := r.Query(ctx, "cached.wild.example", resolver.TypeTXT); err != nil {
			return err
		}
	}
	return nil
}

// askUncached asks for names that have not been asked for before.
func askUncached(ctx context.Context, r *resolver.Resolver, suffix string) error {
	var wg sync.WaitGroup
	errs := make([]error, resolverUsers)
	for user := range resolverUsers {
		wg.Go(func() {
			for n := user; n < uncachedLookups; n += resolverUsers {
				if _, err := r.LookupTXT(ctx, "n"+strconv.Itoa(n)+suffix); err != nil {
					errs[user] = err
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
