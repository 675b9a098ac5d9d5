package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // the driver

	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

const (
	manyTriplets = 1_000_000
	manyLoad     = 160_000
	// triplets are older than this before they are purged.
	shortWindow = time.Minute
)

// triplets are the figures of a store of a million triplets.
type triplets struct {
	start          time.Duration
	opened, loaded float64 // MiB
	filled         sample
	purged         latencies
}

// benchTriplets measures how a store of a million triplets starts, and the latency while
// they are purged and the new ones are written. With SPF a triplet is two entries.
func benchTriplets(ctx context.Context, e *env) ([]result, error) {
	dns, err := resolvertest.Start(greylistZone)
	if err != nil {
		return nil, err
	}
	defer dns.Close()
	network, err := measureTriplets(ctx, e, "network", "--greylist-key=network")
	if err != nil {
		return nil, err
	}
	bySPF, err := measureTriplets(ctx, e, "spf", "--resolver="+dns.Addr())
	if err != nil {
		return nil, err
	}
	return []result{
		network.latency("by network"),
		{what: "a million triplets, by network: resident", value: max(network.opened, network.loaded), unit: "MiB", most: 250, detail: fmt.Sprintf("%.0f MiB after the start", network.opened)},
		{what: "a million triplets, by network: start of the daemon", value: network.start.Seconds(), unit: "s", most: 1.5},
		bySPF.latency("by SPF"),
		{what: "a million triplets, by SPF: resident", value: max(bySPF.opened, bySPF.loaded), unit: "MiB", detail: fmt.Sprintf("%.0f MiB after the start", bySPF.opened)},
		{what: "a million triplets, by SPF: start of the daemon", value: bySPF.start.Seconds(), unit: "s"},
	}, nil
}

func (t triplets) latency(key string) result {
	return result{what: "a million triplets, " + key + ", while purging: p99", value: ms(t.purged.quantile(0.99)), unit: "ms", most: 5,
		detail: fmt.Sprintf("p50 %.2f ms, p99.9 %.2f ms; filled at %.0f /s", ms(t.purged.quantile(0.5)), ms(t.purged.quantile(0.999)), t.filled.rate())}
}

func measureTriplets(ctx context.Context, e *env, name string, flags ...string) (t triplets, err error) {
	store := filepath.Join(e.dir, name+".db")
	flags = append(flags, "--greylist-store=sqlite:"+store)
	daemon, g, err := startGreylist(ctx, e, name+"1", flags...)
	if err != nil {
		return t, err
	}
	g.requests = manyTriplets
	t.filled, err = g.send(ctx, 1000, "")
	if err = errors.Join(err, daemon.Stop()); err != nil {
		return t, err
	}
	if err := age(ctx, store, 2*shortWindow); err != nil {
		return t, err
	}
	began := time.Now()
	daemon, g, err = startGreylist(ctx, e, name+"2", append(flags, "--greylist-retry-window="+shortWindow.String())...)
	if err != nil {
		return t, err
	}
	t.start = time.Since(began)
	return t, errors.Join(t.loadWhilePurging(ctx, g), daemon.Stop())
}

// age makes all entries of a store older.
func age(ctx context.Context, store string, by time.Duration) error {
	db, err := sql.Open("sqlite", store)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "UPDATE entries SET first = first - ?1, last = last - ?1", by.Milliseconds())
	return errors.Join(err, db.Close())
}

// loadWhilePurging sends requests, half of them of triplets that the store holds. The
// store looks for expired rows all the time.
func (t *triplets) loadWhilePurging(ctx context.Context, g greylister) (err error) {
	if t.opened, err = resident(g.pids[0]); err != nil {
		return err
	}
	l := load{conns: greylistConns, requests: manyLoad,
		request: func(c, i int) []byte { return greylistRequest(1000+i%2, c, i*5) }}
	if t.purged, _, _, err = l.sendLean(ctx, g.socket); err != nil {
		return err
	}
	t.loaded, err = resident(g.pids[0])
	return err
}
