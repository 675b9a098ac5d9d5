package soak

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// figures are the resources of a daemon.
type figures struct {
	name       string
	memory     float64 // MiB in RAM
	goroutines float64
	files      float64
}

func (f figures) String() string {
	return fmt.Sprintf("%.1f MiB, %.0f goroutines, %.0f open files", f.memory, f.goroutines, f.files)
}

// How much the figures may grow in the second half. The memory is for buffers and
// caches, which grow to their bounds. The greylist is in Redis.
const (
	moreMemory     = 48  // MiB
	moreUnderRace  = 250 // MiB, when the daemons have the race detector, whose own memory grows
	moreGoroutines = 10
	moreFiles      = 10
)

func (s *site) figures(ctx context.Context) (all []figures, err error) {
	for _, d := range s.daemons() {
		values, err := postfixtest.Scrape(ctx, s.path(d.name+".metrics"))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.name, err)
		}
		all = append(all, figures{d.name, values["process_resident_memory_bytes"] / (1 << 20), values["go_goroutines"], values["process_open_fds"]})
	}
	return all, nil
}

// settled returns the figures after the load has ended. Connections close a moment
// later.
func (s *site) settled(ctx context.Context, half []figures) (last []figures, err error) {
	allowed := float64(moreMemory)
	if postfixtest.RaceEnabled {
		allowed = moreUnderRace
	}
	for since := time.Now(); ; {
		if last, err = s.figures(ctx); err != nil {
			return last, err
		}
		var grown []error
		for i, f := range last {
			if f.memory > half[i].memory+allowed || f.goroutines > half[i].goroutines+moreGoroutines || f.files > half[i].files+moreFiles {
				grown = append(grown, fmt.Errorf("%s has grown: %s; at half time %s", f.name, f, half[i]))
			}
		}
		if len(grown) == 0 || time.Since(since) > time.Minute {
			return last, errors.Join(grown...)
		}
		if err := wait(ctx, sampleEvery); err != nil {
			return last, err
		}
	}
}
