package logging

import (
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// StateLog writes a line when the state of one thing changes, and none while
// it stays: a dead backend is reported once, not with every request. It is
// safe for concurrent use, and cheap when nothing changes.
type StateLog struct {
	logger  *zap.Logger
	state   atomic.Pointer[string]
	repeats atomic.Uint64
}

// NewStateLog reports on subject, which is in state initial: that state is not
// worth a line until another one has been.
func NewStateLog(l *zap.Logger, subject, initial string) *StateLog {
	s := &StateLog{logger: l.With(zap.String("subject", subject))}
	s.state.Store(&initial)
	return s
}

// Report notes the state and reports whether it is a change, which is logged at
// level with the fields given, and with how often the state before had been
// reported again ("repeats"). States are few fixed words: what varies (an error
// text) goes into fields.
func (s *StateLog) Report(level zapcore.Level, state string, fields ...zap.Field) bool {
	before, repeated := s.change(state)
	if repeated {
		s.repeats.Add(1)
		return false
	}
	if e := s.logger.Check(level, "state changed"); e != nil {
		e.Write(append([]zap.Field{
			zap.String("state", state),
			zap.String("before", *before),
			zap.Uint64("repeats", s.repeats.Swap(0)),
		}, fields...)...)
	}
	return true
}

// change makes next the state and gives the one before. Of several callers that
// report the same change one makes it, the others repeat it.
func (s *StateLog) change(next string) (before *string, repeated bool) {
	for {
		before = s.state.Load()
		if *before == next {
			return before, true
		}
		to := next // only a change pays for the allocation
		if s.state.CompareAndSwap(before, &to) {
			return before, false
		}
	}
}

// State is the state reported last.
func (s *StateLog) State() string { return *s.state.Load() }
