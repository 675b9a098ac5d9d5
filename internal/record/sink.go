package record

import (
	"time"

	"go.uber.org/zap"
)

// Sink takes the records of a daemon: its log, its counters.
type Sink interface {
	// Record takes what was decided at a time. It must not wait, and keep neither
	// r nor what r leads to: the caller fills r again.
	Record(r *Record, at time.Time)
}

// Sinks are several sinks, which get each record in their order.
type Sinks []Sink

// Record implements [Sink].
func (s Sinks) Record(r *Record, at time.Time) {
	for _, sink := range s {
		sink.Record(r, at)
	}
}

// Log is the sink that writes each record as one line of a log.
type Log struct{ *zap.Logger }

// Record implements [Sink].
func (l Log) Record(r *Record, at time.Time) { r.LogAt(l.Logger, at) }
