package service

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/daemon"
)

const (
	// startLook is the time between two reports of a start that takes long.
	startLook = 10 * time.Second
	// startPatience is how long the service manager then waits for the next one.
	startPatience = time.Minute
)

// errStopped is the error of a start that a signal has ended.
var errStopped = errors.New("stopped while starting")

// starting waits until the first state is built. That takes long when the file of a
// store is large.
type starting struct {
	signals  <-chan os.Signal
	notifier daemon.Notifier
	reading  *reading
	log      *zap.Logger
	report   func(daemon.Event)
	held     []os.Signal // that came meanwhile, each once: for daemon.Run
}

// wait returns the error of build. When a signal asks the daemon to stop, it returns
// errStopped at once: build then ends with the process, and loses nothing.
func (s *starting) wait(build func() error) error {
	built := make(chan error, 1)
	go func() { built <- build() }()
	look := time.NewTicker(startLook)
	defer look.Stop()
	for {
		select {
		case err := <-built:
			return err
		case sig := <-s.signals:
			if sig != syscall.SIGHUP && sig != syscall.SIGUSR2 {
				s.report(daemon.Event{Kind: daemon.SignalReceived, Cause: sig.String()})
				return errStopped
			}
			if !slices.Contains(s.held, sig) {
				s.held = append(s.held, sig)
			}
		case <-look.C:
			s.goesOn()
		}
	}
}

// goesOn reports how much has been read. The service manager is asked for more time
// only when more has been read since the last report.
func (s *starting) goesOn() {
	store, entries, more := s.reading.look()
	if !more {
		return
	}
	s.log.Info("the start takes long, a store is being read", zap.String("store", store), zap.Int("entries", entries))
	if err := s.notifier.Starting(fmt.Sprintf("reading the %s store: %d entries", store, entries), startPatience); err != nil {
		s.report(daemon.Event{Kind: daemon.NotifyFailed, Err: err})
	}
}

// reading is how many entries of a store have been read. The zero value is ready to use.
type reading struct {
	mu      sync.Mutex
	store   string
	entries int
	more    bool // since the last look
}

// read adds entries of a store.
func (r *reading) read(store string, entries int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.store != store {
		r.store, r.entries = store, 0
	}
	r.entries += entries
	r.more = true
}

func (r *reading) look() (store string, entries int, more bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	more, r.more = r.more, false
	return r.store, r.entries, more
}
