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
	// pacedRate is more requests a second than any site has (SCALE.md), and less than the
	// machine can do.
	pacedRate = 10_000
)

// triplets are the figures of a store of a million triplets.
type triplets struct {
	checked, intact time.Duration // the start with a file that another program has changed, and with one that none has
	opened, loaded  float64       // MiB
	filled          sample
	purged, kept    latencies
	paced           latencies // while purging, at pacedRate
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
	return append(network.results("by network", 5, 250, 1.5), bySPF.results("by SPF", 5, 0, 0)...), nil
}

// results returns the figures with their bounds, 0 for none.
func (t triplets) results(key string, latency, memory, start float64) []result {
	name := "a million triplets, " + key
	return []result{
		{what: name + ", while purging: p99", value: ms(t.purged.quantile(0.99)), unit: "ms", most: latency,
			detail: fmt.Sprintf("%s; filled at %.0f /s", t.purged.others(), t.filled.rate())},
		{what: fmt.Sprintf("%s, while purging, at %d requests a second: p99", name, pacedRate), value: ms(t.paced.quantile(0.99)), unit: "ms", most: latency,
			detail: t.paced.others()},
		{what: name + ", the same load without purging: p99", value: ms(t.kept.quantile(0.99)), unit: "ms", detail: t.kept.others()},
		{what: name + ": resident", value: max(t.opened, t.loaded), unit: "MiB", most: memory, detail: fmt.Sprintf("%.0f MiB after the start", t.opened)},
		{what: name + ": start of the daemon", value: t.intact.Seconds(), unit: "s", most: start},
		{what: name + ": start with a file that another program has changed", value: t.checked.Seconds(), unit: "s", most: start},
	}
}

func (l latencies) others() string {
	return fmt.Sprintf("p50 %.2f ms, p99.9 %.2f ms", ms(l.quantile(0.5)), ms(l.quantile(0.999)))
}

// The rounds of greylistRequest.
const (
	storedRound = 1000 + iota
	purgingRound
	pacedRound
	keepingRound
)

func measureTriplets(ctx context.Context, e *env, name string, flags ...string) (t triplets, err error) {
	store := filepath.Join(e.dir, name+".db")
	flags = append(flags, "--greylist-store=sqlite:"+store)
	daemon, g, err := startGreylist(ctx, e, name+"1", flags...)
	if err != nil {
		return t, err
	}
	g.requests = manyTriplets
	t.filled, err = g.send(ctx, storedRound, "")
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
	t.checked = time.Since(began)
	if err := errors.Join(t.loadWhilePurging(ctx, g), daemon.Stop()); err != nil {
		return t, err
	}
	began = time.Now()
	if daemon, g, err = startGreylist(ctx, e, name+"3", flags...); err != nil {
		return t, err
	}
	t.intact = time.Since(began)
	t.kept, err = g.knownAndNew(ctx, purgingRound, keepingRound, 0)
	return t, errors.Join(err, daemon.Stop())
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

// loadWhilePurging measures the load and the memory. The store looks for expired rows
// all the time.
func (t *triplets) loadWhilePurging(ctx context.Context, g greylister) (err error) {
	if t.opened, err = resident(g.pids[0]); err != nil {
		return err
	}
	if t.paced, err = g.knownAndNew(ctx, storedRound, pacedRound, time.Second/pacedRate); err != nil {
		return err
	}
	if t.purged, err = g.knownAndNew(ctx, pacedRound, purgingRound, 0); err != nil {
		return err
	}
	t.loaded, err = resident(g.pids[0])
	return err
}

// knownAndNew sends requests, half of them of triplets of an earlier round. Those of
// storedRound have expired and begin anew; the others pass for the first time. For every
// see load.
func (g greylister) knownAndNew(ctx context.Context, known, fresh int, every time.Duration) (latencies, error) {
	l := load{conns: greylistConns, requests: manyLoad, every: every, request: func(c, i int) []byte {
		at := i / 2 * 11 // among all that storedRound has
		if i%2 == 0 {
			return greylistRequest(known, c, at)
		}
		return greylistRequest(fresh, c, at)
	}}
	took, _, _, err := l.sendLean(ctx, g.socket)
	return took, err
}
