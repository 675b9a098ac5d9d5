package logging

import (
	"sync"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/postern-mail/postern/internal/record"
)

// recordCore is zap's core with a short way for records. The cores that zap
// makes of it for loggers with fields of their own are zap's.
type recordCore struct {
	zapcore.Core
	out    zapcore.WriteSyncer
	stamps *stamps
	lines  sync.Pool // of *[]byte
}

func newRecordCore(core zapcore.Core, out zapcore.WriteSyncer, stamps *stamps) *recordCore {
	return &recordCore{Core: core, out: out, stamps: stamps, lines: sync.Pool{New: func() any { return new([]byte) }}}
}

// WriteRecord implements record.LineWriter.
func (c *recordCore) WriteRecord(level zapcore.Level, at time.Time, r *record.Record) {
	if !c.Enabled(level) {
		return
	}
	line := c.lines.Get().(*[]byte)
	b := append((*line)[:0], `{"level":"`...)
	b = append(b, level.String()...)
	b = append(b, `","ts":"`...)
	b = c.stamps.append(b, at)
	b = append(b, `","msg":"`+record.Message+`"`...)
	b = r.AppendJSON(b)
	b = append(b, '}', '\n')
	_, _ = c.out.Write(b) // counts its failures
	*line = b
	c.lines.Put(line)
}
