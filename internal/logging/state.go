package logging

import (
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// StateLog writes a line when the state of a thing changes, and none while it
// stays the same. So a backend that is down is reported once, not with every
// request. It is safe for concurrent use, and cheap when nothing changes.
type StateLog struct {
	logger  *zap.Logger
	state   atomic.Pointer[string]
	repeats atomic.Uint64
}

// NewStateLog returns a StateLog for subject. Its first state is initial, which
// is not logged before there was another state.
func NewStateLog(l *zap.Logger, subject, initial string) *StateLog {
	s := &StateLog{logger: l.With(zap.String("subject", subject))}
	s.state.Store(&initial)
	return s
}

// Report notes the state and reports whether it has changed. It logs a change at
// level, with the fields and with the number of times that the previous state was
// repeated ("repeats"). States are a few fixed words. What varies, such as an
// error text, belongs into fields.
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

// change sets the state to next and returns the previous one. When several
// callers report the same change, it is a change for one of them and a repetition
// for the others.
func (s *StateLog) change(next string) (before *string, repeated bool) {
	for {
		before = s.state.Load()
		if *before == next {
			return before, true
		}
		to := next // allocates only for a change
		if s.state.CompareAndSwap(before, &to) {
			return before, false
		}
	}
}

// State returns the last reported state.
func (s *StateLog) State() string { return *s.state.Load() }
