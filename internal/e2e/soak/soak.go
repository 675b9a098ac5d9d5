// Package soak is a test that runs both daemons under mixed load for some time. Meanwhile
// it causes the faults of a bad month: Redis is killed, is paused, is slow, and refuses to
// write; databases and a directory are killed and hang; DNS fails, is silent, lies, and is
// slow; a table server hangs; the disk is full; daemons are killed; settings are reloaded
// and tables rewritten; descriptors are few; clients stall. The test fails if an answer is
// wrong, if a daemon ends, if something does not recover after the faults, or if memory,
// goroutines or open files grow. It needs root, for a small disk and for the servers'
// accounts.
package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	warmUp      = 10 * time.Second // of load, before figures are taken
	faultEvery  = 2 * time.Second
	sampleEvery = time.Second
)

// soak runs the load with faults for a time span, and reports to w.
func soak(ctx context.Context, span time.Duration, seed uint64, servers []*tableServer, w io.Writer) (err error) {
	fmt.Fprintf(w, "soak: %v of mixed load with faults, seed %d\n", span, seed)
	s, err := start(ctx, servers)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	loaded, end := context.WithCancel(ctx)
	load := newLoad(s)
	group, loaded := errgroup.WithContext(loaded)
	load.start(loaded, group)

	half, faults, err := s.disturb(loaded, load, span, rand.New(rand.NewPCG(seed, 0)))
	end()
	if err := errors.Join(err, group.Wait()); err != nil {
		return err
	}
	last, err := s.settled(ctx, half)
	report(w, load, faults, half, last)
	return err
}

// disturb causes faults under load for a time span. It returns the figures at half time,
// and how often each fault was caused. Daemons are killed in the first half only: what
// grows in the second half grows in one life of each daemon.
func (s *site) disturb(ctx context.Context, load *load, span time.Duration, random *rand.Rand) (half []figures, faults map[string]int, err error) {
	all := s.faults()
	maps.Copy(all, s.kills())
	if faults, err = s.trouble(ctx, span/2, random, all); err != nil {
		return nil, nil, err
	}
	if err := wait(ctx, warmUp); err != nil {
		return nil, nil, err
	}
	if half, err = s.figures(ctx); err != nil {
		return nil, nil, err
	}
	more, err := s.trouble(ctx, span/2, random, s.faults())
	if err != nil {
		return nil, nil, err
	}
	for name, times := range more {
		faults[name] += times
	}
	return half, faults, load.recovered(ctx)
}

// trouble causes one fault after the other in random order, each at least once. When it
// returns, everything works again.
func (s *site) trouble(ctx context.Context, span time.Duration, random *rand.Rand, all map[string]fault) (done map[string]int, err error) {
	names := slices.Sorted(maps.Keys(all))
	done = make(map[string]int)
	for end := time.Now().Add(span); time.Now().Before(end) || len(done) < len(names); {
		order := random.Perm(len(names))
		for _, i := range order {
			name := names[i]
			done[name]++
			heal, err := all[name](ctx)
			if err != nil {
				return done, fmt.Errorf("%s: %w", name, err)
			}
			err = wait(ctx, faultEvery)
			if err = errors.Join(err, heal()); err != nil {
				return done, fmt.Errorf("after %s: %w", name, err)
			}
			if !time.Now().Before(end) && len(done) == len(names) {
				break
			}
		}
	}
	return done, nil
}

// wait waits for d. It returns an error if ctx ends first.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

func report(w io.Writer, l *load, faults map[string]int, half, last []figures) {
	for _, name := range slices.Sorted(maps.Keys(faults)) {
		fmt.Fprintf(w, "  %4d times %s\n", faults[name], name)
	}
	l.report(w)
	for i := range last {
		fmt.Fprintf(w, "  %s: %s; at half time %s\n", last[i].name, last[i], half[i])
	}
}
