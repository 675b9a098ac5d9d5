package record

import (
	"time"

	"go.uber.org/zap"
)

// Sink receives the records of a daemon. The log and the counters are sinks.
type Sink interface {
	// Record receives the record of a decision and its time. It must not wait. It
	// must not keep r or anything to which r points, because the caller reuses r.
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
