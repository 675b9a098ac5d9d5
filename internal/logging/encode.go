package logging

import (
	"sync"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/postern-mail/postern/internal/record"
)

// form appends a record as a line, with its end.
type form func(b []byte, stamps *stamps, level zapcore.Level, at time.Time, r *record.Record) []byte

// recordCore is zap's core with a faster way for records. Loggers with fields of
// their own get a plain core of zap.
type recordCore struct {
	zapcore.Core
	out    zapcore.WriteSyncer
	stamps *stamps
	form   form
	lines  sync.Pool // of *[]byte
}

func newRecordCore(core zapcore.Core, out zapcore.WriteSyncer, stamps *stamps, form form) *recordCore {
	return &recordCore{Core: core, out: out, stamps: stamps, form: form, lines: sync.Pool{New: func() any { return new([]byte) }}}
}

// WriteRecord implements record.LineWriter.
func (c *recordCore) WriteRecord(level zapcore.Level, at time.Time, r *record.Record) {
	if !c.Enabled(level) {
		return
	}
	line := c.lines.Get().(*[]byte)
	b := c.form((*line)[:0], c.stamps, level, at, r)
	_, _ = c.out.Write(b) // counts its failures
	*line = b
	c.lines.Put(line)
}

// jsonForm appends the line that zap's JSON encoder would write.
func jsonForm(b []byte, stamps *stamps, level zapcore.Level, at time.Time, r *record.Record) []byte {
	b = append(b, `{"level":"`...)
	b = append(b, level.String()...)
	b = append(b, `","ts":"`...)
	b = stamps.append(b, at)
	b = append(b, `","msg":"`+record.Message+`"`...)
	b = r.AppendJSON(b)
	return append(b, '}', '\n')
}

// consoleForm appends one short line for people.
func consoleForm(b []byte, stamps *stamps, level zapcore.Level, at time.Time, r *record.Record) []byte {
	b = stamps.append(b, at)
	b = append(append(append(b, ' '), level.String()...), ' ')
	return append(r.AppendConsole(b), '\n')
}
